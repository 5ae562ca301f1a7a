"""The report as JSON, two versioned contracts: the whole report (``schema.json`` beside this file), and the small
answer for agents and scripts (``docs/answer.schema.json``).

Within a schema fields may be added, never renamed, retyped or removed.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass, replace
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import asdict

from earnest.facts import FACTS
from earnest.report import view
from earnest.rules.finding import Diagnosis, Finding
from earnest.run import Run
from earnest.streams import Stream

SCHEMA = 2
ANSWER = 1  # of the small answer
EVIDENCE, CAUSES, NOTES = 3, 3, 5  # rows, causes and notes of the small answer
COMMAND = re.compile(r"`(earnest [^`]+)`")
# remove_unused_columns=False, or data.window_s = 4
SETTING = re.compile(r"`?\b([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*)\s*=\s*(True|False|None|[-+]?\d[\d.e+-]*|\"[^\"]*\")`?")
FACT = re.compile(r"--fact (\w+)=|or (\w+)=\.\.\.")  # --fact audio_vocab=... or text_vocab=...


def render(run: Run, diagnosis: Diagnosis) -> str:
    """The whole report as JSON that any strict parser reads."""
    facts = run.facts.known()
    facts.pop("label_counts", None)  # megabytes, and in run.json already
    content = {
        "schema": SCHEMA,
        "run": {
            "path": str(run.path) if run.path else None,
            "last_step": run.last_step,
            "signals": sorted(map(str, run.series)),
            "facts": facts,
            "notes": run.notes,
        },
        **vars(replace(diagnosis, findings=view.in_order(diagnosis.findings))),
    }
    return json.dumps(plain(content), indent=1, allow_nan=False) + "\n"


def small(run: Run, diagnosis: Diagnosis) -> str:
    """The small answer: verdicts, findings with stable ids, settings and commands where they exist, and the facts that
    would let more be judged."""
    content = {
        "schema": f"answer-{ANSWER}",
        "run": {
            "path": str(run.path) if run.path else None,
            "last_step": run.last_step,
            "system": run.facts.system,
            "trainer": run.facts.trainer,
            "notes": run.notes[:NOTES],
        },
        "verdicts": [
            {
                "stream": str(one.stream),
                "verdict": one.verdict,
                "value": one.value,
                "unit": one.unit,
                "baseline": {"name": one.baseline.name, "value": one.baseline.value} if one.baseline else None,
                "since_step": one.since_step,
                "why": one.why,
            }
            for one in diagnosis.verdicts
        ],
        "findings": [_small_finding(finding, run) for finding in view.in_order(diagnosis.findings)],
        "ask": asked(diagnosis),
        "not_checked": len({one.rule for one in diagnosis.not_checked}),
    }
    return json.dumps(plain(content), indent=1, allow_nan=False) + "\n"


def finding_id(finding: Finding) -> str:
    """An id that stays the same for the same fault of the same streams, however long the run becomes:
    ``A203-codebook_0+text``."""
    return f"{finding.rule}-{'+'.join(sorted(map(str, finding.streams))) or 'run'}"


def _small_finding(finding: Finding, run: Run) -> dict[str, Any]:
    fix: dict[str, Any] = {"text": finding.fix}
    if found := SETTING.search(finding.fix):
        fix |= {"setting": found[1], "to": found[2].strip('"')}
        if (now := getattr(run.facts, found[1], None)) is not None:
            fix["from"] = now
    probe: dict[str, Any] = {"text": finding.next_probe}
    if found := COMMAND.search(f"{finding.next_probe} {finding.fix}"):
        probe["command"] = found[1]
    return {
        "id": finding_id(finding),
        "rule": finding.rule,
        "name": finding.name,
        "severity": finding.severity,
        "streams": finding.streams,
        "confidence": finding.confidence,
        "since_step": finding.since_step,
        "summary": finding.summary,
        "evidence": finding.evidence[:EVIDENCE],
        "causes": finding.causes[:CAUSES],
        "fix": fix,
        "probe": probe,
        "explain": f"earnest explain {finding.rule}",
    }


def asked(diagnosis: Diagnosis) -> list[dict[str, str]]:
    """The facts that rules and verdicts lack: which, for what, and where a user finds them."""
    why: dict[str, list[str]] = {}
    for verdict in diagnosis.verdicts:
        if verdict.verdict == "cannot-judge":
            for fact in _facts_in(verdict.why):
                why.setdefault(fact, []).append(f"the verdict of {verdict.stream}")
    for one in diagnosis.not_checked:
        for fact in _facts_in(one.needs):
            why.setdefault(fact, []).append(one.rule)
    return [
        {"fact": fact, "why": ", ".join(dict.fromkeys(rules)), "how": FACTS[fact].where} for fact, rules in why.items()
    ]


def _facts_in(words: str) -> list[str]:
    return [name for found in FACT.finditer(words) if (name := found[1] or found[2]) in FACTS]


def strict_json(value: Any) -> str:
    """Any value as JSON on one line."""
    return json.dumps(plain(value), allow_nan=False)


def plain(value: Any) -> Any:
    """Anything -> what strict JSON can hold. NaN and the infinities become strings: unlike null they say what was
    seen."""
    if hasattr(value, "tolist"):  # a numpy scalar or array
        value = value.tolist()
    if isinstance(value, Struct):
        return plain(asdict(value))
    if is_dataclass(value) and not isinstance(value, Stream):
        return plain(vars(value))
    if isinstance(value, Mapping):
        return {plain(str(name)): plain(item) for name, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in cast(Iterable[Any], value)]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float):
        return value
    return view.private(str(value).encode("utf-8", "replace").decode())  # a lone surrogate is no Unicode text
