"""Judging a run again and again while it grows, without crying wolf more often than if it were judged once.

Statistical rules already keep one budget of false alarms for all lengths of a run at once (`statistics.boundary`). What
else rests on a level, a share or a median may be true of a short run by accident: such a finding is believed when it
stands at two looks, the second of a run that is a quarter longer. What a healthy run cannot show is believed at once.
"""

from dataclasses import dataclass

from earnest.rules.finding import Diagnosis, Finding

SURE = 0.95  # confidence of evidence that a healthy run cannot give (`decision.EXACT`)
LONGER = 1.25  # of two looks that must agree (assumed)


@dataclass
class _Seen:
    """since: the step at which the finding was seen first, and at every look from then on."""

    since: int
    told: bool = False


class Believed:
    """What has been told of a run. A finding is one rule on one set of streams."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self.findings: list[Finding] = []

    def look(self, diagnosis: Diagnosis, step: int, ended: bool = False) -> list[Finding]:
        """The findings that are believed now and were not before, most important first. ended: the run grows no more,
        so that this is the last look."""
        current = {finding.rule: finding for finding in diagnosis.findings}
        self._seen = {rule: seen for rule, seen in self._seen.items() if rule in current or seen.told}
        new: list[Finding] = []
        for rule, finding in current.items():
            seen = self._seen.setdefault(rule, _Seen(step))
            stands = finding.confidence >= SURE or ended or step >= LONGER * max(1, seen.since)
            if not seen.told and stands:
                seen.told = True
                new.append(finding)
        told = [finding for rule, finding in current.items() if self._seen[rule].told]
        gone = [finding for finding in self.findings if finding.rule not in current]
        self.findings = told + gone
        return new
