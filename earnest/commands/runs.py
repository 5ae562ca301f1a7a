"""Commands that list, compare and explain: ``earnest runs``, ``compare``, ``rules``, ``explain``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from earnest.commands import arguments
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
    from earnest.commands.front import recipe_list

    print(recipe_list())
    return 0


def rules() -> int:
    """List every rule."""
    from earnest.rules.explain import listing

    _show(listing())
    return 0


def explain(topic: Positional[str]) -> int:
    """Explain a rule by its code, any word of a report, a signal, fact, probe, recipe or trainer; `words`, `signals`,
    `facts`, `recipes`, `trainers`, `models`, `tokens` (what -100, 1024, 1025 mean) and `bands` list all of a kind."""
    from earnest.explain import explain as text_of

    _show(text_of(topic))
    return 0


def _show(markdown: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    from earnest.lines import without_wide_tables

    console = Console()
    console.print(Markdown(without_wide_tables(markdown, console.width)))


LAUNCHERS = {
    "torchrun": "torchrun --nproc-per-node N",
    "accelerate": "accelerate launch",
    "python": "python",
    "python3": "python3",
}


def watch(first: str, args: list[str]) -> int:
    """Watch a training as it goes: earnest watch [--stop-on critical] SCRIPT.py [ARGS], anybody's, unmodified; or
    earnest watch LOG [--until critical] [--page], a log that grows."""
    words = [first, *args]
    script = next((place for place, word in enumerate(words) if word.endswith(".py")), None)
    if script is not None and first not in LAUNCHERS:
        from earnest.loops.run_script import run_script
        from earnest.loops.settings import Settings

        settings = arguments.parse(Settings, words[:script], "earnest watch")()
        return int(run_script(Path(words[script]), words[script + 1 :], settings))
    if first in LAUNCHERS:
        raise UserError(
            f"{first}, which starts processes",
            "earnest within each of them",
            f"the other way round: {LAUNCHERS[first]} -m earnest watch SCRIPT.py ARGS",
        )
    return arguments.parse(follow, [word for word in words if word], "earnest watch")()


def follow(
    log: Positional[Path],
    until: Literal["critical", "warning", "note"] | None = None,
    page: bool = False,
    port: int = 0,
    ended_s: float = 600.0,
    map: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    fact: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    run: str | None = None,
) -> int:
    """Follow a log until its run ends: what is believed is printed as it comes. Exit 1 if something critical is.

    Args:
        log: A run directory or a log in any format that `earnest diagnose` reads; or SCRIPT.py, which is then run.
        until: End at the first finding of this severity; exit 1 then.
        page: Show verdicts, curves and findings on a page at 127.0.0.1 too; it stays until Ctrl-C.
        port: Of the page; a free one if 0.
        ended_s: A log that cannot say that it has ended is taken to have ended after so long without a new row.
        map: COLUMN=SIGNAL, as for `earnest diagnose`. Repeatable.
        fact: NAME=VALUE, as for `earnest diagnose`. Repeatable.
        run: Which one, if the log holds several.
    """
    from earnest.follow import watch_log

    options = {"overrides": arguments.columns(map), "facts": arguments.facts(fact), "run": run}
    return int(watch_log(log, options, until, ended_s, page, port))


def skill(out: Positional[Path | None] = None) -> int:
    """Print the instructions for agents that run trainings, or write them as OUT/earnest/SKILL.md.

    Args:
        out: A directory of skills, such as .claude/skills; printed if not given.
    """
    from importlib.resources import files

    from earnest.files import write_whole

    text = (files("earnest") / "SKILL.md").read_text(encoding="utf-8")
    if out is None:
        print(text, end="")
        return 0
    folder = out / "earnest"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "SKILL.md", text)
    print(folder / "SKILL.md")
    return 0


def mcp() -> int:
    """Serve diagnoses to agents over standard input and output (Model Context Protocol): needs earnest[mcp]."""
    from earnest.agents import server

    server().run("stdio")
    return 0
