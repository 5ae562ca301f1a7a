"""The exception for mistakes that a user can mend, what is said of a fault, and text that is safe to show."""

import re
import sys

# Control characters (a terminal obeys them), marks that turn the direction of writing, halves of a character.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NUMBER = re.compile(r"^\[Errno \d+\] ")
_ASIDE = re.compile(r"\.([^/]+?)\.\w{8}\.tmp\b")  # what a file is called while it is written (files.py)
_NEW_LINE = re.compile(r"\n(?! {10})")  # a list under a line is indented by so much; any other is part of a name


def clean(text: object) -> str:
    """Text as a terminal or a page may show it: what could steer either is written out as \\uXXXX."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))


class UserError(Exception):
    """A mistake in the input, told in three lines: what was seen, what was expected, what to do.

    The command line prints it without a traceback and exits with 2.
    """

    def __init__(self, seen: str, expected: str, fix: str):
        super().__init__(seen, expected, fix)
        self.seen, self.expected, self.fix = seen, expected, fix

    def __str__(self) -> str:
        seen, expected, fix = (_NEW_LINE.sub(r"\\n", clean(part)) for part in (self.seen, self.expected, self.fix))
        return f"seen:     {seen}\nexpected: {expected}\nfix:      {fix}"


def fault(error: Exception) -> str:
    """What is said of a part that failed by a fault of earnest's own, while the rest goes on; raised under ``python -X
    dev``."""
    if sys.flags.dev_mode:
        raise error
    words = " ".join(clean(error).split())[:200]
    return f"could not be checked ({type(error).__name__}: {words}): a fault of earnest, please report it as a bug"


class TooLongError(UserError):
    """A text or clip that a model's context, or the limit that a user set, does not hold."""


def of_disk(error: Exception, kept: str = "") -> UserError:
    """The three lines for a place that cannot be read or written. kept: what is safe, and how to go on."""
    seen = _ASIDE.sub(r"\1", _NUMBER.sub("", " ".join(str(error).split())))
    return UserError(
        seen,
        "a place that can be read, and written to",
        f"check path, permissions and space of the disk{kept and '; '}{kept}",
    )
