"""The exception for mistakes that a user can mend, and its one special case."""


class UserError(Exception):
    """A mistake in the input, told in three lines: what was seen, what was expected, what to do.

    The command line prints it without a traceback and exits with 2.
    """

    def __init__(self, seen: str, expected: str, fix: str):
        super().__init__(seen, expected, fix)
        self.seen, self.expected, self.fix = seen, expected, fix

    def __str__(self) -> str:
        return f"seen:     {self.seen}\nexpected: {self.expected}\nfix:      {self.fix}"


class TooLongError(UserError):
    """A text or clip that a model's context, or the limit that a user set, does not hold."""
