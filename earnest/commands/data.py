"""Commands on data: ``earnest data SOURCE OUT`` makes a folder to train on, ``earnest data check FOLDER`` checks it."""

import re
from dataclasses import replace
from pathlib import Path

import tyro

from earnest.bounds import check_number
from earnest.commands.exits import EXIT_FOUND
from earnest.errors import UserError, clean

Positional = tyro.conf.Positional
LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")  # ISO 639, with a script or a region


def data(source: Positional[str], out: Positional[Path]) -> int:
    """Make a folder to train on (asterisk-en, -es, -fr, -it, -ru, espeak, music, wesnoth), or check one: data check."""
    from earnest.data.layouts.music import music, wesnoth
    from earnest.data.layouts.sources import asterisk, espeak

    kind, _, language = source.partition("-")
    if kind == "asterisk":
        print(asterisk(language, out))
    elif source in ("espeak", "music", "wesnoth"):
        print({"espeak": espeak, "music": music, "wesnoth": wesnoth}[source](out))
    else:
        raise UserError(
            f"source {source!r}",
            "espeak, music, wesnoth, or asterisk-en (-es, -fr, -it, -ru)",
            "earnest data asterisk-en OUT",
        )
    return 0


def check_data(
    folder: Positional[str],
    out: Path = Path("data-check.html"),
    language: str = "",
    tokenizer: str = "",
    columns: tuple[str, ...] = (),
    split: str = "",
    limit: int | None = None,
    max_duration_s: float = 15.0,
    max_positions: int = 2048,
    frame_rate_hz: float = 50.0,
) -> int:
    """Check a data set before anything is trained on it: exit 0 if nothing is wrong (a note is not), 1 if something is.

    Args:
        folder: What --data.path of a training takes: a folder, a list, a data set on the Hub.
        out: The page, with players of the worst clips.
        language: The language that is spoken (en, fr, zh, ...), if the data set does not say.
        tokenizer: Whose characters the texts may have: a directory or a name on the Hub; any characters if not given.
        columns: ROLE=COLUMN, as --data.columns.
        split: Check this split alone.
        limit: Check the first so many clips of every split.
        max_duration_s: The longest clip that training takes.
        max_positions: The context of the model: frames of audio and bytes of text.
        frame_rate_hz: Frames per second of its codec.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from earnest.commands.progress import bars
    from earnest.data.checks.checked import Limits
    from earnest.data.checks.command import check_data, language_identifier, unknown_to
    from earnest.data.layouts.paths import Source

    numbers = {"limit": limit, "max_duration_s": max_duration_s, "max_positions": max_positions}
    for name, value in {**numbers, "frame_rate_hz": frame_rate_hz}.items():
        check_number(name, "--" + name.replace("_", "-"), value)
    if language and not LANGUAGE.fullmatch(language):
        raise UserError(f"--language {language}", "a code: en, fr, zh, pt-BR, ...", "take the code of the language")
    limits = Limits(language, max_duration_s, max_positions, frame_rate_hz, languages=language_identifier())
    if tokenizer:
        limits = replace(limits, unknown=unknown_to(tokenizer))
    with bars() as on_progress:
        summary, faults = check_data(Source(folder, columns, split, limit), limits, out, on_progress)
    console = Console()
    console.print(Text(summary))
    for fault in faults:
        mark = {"critical": "✗", "warning": "!", "note": "·"}[fault.severity]
        console.print(Text(f"\n{mark} {clean(fault.kind)}: {clean(fault.sentence)}"))
        console.print(Padding(Text(f"fix: {clean(fault.fix)}"), (0, 0, 0, 2)))
    wrong = sum(fault.severity != "note" for fault in faults)
    notes = f" and {len(faults) - wrong} to note" if len(faults) > wrong else ""
    print(f"\n{wrong or 'nothing'} found{notes}; page: {out}")
    return EXIT_FOUND if wrong else 0
