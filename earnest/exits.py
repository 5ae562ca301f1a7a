"""The exit codes of every command, written down once."""

import signal

EXIT_FOUND, EXIT_MISTAKE, EXIT_FAULT = 1, 2, 3
EXIT_CODES = {
    0: "done, and nothing found",
    EXIT_FOUND: "diagnose, data check: something was found",
    EXIT_MISTAKE: "a mistake, told in three lines",
    EXIT_FAULT: "a fault of earnest itself, with a file to report",
    128 + signal.SIGINT: "stopped by Ctrl-C",
    128 + signal.SIGTERM: "stopped by SIGTERM, as Slurm and timeout send it",
}
