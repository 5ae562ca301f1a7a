"""OpenMP's threads, chosen before torch is imported.

A thread that spins at a barrier burns the core for which its sibling waits: on a machine that others use too, a step
takes 15 to 25 times as long (docs/log.md). A container's quota is no number of cores for torch, which starts a thread
for each core of the machine. What the environment says already is kept.
"""

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

WAIT, THREADS = "OMP_WAIT_POLICY", "OMP_NUM_THREADS"
_QUOTAS = ("cpu.max", "cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us")  # cgroups' second version, and the first


def choose(environment: MutableMapping[str, str], cgroup: Path = Path("/sys/fs/cgroup")) -> None:
    """Let OpenMP wait without spinning, with no more threads than a container may run at once."""
    environment.setdefault(WAIT, "PASSIVE")
    cores = quota(cgroup)
    if cores and cores < (os.cpu_count() or 1):
        environment.setdefault(THREADS, str(cores))


def quota(cgroup: Path) -> int | None:
    """Cores that a container may use at once, rounded up; None without a limit."""
    for files in _QUOTAS:
        try:
            allowed, period = " ".join((cgroup / name).read_text() for name in files.split()).split()
        except (OSError, ValueError):
            continue
        return math.ceil(int(allowed) / int(period)) if allowed not in ("max", "-1") else None
    return None


def machine(threads: int) -> str:
    """The processor and the threads that a run computes with, for people."""
    import platform

    waiting = "passive" if os.environ.get(WAIT, "").upper() == "PASSIVE" else "active"
    return f"{platform.processor() or platform.machine()}, threads: {threads}, {waiting} while they wait"
