"""What was replaced, to be told."""

_WORDS: dict[str, None] = {}


def tell(words: str) -> None:
    """Note that something stands in for something else; the same is told once."""
    _WORDS[words] = None


def told() -> list[str]:
    return list(_WORDS)
