"""The doctor's rules: a `Run` in, a `Diagnosis` out."""

from earnest.rules import bookkeeping, codec, generalisation, gradients, labels, learning, optimisation, sound, targets  # noqa: F401  (they enter the catalogue)
from earnest.rules.catalogue import RULES, Rule, View, apply
from earnest.rules.decision import decide
from earnest.rules.finding import Diagnosis, NotChecked
from earnest.rules.ladder import verdicts
from earnest.run import Run

__all__ = ["catalogue", "diagnose"]


def diagnose(run: Run) -> Diagnosis:
    """Judge every stream of a run and apply every rule."""
    judged = verdicts(run)
    view = View(run, judged)
    said = [(code, found) for code in sorted(RULES) for found in apply(RULES[code], view)]
    findings, abstained = decide([(code, found) for code, found in said if not isinstance(found, NotChecked)])
    not_checked = [found for _, found in said if isinstance(found, NotChecked)]
    return Diagnosis(judged, findings, abstained + not_checked, dict(run.facts.mapping or {}))


def catalogue() -> list[Rule]:
    """Every rule, in order of its code."""
    return [RULES[code] for code in sorted(RULES)]
