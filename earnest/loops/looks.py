"""A run directory that this process writes: judged again and again, and the tracker in use told."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from earnest.loops.alerts import alert
from earnest.monitors.guard import Guard
from earnest.rules import diagnose
from earnest.rules.finding import Finding
from earnest.rules.polling import SURE, Believed
from earnest.run import read_run

FEW_STEPS = 50  # before them, only what a healthy training cannot show is believed (assumed)


@dataclass
class Looks:
    """The looks at one run directory. alerts: whether trackers are alerted · believed: the findings reported so far."""

    run_dir: Path
    guard: Guard
    alerts: bool = True
    believed: Believed = field(default_factory=Believed)

    def new(self, step: int, ended: bool = False) -> list[Finding]:
        """Judge the run as it is after a step; the findings that are believed now and were not before. ended: this is
        the last look."""
        diagnosis = diagnose(read_run(self.run_dir))
        if step < FEW_STEPS:
            diagnosis = replace(diagnosis, findings=[one for one in diagnosis.findings if one.confidence >= SURE])
        new = self.believed.look(diagnosis, step, ended)
        for finding in new if self.alerts else ():
            alert(finding, step, self.guard)
        return new
