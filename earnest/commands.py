"""Commands that list, compare and explain: ``earnest runs``, ``rules``, ``explain``."""

from pathlib import Path
from typing import Literal

import tyro

Positional = tyro.conf.Positional


def runs(
    directory: Positional[Path] = Path("runs"),
    judge: bool = False,
    format: Literal["text", "json"] = "text",
) -> int:
    """List the runs below a directory, ours and anybody's: what, when, how it ended, its verdict, held-out loss.

    Args:
        directory: Where they lie.
        judge: Judge every run that was not judged yet; without it, those that less than a second is enough for.
        format: How the list is written.
    """
    from earnest.overview import BUDGET_S, overview
    from earnest.report.runs import as_json, table

    entries = overview(directory, float("inf") if judge else BUDGET_S)
    if format == "json":
        print(as_json(entries), end="")
    else:
        from rich.console import Console

        table(entries, Console())
    return 0


def rules() -> int:
    """List every rule."""
    from rich.console import Console
    from rich.markdown import Markdown

    from earnest.rules.explain import listing

    Console().print(Markdown(listing()))
    return 0


def explain(topic: Positional[str]) -> int:
    """Explain a rule by its code, a public trainer by its name (`trainers` lists them), `models`, `facts` (what --fact
    takes), `tokens` (what -100, 1024, 1025 mean), or `bands` (thresholds that documents give)."""
    from rich.console import Console
    from rich.markdown import Markdown

    from earnest.rules.explain import explain as text_of

    Console().print(Markdown(text_of(topic)))
    return 0
