"""`earnest.AccelerateTracker`: a training with Accelerate, watched."""

from typing import Any

from accelerate.tracking import GeneralTracker

from earnest.loops.settings import Settings
from earnest.loops.watching import Watch
from earnest.rules.finding import Finding


class AccelerateTracker(Settings, GeneralTracker):
    """``Accelerator(log_with=["wandb", earnest.AccelerateTracker()])``: see `earnest.watch` for the arguments.

    It watches as soon as it is made: models and optimizers are found when they first run, so scripts that log nothing
    are seen too. What the script logs itself is added under the names of signals (`logs.names.guess`).
    """

    name = "earnest"
    requires_logging_directory = False
    main_process_only = True

    def __post_init__(self) -> None:
        super().__post_init__()
        GeneralTracker.__init__(self)
        self.watch = Watch({}, {}, self)

    @property
    def findings(self) -> list[Finding]:
        """Believed so far."""
        return self.watch.findings

    @property
    def tracker(self) -> Watch:
        return self.watch

    def start(self) -> None:
        """Nothing: accelerate calls this later than `__init__`, where watching has begun."""

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Keep the configuration among the run's facts."""
        plain = {name: value for name, value in values.items() if isinstance(value, int | float | str | bool)}
        self.watch.guard.call("configuration", lambda: self.watch.add_facts({"config": plain}), None)

    def log(self, values: dict[str, Any], step: int | None = None, **others: Any) -> None:
        """Add numbers that the script logs itself."""
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        self.watch.guard.call("metrics", lambda: self.watch.log(step, **numbers), None)

    def finish(self) -> None:
        self.watch.close()
