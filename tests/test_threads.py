"""Threads are chosen before torch is imported, by what a container may use, and what the environment says wins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from earnest import threads


def folder_of(at: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(text)
    return at


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "what is this"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "400000\n"}, None),
    ],
)
def test_cores_that_a_container_may_use(tmp_path, files, cores):
    assert threads.quota(folder_of(tmp_path, files)) == cores


def test_what_the_environment_says_wins(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    cgroup = folder_of(tmp_path, {"cpu.max": "200000 100000"})
    chosen, said = dict[str, str](), {threads.WAIT: "active", threads.THREADS: "7"}
    threads.choose(chosen, cgroup)
    threads.choose(said, cgroup)
    assert chosen == {threads.WAIT: "PASSIVE", threads.THREADS: "2"}
    assert said == {threads.WAIT: "active", threads.THREADS: "7"}


def test_torch_waits_without_spinning():
    """A command chooses before torch is imported, whose threads then do as they are told."""
    code = """if True:
        import os, sys
        from earnest.cli import main
        main(["explain", "A201"])
        assert "torch" not in sys.modules and os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
        import torch
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"OMP_DISPLAY_ENV": "TRUE"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
