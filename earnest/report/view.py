"""What every format of the report shares: the order, the words, and how a number is written.

All formats must say the same, so each sentence that more than one of them prints is made here.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, cast

from earnest import checkpoints
from earnest.errors import clean
from earnest.facts import MOST
from earnest.rules.finding import SEVERITIES, Ask, Baseline, Diagnosis, Finding, Verdict
from earnest.run import Run
from earnest.streams import Codebook

LEVEL = {  # how a verdict's word is coloured; the word itself always stands beside the colour
    "worse-than-chance": "bad",
    "degenerate": "bad",
    "at-chance": "weak",
    "unigram-only": "weak",
    "memorising": "weak",
    "never-moved": "weak",
    "getting-worse": "bad",
    "learning": "good",
    "converged": "good",
    "cannot-judge": "unknown",
}
LONGEST_NEED = 80  # of what would help most, in letters
MARK = {"bad": "✗", "weak": "!", "good": "✓", "unknown": "?", "critical": "✗", "warning": "!", "note": "i"}


def line(text: Any) -> str:
    """`clean` text on one line."""
    return " ".join(clean(text).split())


# Folders of somebody's machine: /home/me/data/x.wav, ~/data/x.wav, C:\Users\me\x.wav; no address, no split/name.
_FOLDERS = re.compile(r"(?<![\w.:/~])(?:~?/(?:[^\s/'\",;:()]+/)+|[A-Za-z]:\\(?:[^\s\\'\"]+\\)+)")


def private(text: str) -> str:
    """Text that may be shared: of a path on this machine the last part stays."""
    return _FOLDERS.sub("…/", text)


def percent(share: float) -> str:
    """A share in words: ``12 %``, and below one per cent ``0.4 %``."""
    return f"{number(float(f'{100 * share:.2g}'))} %"


def number(value: Any) -> str:
    """Four significant digits; whole numbers in full; what is not a number says so."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return line(value)
    if abs(value) > MOST and isinstance(value, int):
        return f"{'-' * (value < 0)}over {MOST:,}"
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
        return ", ".join(f"{line(name)} {shown(item)}" for name, item in cast(Mapping[Any, Any], value).items())
    if isinstance(value, list | tuple | set):
        return f"[{', '.join(shown(item) for item in cast(Iterable[Any], value))}]"
    return number(value)


def in_order(findings: list[Finding]) -> list[Finding]:
    """Most important first: by severity, then by confidence."""
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), -finding.confidence))


def baseline(rung: Baseline | None) -> str:
    """A baseline's name, value and interval: ``unigram 5.432 [5.401, 5.463]``."""
    if rung is None:
        return "no baseline"
    interval = f" [{number(rung.interval[0])},\u00a0{number(rung.interval[1])}]" if rung.interval else ""
    return f"{named(rung)}{interval}"


def named(rung: Baseline) -> str:
    """A baseline's name and value: ``unigram 5.432``, ``no difference seen: 2``."""
    name = line(rung.name)
    return f"{name}{':' if ' ' in name and not name.endswith(' at') else ''} {number(rung.value)}"


def value(verdict: Verdict) -> str:
    """A verdict's value with its unit; "mean" before it if it is that of several last values."""
    if verdict.value is None:
        return number(None)
    return f"{'mean ' * (verdict.mean_of > 1)}{number(verdict.value)} {line(verdict.unit)}".strip()


def why(verdict: Verdict) -> str:
    """The reason of a verdict, and since which step it holds, unless that is the start or has been said."""
    reason, since = line(verdict.why), f"step {number(verdict.since_step)}"
    return (
        reason
        if (verdict.since_step or 0) <= 1 or since.replace(",", "") in reason.replace(",", "")
        else f"{reason} (since {since})"
    )


def about(finding: Finding) -> str:
    """Where, since when and how sure: ``codebook_0 to codebook_3 · since step 400 · confidence 0.90``."""
    named = [line(stream) for stream in finding.streams]
    indices = [stream.index for stream in finding.streams if isinstance(stream, Codebook)]
    if len(indices) > 2 and len(indices) == len(named) and indices == list(range(indices[0], indices[-1] + 1)):
        named = [f"{named[0]} to {named[-1]}"]
    where = ", ".join(named) or "whole run"
    start = "from the start" if finding.since_step == 0 else f"since step {number(finding.since_step)}"
    since = [start] * (finding.since_step is not None)
    return " · ".join([where, *since, f"confidence {finding.confidence:.2f}"])


class Rows(NamedTuple):
    """Rows of evidence with the same quantities: their names, and the values of every row."""

    names: list[str]
    values: list[list[str]]

    @property
    def lines(self) -> list[str]:
        """One line a row: ``step 400 · used_frac 0.04``."""
        return [
            " · ".join(f"{name} {value}" for name, value in zip(self.names, row, strict=True)) for row in self.values
        ]


def evidence(finding: Finding) -> list[Rows]:
    """A finding's evidence in words; rows that follow each other and name the same quantities stand together."""
    groups: list[Rows] = []
    for row in finding.evidence:
        known = {line(name): shown(item) for name, item in row.items() if item is not None}
        if not known:
            continue
        if not groups or groups[-1].names != list(known):
            groups.append(Rows(list(known), []))
        groups[-1].values.append(list(known.values()))
    return groups


def counts(diagnosis: Diagnosis) -> list[tuple[str, list[tuple[int, str]]]]:
    """How many streams have which verdict, how many findings which severity: [("10 streams", [(2, "at-chance"), ...]),
    ...]."""
    words = Counter(verdict.verdict for verdict in diagnosis.verdicts)
    severities = Counter(finding.severity for finding in diagnosis.findings)
    return [
        (_many(len(diagnosis.verdicts), "stream"), [(words[word], word) for word in LEVEL if words[word]]),
        (
            _many(len(diagnosis.findings), "finding"),
            [(severities[word], word) for word in SEVERITIES if severities[word]],
        ),
    ]


def headline(diagnosis: Diagnosis) -> str:
    """`counts` in one line, with the number of rules that could not run."""
    clauses = [
        what + (": " if parts else "") + ", ".join(f"{count} {word}" for count, word in parts)
        for what, parts in counts(diagnosis)
    ]
    return " · ".join([*clauses, unchecked(diagnosis)] if diagnosis.not_checked else clauses)


def unchecked(diagnosis: Diagnosis) -> str:
    """How many rules could not run; each counts once, whatever it lacks."""
    return f"{_many(len({one.rule for one in diagnosis.not_checked}), 'rule')} not checked"


def not_checked(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """[(codes of rules, what they need)]."""
    return [(", ".join(rules), needs) for rules, needs in lacking(diagnosis)]


def lacking(diagnosis: Diagnosis) -> list[tuple[list[str], str]]:
    """[([codes of rules], what they need)]: rules that need the same stand together, and so do the needs of one
    rule."""
    needing: dict[str, list[str]] = {}
    for one in diagnosis.not_checked:
        needing.setdefault(line(one.needs), []).append(line(one.rule))
    needed: dict[tuple[str, ...], list[str]] = {}
    for needs, rules in needing.items():
        needed.setdefault(tuple(dict.fromkeys(rules)), []).append(needs)
    return [
        (list(rules), needs[0] + (f" (and {len(needs) - 1} more like it)" if len(needs) > 1 else ""))
        for rules, needs in needed.items()
    ]


def most_helpful(diagnosis: Diagnosis, most: int = 3) -> list[tuple[str, int]]:
    """What would let most rules look: [(what to log or to pass, how many rules lack it)], the most helpful first."""
    wanted = Counter(line(one.needs) for one in diagnosis.not_checked)
    ranked = [(needs, count) for needs, count in wanted.most_common() if len(needs) <= LONGEST_NEED]
    return ranked[:most]


def in_short(diagnosis: Diagnosis) -> str:
    """How many rules could not look, and what would help most of them."""
    helpful = [f"{needs} ({_many(count, 'rule')})" for needs, count in most_helpful(diagnosis)]
    most = f" Most would help: {'; '.join(helpful)}." if helpful else ""
    return f"{unchecked(diagnosis)}, as the log lacks what they need.{most} --format html lists all."


def ask(one: Ask) -> str:
    """What is asked for, of which streams, and where it stands."""
    named = ", ".join(line(stream) for stream in one.streams[:4]) + (", ..." if len(one.streams) > 4 else "")
    return f"{named}: {line(one.what)} ({line(one.where)})"


def title(run: Run) -> str:
    """The run's name and how far it went: ``my-run · higgs-tiny · step 1,200``, or ``killed at step 356 of 600``."""
    name = run.path.resolve().name if run.path else "run"
    is_open = run.history is not None and run.history.state() != "finished"
    reached = state(run) if is_open else f"step {number(run.last_step)}"
    parts = [line(name), line(run.facts.system or ""), reached]
    return " · ".join(part for part in parts if part)


def origin(run: Run) -> list[tuple[str, str, str]]:
    """What run this is: [(name, value in words, how it is printed: state, plain or code)], without unknown values."""
    facts, past = run.facts, run.history
    rows: list[tuple[str, str, str]] = []
    if past:
        rows.append(("state", state(run), "state"))
        rows.append(("started", when(past.started_s), "plain"))
        rows.append(("trained for", duration(past.trained_s), "plain"))
    if facts.format and facts.format != "earnest":
        rows.append(("log of", line(facts.trainer or facts.format), "plain"))
    rows.append(("checkpoints", kept(run), "plain"))
    rows.append(("command", line(facts.command or ""), "code"))
    rows.append(("commit", line(facts.commit or ""), "code"))
    rows.append(("device", line(facts.device or facts.machine or ""), "plain"))
    return [row for row in rows if row[1]]


def state(run: Run) -> str:
    """How a run ended, and how far it came if that is not to its end: ``killed at step 356 of 600``."""
    if run.history is None:
        return ""
    word, planned = run.history.state(), run.facts.schedule_steps
    planned_steps = f" of {number(planned)}" if planned and run.last_step < planned else ""
    ended = {"running": "", "finished": ""}.get(word, f", last written {when(run.history.written_s)}")
    return f"{word} at step {number(run.last_step)}{planned_steps}{ended}"


def kept(run: Run) -> str:
    """The checkpoints that stay: ``step 600 (the last), step 400 (the best, held-out loss 3.214)``; empty if there is
    none."""
    saved = checkpoints.checkpoints(run.path) if run.path else []
    if run.path is None or not saved:
        return ""
    of_best, last = checkpoints.best(run.path), saved[-1]
    marks = {last: ["the last"]}
    if of_best:
        loss = checkpoints.described(of_best).held_out_loss
        marks.setdefault(of_best, []).append(f"the best, held-out loss {number(loss)}")
    return ", ".join(
        f"step {number(checkpoints.described(path).step)} ({'; '.join(words)})" for path, words in marks.items()
    )


def when(time_s: float) -> str:
    """A time as it is where the report is made: ``30 Nov 2025 09:29``."""
    then = datetime.fromtimestamp(time_s)
    return f"{then.day} {then:%b %Y %H:%M}"


def duration(time_s: float) -> str:
    """``6 min 10 s``, ``2 h 5 min``, ``3 d 4 h``: the two largest units."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left, parts = round(time_s), list[str]()
    for name, size in units:
        count, left = divmod(left, size)
        if count > 0 or (name == "s" and not parts):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


def _many(count: int, word: str) -> str:
    return f"{count or 'no'} {word}" + ("" if count == 1 else "s")
