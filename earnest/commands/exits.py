"""The exit codes of every command, written down once."""

EXIT_FOUND, EXIT_MISTAKE, EXIT_FAULT = 1, 2, 3
EXIT_CODES = {
    0: "done, and nothing found",
    EXIT_FOUND: "diagnose, data check: something was found",
    EXIT_MISTAKE: "a mistake, told in three lines",
    EXIT_FAULT: "a fault of earnest itself, with a file to report",
    129: "stopped by SIGHUP: the terminal was closed",
    130: "stopped by Ctrl-C",
    141: "the program that read the output has closed it",
    143: "stopped by SIGTERM, as Slurm and timeout send it",
}
