"""Commands that list, compare and explain: ``earnest runs``, ``compare``, ``rules``, ``explain``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from earnest import arguments
from earnest.errors import UserError

if TYPE_CHECKING:
    from earnest.rules.finding import Finding
    from earnest.run import Run

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


def compare(
    paths: Positional[tuple[Path, ...]],
    format: Literal["text", "json", "html"] = "text",
    out: Path | None = None,
    fact: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    model: str | None = None,
) -> int:
    """Compare runs, ours and anybody's: which is better by more than the interval, their curves, and what differs.

    Args:
        paths: Two or more runs or logs; a directory of several stands for all of them.
        format: How the answer is written; html holds the curves.
        out: Where to; standard output if not given (html: compare.html).
        fact: NAME=VALUE for what the logs do not hold, of all of them. Repeatable.
        model: A known model, in place of facts.
    """
    from earnest import comparison
    from earnest.report import present_comparison

    runs = comparison.read(paths, arguments.facts(fact), model)
    present_comparison(comparison.compare(runs), format, out)
    return 0


def diagnose_all(
    paths: Mapping[str, Path], read: Callable[[Path], "Run"], format: str, out: Path | None
) -> list["Finding"]:
    """Diagnose the runs of a directory; -> all findings. Raises UserError if none of them can be read."""
    from earnest.comparison import One
    from earnest.report.several import present
    from earnest.rules import diagnose

    runs: list[One] = []
    unread: dict[str, UserError] = {}
    for name, path in paths.items():
        try:
            run = read(path)
            runs.append(One(name, run, diagnose(run)))
        except UserError as error:
            unread[name] = error
    if not runs:
        raise next(iter(unread.values()))
    present(runs, unread, format, out)
    return [finding for one in runs for finding in one.diagnosis.findings]


def recipes() -> int:
    """Describe every recipe: what can be trained."""
    from earnest.front import recipe_list

    print(recipe_list())
    return 0


def rules() -> int:
    """List every rule."""
    from rich.console import Console
    from rich.markdown import Markdown

    from earnest.rules.explain import listing

    Console().print(Markdown(listing()))
    return 0


def explain(topic: Positional[str]) -> int:
    """Explain a rule by its code, any word of a report, a signal, fact, probe, recipe or trainer; `words`, `signals`,
    `facts`, `recipes`, `trainers`, `models`, `tokens` (what -100, 1024, 1025 mean) and `bands` list all of a kind."""
    from rich.console import Console
    from rich.markdown import Markdown

    from earnest.explain import explain as text_of

    Console().print(Markdown(text_of(topic)))
    return 0
