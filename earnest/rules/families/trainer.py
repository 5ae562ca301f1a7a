"""Family H, bookkeeping: what is known of the public trainer that wrote the log."""

from collections.abc import Iterable
from dataclasses import replace

from earnest.profiles import Defect, known_defects
from earnest.profiles.profile import Sign
from earnest.quantiles import median
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import FAIR
from earnest.rules.finding import Finding
from earnest.rules.needs import Fact, Losses
from earnest.run import Series
from earnest.streams import TOTAL

FIRST, LAST_FRAC, FEWEST = 3, 1 / 3, 10  # values of a start; share of a run, and values, of an end (assumed)


@rule("H109", "warning")
def known_defect(trainer: Fact[str], losses: Losses) -> Answers:
    """The log shows the sign of a known defect of its trainer.

    ## What it sees
    A loss whose first values, or whose last third, lie between the two levels that the trainer's page names as the sign
    of a defect: the first three in the median, or the very first one.
    ## Likely causes
    - the defect, in the version that wrote the log
    - another unit or vocabulary than the trainer ships with
    ## Next probe
    Read the thread or the lines that `earnest explain TRAINER` names, and compare the trainer's version with them.
    ## Fix
    Update the trainer, or mend these lines; `--trainer none` if another program wrote the log.
    ## References
    The threads on the trainer's page: docs/trainers.md.
    """
    signs = [(one, one.sign) for one in known_defects(trainer) if one.sign is not None]
    logged = [(defect, sign, losses.get(None if sign.stream == TOTAL else sign.stream)) for defect, sign in signs]
    short = [str(series.key) for _, sign, series in logged if series is not None and _place(series, sign) is None]
    if short and len(short) == len(logged):
        yield TooEarly(f"{FEWEST} points of {short[0]}")
        return
    yield Looked()
    for defect, sign, series in logged:
        place = None if series is None else _place(series, sign)
        if series is None or place is None:
            continue
        low, high = sign.start or sign.end or (0.0, 0.0)
        level = median(place.value)
        if sign.start and low <= float(place.value[0]) <= high:
            level = float(place.value[0])
        if low <= level <= high:
            where = "begins at" if sign.start else "stays at"
            words = f"{sign.stream} {where} {level:.4g}, known of {trainer}: {defect.what}"
            severity = "warning" if sign.start else "note"
            cause = _told(trainer, defect)
            yield Evidence(int(place.step[0]), words, FAIR, place.rows(), series.stream, severity, [cause])


def _place(series: Series, sign: Sign) -> Series | None:
    """The values that a sign is asked of, or None if there are too few."""
    if sign.start:
        return series.head(FIRST) if len(series.finite) >= FIRST else None
    return series.tail(LAST_FRAC) if len(series.finite) >= FEWEST else None


def with_known_causes(findings: Iterable[Finding], trainer: str | None) -> list[Finding]:
    """The findings; one whose rule a known defect of the trainer may set off names that defect as its first cause."""
    told = [(defect.rules, _told(trainer, defect)) for defect in known_defects(trainer)]
    return [
        replace(finding, causes=[*(cause for rules, cause in told if finding.rule in rules), *finding.causes])
        for finding in findings
    ]


def _told(trainer: str | None, defect: Defect) -> str:
    """A known defect in the words of a cause: its trainer, what it is, and where it is discussed."""
    return f"known of {trainer}: {defect.what} ({defect.issue or 'read in its code, no public thread'})"
