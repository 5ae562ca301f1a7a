"""CPU seconds of ``earnest diagnose`` on a table of 60 rows, beside those of Python and of numpy alone.

    python -m benchmarks.start_up [--times N]

Each is run N times (5) in a process of its own; the least counts, as a busy machine only adds. Bytecode is kept in a
folder of its own, as an installed package has it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "log.csv"
        rows = (f"{10 * row},{2 + 5 * 0.92**row:.4f},{1 + row % 7 / 10},1e-4" for row in range(ROWS))
        table.write_text("\n".join(["step,loss,grad_norm,lr", *rows, ""]))
        words = {
            "python": ["-c", "pass"],
            "numpy": ["-c", "import numpy"],
            "earnest diagnose": ["-m", "earnest.cli", "diagnose", str(table)],
        }
        for name, arguments in words.items():
            least = min(cpu_s(arguments, Path(folder) / "bytecode") for _ in range(times + 1))
            print(f"{name:<17} {least:.2f} s")


def cpu_s(arguments: list[str], bytecode: Path) -> float:
    """CPU seconds, user and system, of one run of Python."""
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(bytecode)}
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env={**os.environ, **kept})
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 1), arguments
    process.returncode = 0
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
