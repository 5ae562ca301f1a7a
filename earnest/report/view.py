"""What every format of the report shares: the order, the words, and how a number is written.

All formats must say the same, so each sentence that more than one of them prints is made here.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from earnest.rules.finding import SEVERITIES, Baseline, Diagnosis, Finding, Verdict
from earnest.run import Run

LEVEL = {  # how a verdict's word is coloured; the word itself always stands beside the colour
    "worse-than-chance": "bad",
    "degenerate": "bad",
    "at-chance": "weak",
    "unigram-only": "weak",
    "memorising": "weak",
    "learning": "good",
    "converged": "good",
    "cannot-judge": "unknown",
}
MARK = {"bad": "✗", "weak": "!", "good": "✓", "unknown": "?", "critical": "✗", "warning": "!", "note": "i"}

# Controls, direction overrides and lone surrogates: a log that holds them could rewrite the terminal or
# turn the text after it around. Direction *marks* (U+200E, U+200F) are honest spelling and stay.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: Any) -> str:
    """Text of a stranger, safe to print: unsafe characters are shown as their code, such as \\u202e."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))


def line(text: Any) -> str:
    """`clean` text on one line."""
    return " ".join(clean(text).split())


def number(value: Any) -> str:
    """Four significant digits; whole numbers in full; what is not a number says so."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return line(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{value:.3e}"
    size = abs(value)
    if size and not 1e-3 <= size < 1e6:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def shown(value: Any) -> str:
    """Any value of a fact or of evidence, in one line."""
    if hasattr(value, "tolist"):  # a numpy scalar or array
        value = value.tolist()
    if isinstance(value, Mapping):
        return ", ".join(f"{line(name)} {shown(item)}" for name, item in value.items())
    if isinstance(value, list | tuple | set):
        return f"[{', '.join(shown(item) for item in value)}]"
    return number(value)


def in_order(findings: list[Finding]) -> list[Finding]:
    """Most important first: by severity, then by confidence."""
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), -finding.confidence))


def baseline(rung: Baseline | None) -> str:
    """A baseline's name, value and interval: ``unigram 5.432 [5.401, 5.463]``."""
    if rung is None:
        return "no baseline"
    interval = f" [{number(rung.interval[0])},\u00a0{number(rung.interval[1])}]" if rung.interval else ""
    return f"{line(rung.name)} {number(rung.value)}{interval}"


def value(verdict: Verdict) -> str:
    """A verdict's value with its unit."""
    return number(verdict.value) if verdict.value is None else f"{number(verdict.value)} {line(verdict.unit)}".strip()


def why(verdict: Verdict) -> str:
    """The reason of a verdict, and since which step it holds where that is not the start."""
    return line(verdict.why) + (f" (since step {number(verdict.since_step)})" if (verdict.since_step or 0) > 1 else "")


def about(finding: Finding) -> str:
    """Where, since when and how sure: ``codebook_3 · since step 400 · confidence 0.90``."""
    since = "from the start" if finding.since_step == 0 else f"since step {number(finding.since_step)}"
    parts = [line(finding.stream) if finding.stream else "whole run", since if finding.since_step is not None else "step unknown"]
    return " · ".join([*parts, f"confidence {finding.confidence:.2f}"])


def evidence(row: Mapping[str, Any]) -> str:
    """One row of evidence: ``step 400 · used_frac 0.04``."""
    return " · ".join(f"{line(name)} {shown(item)}" for name, item in row.items())


def columns(finding: Finding, most: int = 6) -> list[str]:
    """The columns of a table of the evidence, where its rows have the same few; else none."""
    names = {tuple(row) for row in finding.evidence}
    same = len(names) == 1 and len(finding.evidence) > 1
    return list(finding.evidence[0]) if same and len(finding.evidence[0]) <= most else []


def counts(diagnosis: Diagnosis) -> list[tuple[str, list[tuple[int, str]]]]:
    """How many streams have which verdict, how many findings which severity: [("10 streams", [(2, "at-chance"), ...]), ...]."""
    words = Counter(verdict.verdict for verdict in diagnosis.verdicts)
    severities = Counter(finding.severity for finding in diagnosis.findings)
    return [
        (_many(len(diagnosis.verdicts), "stream"), [(words[word], word) for word in LEVEL if words[word]]),
        (_many(len(diagnosis.findings), "finding"), [(severities[word], word) for word in SEVERITIES if severities[word]]),
    ]


def headline(diagnosis: Diagnosis) -> str:
    """`counts` in one line, with the number of rules that could not run."""
    said = [what + (": " if parts else "") + ", ".join(f"{count} {word}" for count, word in parts) for what, parts in counts(diagnosis)]
    return " · ".join(said + [f"{_many(len(diagnosis.not_checked), 'rule')} not checked"] * bool(diagnosis.not_checked))


def not_checked(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """What a group of rules needs, and their codes: rules that miss the same thing stand together."""
    groups: dict[str, list[str]] = {}
    for rule in diagnosis.not_checked:
        groups.setdefault(line(rule.needs), []).append(line(rule.rule))
    return [(needs, ", ".join(rules)) for needs, rules in groups.items()]


def title(run: Run) -> str:
    """The run's name and how far it went: ``my-run · higgs-tiny · step 1,200``."""
    name = run.path.resolve().name if run.path else "run"
    parts = [line(name), line(run.facts["system"]) if run.facts.get("system") else "", f"step {number(run.last_step)}"]
    return " · ".join(part for part in parts if part)


def _many(count: int, word: str) -> str:
    return f"{count or 'no'} {word}" + ("" if count == 1 else "s")
