"""`earnest.diagnose`: a log, judged, in a notebook or a script."""

import html
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from earnest import logs, report
from earnest.report import as_json
from earnest.rules import diagnose as judge
from earnest.rules.finding import Diagnosis
from earnest.run import Run

WIDTH = 100


@dataclass(frozen=True, repr=False)
class Answer(Diagnosis):
    """A `Diagnosis` that can show itself: printed, in a notebook, as JSON. `run`: what was judged."""

    run: Run | None = field(default=None, compare=False)

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        report.terminal(self.run or Run(), self, Console(file=text, width=WIDTH, color_system=None))
        return text.getvalue()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The text, with its findings in their colours; everything in it is escaped."""
        colours = {"✗": "#b3151f", "!": "#8a5a00", "✓": "#17713a"}
        lines: list[str] = []
        for line in str(self).splitlines():
            mark = next((colour for mark, colour in colours.items() if f"{mark} " in line[:60]), None)
            text = html.escape(line)
            lines.append(f'<span style="color:{mark}">{text}</span>' if mark else text)
        return f'<pre style="line-height:1.35">{chr(10).join(lines)}</pre>'

    def json(self, full: bool = False) -> str:
        """The JSON of ``earnest diagnose --format json``, with `full` that of ``--full``."""
        plain = Diagnosis(**{part.name: getattr(self, part.name) for part in fields(Diagnosis)})
        return (as_json.render if full else as_json.small)(self.run or Run(), plain)


def diagnose(
    path: str | Path,
    *,
    facts: Mapping[str, Any] | None = None,
    map: Mapping[str, str] | None = None,
    run: str | None = None,
    trainer: str | None = None,
    model: str | None = None,
    config: str | Path | None = None,
) -> Answer:
    """Diagnose a run from its log, ours or anybody's, as ``earnest diagnose`` does.

    facts: what the log does not hold, {"audio_vocab": 1026} · map: column -> signal · run: the name of one run, if the
    path holds several · trainer, model, config: where further facts are read from, as on the command line. Raises
    UserError if there is nothing to read.
    """
    facts = {**(facts or {}), **({} if trainer is None else {"trainer": trainer})}
    config = None if config is None else Path(config)
    read = logs.read(path, overrides=map, facts=facts, run=run, model=model, config=config)
    return Answer(**vars(judge(read)), run=read)
