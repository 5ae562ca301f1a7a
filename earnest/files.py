"""Files that appear whole or not at all, the cache directory, and fingerprints: one implementation for everybody."""

import errno
import mmap
import os
import shutil
import stat
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedReader

    from torch import Tensor


def write_whole(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all: aside, synced, renamed."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def read_small(path: Path, most_bytes: int) -> bytes:
    """What a regular file holds. Raises OSError for a pipe or a device, which might never end, and for a file of more
    than `most_bytes`."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise OSError(errno.EFBIG, f"it is larger than {most_bytes:,} bytes", str(path))
        return file.read(most_bytes)


def open_regular(path: Path) -> "BufferedReader":
    """A regular file, opened to be read. Raises OSError for a pipe or a device: reading one might never end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # so that a pipe without a writer is no wait
    file = open(handle, "rb")  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


@contextmanager
def whole_file(path: Path) -> Generator[Path, None, None]:
    """A path to write a file at; when the block ends it becomes `path`, synced. If the block raises, nothing is left.

    The name aside is unique, so that two processes may write the same file: the last to finish wins. A pipe or device
    is written to, never replaced.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o666 & ~_umask())
        _sync(aside)
        os.replace(aside, path)
        _sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path, replace: bool = False) -> Generator[Path, None, None]:
    """A directory to fill; when the block ends it becomes `path`, synced. If the block raises, nothing is left.

    A directory that is there when the block ends stays, and the new one is dropped: another process was first, and both
    were made from the same. An empty one is replaced, and with `replace` any.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield aside
        aside.chmod(0o777 & ~_umask())
        for file in aside.rglob("*"):
            _sync(file)
        _sync(aside)
        try:
            os.replace(aside, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if replace:
                old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
                os.replace(path, old)
                os.replace(aside, path)
                shutil.rmtree(old)
        _sync(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def mapped(pieces: Iterable[bytes]) -> mmap.mmap | bytes:
    """These bytes one after the other in a file without a name, below `cache_dir`, mapped: they take no memory that the
    system cannot take back, and are gone with the process."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_dir()) as file:
        file.writelines(pieces)
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""


def cache_dir() -> Path:
    """The directory for what can be made again: $EARNEST_CACHE, else earnest/ in the user's cache directory."""
    if "EARNEST_CACHE" in os.environ:
        return Path(os.environ["EARNEST_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "earnest"


def fingerprint(tensors: Mapping[str, "Tensor"]) -> str:
    """sha256 over names, types, shapes and values of a model's tensors."""
    import hashlib

    import torch  # whoever has tensors has imported it: the ground floor itself does without

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
