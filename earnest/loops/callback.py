"""What the callbacks of trainers share: a watch from the training's first moment to its last."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from earnest.loops.processes import place
from earnest.loops.seen import is_due
from earnest.loops.settings import Settings
from earnest.loops.watching import Watch, named
from earnest.rules.finding import Finding


class Callback(Settings):
    """Keeps its settings until the training begins."""

    watch: Watch | None = None

    @property
    def findings(self) -> list[Finding]:
        """Believed so far."""
        return self.watch.findings if self.watch else []

    def _begin(self, model: Any, optimizer: Any, folder: str, facts: Mapping[str, Any], step: int) -> Watch:
        """Begin to watch. folder: the training's; its earnest/ is the run directory if no `out` was given · facts: what
        the trainer says; the user's own replace them · step: the last one made before a resume, 0 for a new run."""
        out = Path(folder) / "earnest" if self.out is None else self.out
        settings = Settings(out, self.every, self.streams, self.stop_on, self.alert, {**facts, **(self.facts or {})})
        models, optimizers = named(model, "model"), named(optimizer, "optimizer")
        self.watch = Watch(models, optimizers, settings, raises=False, resumed_at=step or None)
        return self.watch

    def _asks(self, step: int) -> bool:
        """Whether it is time to ask if the training should end. Of several processes, all ask at the same steps."""
        return self.stop_on is not None and (place()[1] == 1 or is_due(step, self.every))

    @property
    def _should_stop(self) -> bool:
        return self.watch is not None and self.watch.should_stop

    def _end(self) -> None:
        if self.watch is not None:
            self.watch.close("interrupted" if self.watch.should_stop else "finished")
