"""The doctor's rules: a `Run` in, a `Diagnosis` out."""

from dataclasses import replace

import numpy as np

from earnest.rules import families
from earnest.rules.agree import agreed
from earnest.rules.asks import asks
from earnest.rules.catalogue import RULES, Evidence, Rule, answers
from earnest.rules.decision import decide
from earnest.rules.families.trainer import with_known_causes
from earnest.rules.finding import Diagnosis, NotChecked
from earnest.rules.needs import Case
from earnest.run import Run

__all__ = ["catalogue", "diagnose", "families"]


@np.errstate(all="ignore")  # a log may hold numbers whose square or difference no number holds
def diagnose(run: Run) -> Diagnosis:
    """Judge every stream of a run and apply every rule; both say one thing."""
    case = Case(run)
    given = [(rule.code, answer) for rule in catalogue() for answer in answers(rule, case)]
    evidence = [(code, answer) for code, answer in given if isinstance(answer, Evidence)]
    decided, abstained = decide(evidence)
    findings = with_known_causes(decided, run.facts.trainer)
    not_checked = [answer for _, answer in given if isinstance(answer, NotChecked)]
    verdicts = agreed([replace(one.verdict, mean_of=one.mean_of) for one in case.judged], findings)
    checked = list(dict.fromkeys(code for code, answer in given if not isinstance(answer, NotChecked)))
    return Diagnosis(
        verdicts, findings, abstained + not_checked, dict(run.facts.mapping or {}), checked, asks(case.judged, run)
    )


def catalogue() -> list[Rule]:
    """Every rule, in order of its code."""
    return [RULES[code] for code in sorted(RULES)]
