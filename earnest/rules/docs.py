"""Generates docs/rules from the rules' docstrings: ``python -m earnest.rules.docs``, in the repository's root."""

from pathlib import Path

from earnest.rules import catalogue
from earnest.rules.explain import listing, page


def pages() -> dict[str, str]:
    """Path in the repository -> text: one page per rule, and their list."""
    head = "# Rules\n\nGenerated from the rules' docstrings by `python -m earnest.rules.docs`.\n\n"
    return {f"docs/rules/{rule.code}.md": page(rule) for rule in catalogue()} | {
        "docs/rules/README.md": head + listing()
    }


if __name__ == "__main__":
    for path, text in pages().items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
