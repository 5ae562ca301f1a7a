"""What was replaced, to be told."""

_WORDS: dict[str, None] = {}
_PACKAGES: dict[str, None] = {}


def tell(words: str) -> None:
    """Note, once for each, that something stands in for something else."""
    _WORDS[words] = None


def tell_package(name: str) -> None:
    """Note that a package is not installed."""
    tell(f"package {name} (not installed): a stand-in that does nothing")
    _PACKAGES[name] = None


def told() -> list[str]:
    """What was replaced so far, in words."""
    return list(_WORDS)


def packages() -> list[str]:
    """Packages that the script imports and that are not installed."""
    return list(_PACKAGES)
