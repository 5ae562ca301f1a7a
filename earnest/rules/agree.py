"""Verdicts and findings say one thing: a verdict that a finding contradicts, or that none bears out, is taken back."""

import re
from collections.abc import Sequence
from dataclasses import replace

from earnest.rules.finding import Finding, Verdict, Word
from earnest.streams import AUDIO, TOTAL, Codebook, Stream

GOOD: tuple[Word, ...] = ("learning", "converged")
NEED_A_FINDING: tuple[Word, ...] = ("worse-than-chance", "getting-worse", "memorising", "degenerate")
# Families whose critical findings say that the whole run does not learn what it should; those of generalisation, sound
# and bookkeeping may stand beside a loss that falls.
AGAINST_LEARNING = tuple("ABCDF")
AGAINST_AS_A_WARNING = re.compile(r"B10[123]|C1..|D201|D203|D302")


def agreed(verdicts: Sequence[Verdict], findings: Sequence[Finding]) -> list[Verdict]:
    """The verdicts; one that no finding supports, or that a finding contradicts, becomes "cannot-judge"."""
    return [_agreed(verdict, [one for one in findings if _concerns(one, verdict.stream)]) for verdict in verdicts]


def _agreed(verdict: Verdict, about: Sequence[Finding]) -> Verdict:
    if verdict.verdict in GOOD:
        against = next(filter(_against, about), None)
        if against is not None:
            why = f"{verdict.why}; {against.rule} {against.name} speaks against it"
            return replace(verdict, verdict="cannot-judge", why=why)
        if verdict.verdict == "converged" and any(one.rule in ("E101", "E102") for one in about):
            return replace(verdict, verdict="learning")
    elif verdict.verdict in NEED_A_FINDING and not about:
        return replace(verdict, verdict="cannot-judge", why=f"{verdict.why}; too little to call it {verdict.verdict}")
    return verdict


def _concerns(finding: Finding, stream: Stream) -> bool:
    """A finding of the whole run concerns each stream, one of a codebook the mean of all, one of any the total."""
    of_audio = stream == AUDIO and any(isinstance(one, Codebook) for one in finding.streams)
    return not finding.streams or stream in finding.streams or stream == TOTAL or of_audio


def _against(finding: Finding) -> bool:
    if finding.severity == "critical":
        return bool(finding.streams) or finding.rule.startswith(AGAINST_LEARNING)
    return finding.severity == "warning" and AGAINST_AS_A_WARNING.fullmatch(finding.rule) is not None
