"""The kinds of logs: a file each that reads one, and what they share."""
