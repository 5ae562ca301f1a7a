"""Files and directories that appear whole or not at all, also if two write the same; the cache; fingerprints."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from earnest.files import cache_dir, fingerprint, whole_directory, whole_file, write_whole


def test_a_file_is_there_whole_with_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    write_whole(tmp_path / "a.json", "é")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "é"
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode
    write_whole(tmp_path / "a.json", "another")
    assert (tmp_path / "a.json").read_text() == "another"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "plain"]


def test_a_directory_is_there_whole_with_the_permissions_of_any_new_directory(tmp_path):
    (tmp_path / "plain").mkdir()
    with whole_directory(tmp_path / "deep" / "made") as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "file").write_text("x")
        assert not (tmp_path / "deep" / "made").exists()
    assert (tmp_path / "deep" / "made" / "inner" / "file").read_text() == "x"
    assert (tmp_path / "deep" / "made").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["made"]


def test_an_error_leaves_nothing_and_what_was_there_as_it_was(tmp_path):
    write_whole(tmp_path / "kept", "before")
    with pytest.raises(RuntimeError), whole_file(tmp_path / "kept") as aside:
        aside.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), whole_directory(tmp_path / "made") as aside:
        (aside / "half").write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "before"


def test_an_empty_directory_is_filled_and_a_full_one_stays(tmp_path):
    """A user may name an empty folder; a full one was written by another process meanwhile, from the same."""
    (tmp_path / "made").mkdir()
    for text in ("first", "second"):
        with whole_directory(tmp_path / "made") as aside:
            (aside / "file").write_text(text)
    assert (tmp_path / "made" / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_file_in_the_place_of_the_directory_is_an_error(tmp_path):
    write_whole(tmp_path / "made", "a file")
    with pytest.raises(OSError), whole_directory(tmp_path / "made") as aside:
        (aside / "file").write_text("x")
    assert (tmp_path / "made").read_text() == "a file"


def test_two_writers_at_once_have_names_of_their_own(tmp_path):
    both_write = threading.Barrier(2)

    def write(text: str) -> None:
        with whole_file(tmp_path / "file") as aside_file, whole_directory(tmp_path / "folder") as aside_folder:
            aside_file.write_text(text)
            (aside_folder / "file").write_text(text)
            both_write.wait(timeout=60)

    writers = [threading.Thread(target=write, args=(text,)) for text in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
    assert (tmp_path / "file").read_text() in ("one", "two")
    assert (tmp_path / "folder" / "file").read_text() in ("one", "two")


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    """A device in its place would be lost for the whole machine: /dev/full became a file, as root."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with whole_file(pipe) as path:
        path.write_bytes(b"codes")
    assert os.read(reader, 99) == b"codes" and pipe.is_fifo()
    os.close(reader)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("EARNEST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "earnest"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "earnest"


def test_a_fingerprint_knows_names_types_shapes_and_values():
    weight = torch.arange(6.0)
    base = fingerprint({"a": weight, "b": weight})
    assert base == fingerprint({"b": weight, "a": weight.clone()}) and len(base) == 64
    others = [
        {"a": weight, "c": weight},
        {"a": weight.double(), "b": weight},
        {"a": weight.reshape(2, 3), "b": weight},
        {"a": weight + 1, "b": weight},
    ]
    assert len({base, *map(fingerprint, others)}) == 5
    assert fingerprint({"a": torch.ones(2, 3).T}) == fingerprint({"a": torch.ones(3, 2)})


def test_the_ground_floor_needs_no_torch():
    code = "import sys, earnest.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0
