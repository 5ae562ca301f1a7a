"""From evidence to findings: one cause instead of six symptoms, each with a confidence, and none that is too unsure.

Every piece of evidence carries odds: how many times likelier it is under the fault than in a healthy run. A finding's
confidence is the posterior probability of the fault given the highest odds among its evidence. A finding whose rule
explains another finding takes it in as evidence. A finding below `ABSTAIN` is not reported; its next probe is.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from earnest.rules.catalogue import RULES, Evidence
from earnest.rules.finding import SEVERITIES, Finding, NotChecked
from earnest.streams import Stream

# Prior odds that a given fault is in a run (assumed: one run in twenty; published bug studies see each class in 1-10 %
# of broken runs).
PRIOR_ODDS = 1 / 20
ABSTAIN = 0.6  # assumed: below it a name misleads more than it helps
# Odds of evidence that a healthy run cannot give (EXACT), hardly ever gives (STRONG), gives now and then (FAIR) or
# often (WEAK). Assumed; their order matters, not their digits.
EXACT, STRONG, FAIR, WEAK = 2000.0, 200.0, 60.0, 20.0


def confidence(odds: float) -> float:
    """Posterior probability of a fault with these odds, never 1."""
    posterior = PRIOR_ODDS * odds
    return min(0.99, posterior / (1 + posterior))


def decide(seen: list[tuple[str, Evidence]]) -> tuple[list[Finding], list[NotChecked]]:
    """One finding per rule, causes before symptoms; and the rules that saw something but too little."""
    findings = [
        _finding(code, [evidence for _, evidence in group])
        for code, group in groupby(sorted(seen, key=lambda item: item[0]), key=lambda item: item[0])
    ]
    believed = {finding.rule: finding for finding in findings if finding.confidence >= ABSTAIN}
    abstained = [
        NotChecked(
            finding.rule,
            f"more evidence ({finding.summary}; confidence {finding.confidence:.2f}). Next probe: {finding.next_probe}",
        )
        for finding in findings
        if finding.rule not in believed
    ]
    for code in sorted(believed, key=lambda code: -len(RULES[code].explains)):
        for symptom in RULES[code].explains:
            if (
                code in believed
                and symptom in believed
                and symptom != code
                and _explains(believed[code], believed[symptom])
            ):
                believed[code] = _absorb(believed[code], believed.pop(symptom))
    order = sorted(
        believed.values(), key=lambda finding: (SEVERITIES.index(finding.severity), -finding.confidence, finding.rule)
    )
    return order, abstained


def _finding(code: str, evidence: list[Evidence]) -> Finding:
    rule = RULES[code]
    evidence = sorted(evidence, key=lambda one: SEVERITIES.index(one.severity or rule.severity))
    first = evidence[0]
    streams = list(dict.fromkeys(one.stream for one in evidence if one.stream))
    steps = [one.at_step for one in evidence if one.at_step is not None]
    more = f" (and {len(evidence) - 1} more: {', '.join(map(str, streams[1:]))})" if len(streams) > 1 else ""
    return Finding(
        rule=code,
        name=rule.name,
        severity=first.severity or rule.severity,
        streams=tuple(streams),
        confidence=confidence(max(one.odds for one in evidence)),
        since_step=min(steps) if steps else None,
        summary=first.summary + more,
        evidence=[
            row
            for one in evidence
            for row in ([{"stream": _written([one.stream]), "seen": one.summary}] if len(evidence) > 1 else [])
            + one.rows
        ],
        causes=first.causes or rule.causes,
        next_probe=first.next_probe or rule.next_probe,
        fix=first.fix or rule.fix,
    )


def _explains(cause: Finding, symptom: Finding) -> bool:
    """A cause explains a symptom of its own streams, or of any if the cause speaks of the whole run. A symptom of the
    whole run has other causes too: it is explained by a stream's cause only if that is as severe and as certain."""
    if not cause.streams or symptom.streams:
        return not cause.streams or set(symptom.streams) <= set(cause.streams)
    as_severe = SEVERITIES.index(cause.severity) <= SEVERITIES.index(symptom.severity)
    return as_severe and cause.confidence >= symptom.confidence


def _absorb(cause: Finding, symptom: Finding) -> Finding:
    """The cause with the symptom among its evidence; it is as severe and as certain as what it explains."""
    row = {"explains": f"{symptom.rule} {symptom.name}", "stream": _written(symptom.streams), "seen": symptom.summary}
    return replace(
        cause,
        evidence=[*cause.evidence, row],
        severity=min(cause.severity, symptom.severity, key=SEVERITIES.index),
        confidence=max(cause.confidence, symptom.confidence),
    )


def _written(streams: Iterable[Stream | None]) -> str | None:
    return ",".join(str(stream) for stream in streams if stream) or None
