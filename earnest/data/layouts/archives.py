"""Archives of audio -> a folder in the cache: a download as it came, or the shards of a webdataset.

An archive is data: nothing but regular files of audio and text is taken out of it, under their own names below one
folder, and no more than a download of its size can hold.
"""

import hashlib
import logging
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from earnest.data.audio import AUDIO_SUFFIXES
from earnest.errors import UserError
from earnest.files import cache_dir, whole_directory

log = logging.getLogger(__name__)

READ = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip")
TEXT_SUFFIXES = (
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".list", ".lst", ".lab", ".srt", ".vtt", ".textgrid", ".trn", ".data"),
    *(".gz", ".scp", ".wrd", ".ltr"),
)
NAMES = frozenset({"text", "segments", "utt2spk", "utt2lang"})  # of Kaldi, without a suffix
MOST_TIMES, LEAST_BYTES = 50, 2**28  # audio hardly shrinks; silence may


def packed(path: Path) -> list[Path]:
    """The archives that a path means: itself, or those of a folder."""
    files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    return [file for file in files if file.is_file() and file.name.lower().endswith(READ)]


def unpacked(archives: list[Path], lists: Sequence[Path] = ()) -> Path:
    """The folder in the cache with what archives hold, each in a folder of its own, and the lists that lie beside them;
    made once.

    Raises UserError for an archive that is damaged, or that holds much more than its size.
    """
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in [*archives, *lists]]
    digest = hashlib.sha256(repr((archives[0].parent.absolute().as_posix(), stats)).encode("utf-8", "replace"))
    folder = cache_dir() / "unpacked" / digest.hexdigest()[:16]
    if folder.is_dir():
        return folder
    log.warning("unpacking %s%s into %s", archives[0], f" and {len(archives) - 1} more" * (len(archives) > 1), folder)
    with whole_directory(folder) as aside:
        for archive in archives:
            inside = aside / archive.name.split(".")[0] if len(archives) > 1 else aside
            try:
                _unpack(archive, inside)
            except (
                tarfile.TarError,
                zipfile.BadZipFile,
                zlib.error,
                EOFError,
                NotImplementedError,
                ValueError,
            ) as error:
                raise UserError(f"{archive}: {error}", "a whole archive", "download it again") from error
        for file in lists:
            if not (aside / file.name).exists():
                shutil.copyfile(file, aside / file.name)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    left, files = max(MOST_TIMES * archive.stat().st_size, LEAST_BYTES), 0
    for name, size, content in _files(archive):
        left, files = left - size, files + 1
        if left < 0:
            raise UserError(
                f"{archive} holds more than {MOST_TIMES} times its size",
                "an archive of audio, which hardly shrinks",
                "unpack it yourself, and name the folder",
            )
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as out:
            shutil.copyfileobj(content, out, 2**20)
    if not files:
        raise UserError(
            f"{archive} holds no audio and no list",
            "files of audio and text in it",
            "check which one it is; an archive within an archive is yours to unpack",
        )


def _files(archive: Path) -> Iterator[tuple[PurePosixPath, int, IO[bytes]]]:
    """(name, bytes, content) of the files of audio and text."""
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as packed_files:
            for member in packed_files.infolist():
                if not member.is_dir() and _is_wanted(member.filename):
                    with packed_files.open(member) as content:
                        yield PurePosixPath(member.filename), member.file_size, content
        return
    with tarfile.open(archive, "r|*") as stream:
        for entry in stream:
            if entry.isreg() and _is_wanted(entry.name) and (content := stream.extractfile(entry)):
                yield PurePosixPath(entry.name), entry.size, content


def _is_wanted(name: str) -> bool:
    path = PurePosixPath(name)
    is_inside = not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name
    return is_inside and (path.suffix.lower() in AUDIO_SUFFIXES | set(TEXT_SUFFIXES) or path.name in NAMES)
