"""Free text: whatever a training loop printed, carriage returns and ANSI colours included.

What reads it (printed.py, line.py) is imported if a text is there: its patterns take as long to compile as a table to
judge.
"""

from earnest.logs.format import PRINTED, Format
from earnest.logs.log import Log
from earnest.logs.source import Source

NAME = "text"


def claims(source: Source) -> bool:
    if not source.is_text:
        return False
    from earnest.logs.formats.printed import has_rows

    return has_rows(source)


def read(source: Source) -> Log:
    from earnest.logs.formats import printed

    return printed.read(source)


FORMAT = Format(NAME, "text", PRINTED, claims, read, suffixes=(".log", ".txt", ".out", ".err", ".md", ""))
