"""What the callbacks of trainers share: the arguments of `earnest.watch`, and a watch from the training's first moment
to its last."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from earnest.loops.watching import Watch, named
from earnest.rules.finding import Finding, Severity


class Callback:
    """Keeps the arguments of `earnest.watch` until the training begins."""

    def __init__(
        self,
        out: str | Path | None = None,
        *,
        every: int = 10,
        streams: Sequence[str] = (),
        stop_on: Severity | None = None,
        alert: bool = True,
        facts: Mapping[str, Any] | None = None,
    ):
        self.out, self.every, self.streams = out, every, streams
        self.stop_on: Severity | None = stop_on
        self.alert, self.given = alert, facts
        self.watch: Watch | None = None

    @property
    def findings(self) -> list[Finding]:
        """Believed so far."""
        return self.watch.findings if self.watch else []

    def _begin(self, model: Any, optimizer: Any, folder: str, facts: Mapping[str, Any], step: int) -> Watch:
        """Begin to watch. folder: the training's; its earnest/ is the run directory if no `out` was given · facts: what
        the trainer says; the user's own replace them · step: the last one made before a resume, 0 for a new run."""
        self.watch = Watch(
            named(model, "model"),
            named(optimizer, "optimizer"),
            Path(folder) / "earnest" if self.out is None else self.out,
            self.every,
            self.streams,
            self.stop_on,
            self.alert,
            {**facts, **(self.given or {})},
            raises=False,
            resumed_at=step or None,
        )
        return self.watch

    def _end(self) -> None:
        if self.watch is not None:
            self.watch.close("interrupted" if self.watch.should_stop else "finished")
