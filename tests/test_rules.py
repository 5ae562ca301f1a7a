"""The catalogue keeps its own rules, and every rule finds its sick log and leaves the healthy twin alone
(tests/rules/CODE.md)."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from earnest.errors import UserError
from earnest.explain import explain
from earnest.rules import catalogue, diagnose
from earnest.rules.catalogue import FAMILIES, HEADINGS
from earnest.rules.docs import pages
from earnest.run import Run, Series
from tests.equipment.cases import CASES, case

ROOT = Path(__file__).parent.parent
RULES = {rule.code: rule for rule in catalogue()}
# a name says what is wrong
REMEDIES = ("use", "add", "set", "raise", "lower", "fix", "check", "avoid", "no", "missing")


def test_every_rule_has_a_case():
    assert [path.stem for path in CASES] == sorted(RULES)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_sick_log_gives_exactly_this_finding(path):
    expected = json.loads(re.search(r"## Finds\n+```json\n(.*?)```", path.read_text(), re.DOTALL)[1])
    findings = diagnose(case(path, "Sick")).findings
    assert path.stem in [finding.rule for finding in findings], [(one.rule, one.summary) for one in findings]
    finding = next(finding for finding in findings if finding.rule == path.stem)
    found = {**vars(finding), "streams": list(map(str, finding.streams))}
    assert {field: found[field] for field in expected} == expected
    assert finding.causes and finding.next_probe and finding.fix and finding.confidence >= 0.6
    assert findings[0].rule == path.stem or findings[0].severity == finding.severity, "another finding stands before it"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_healthy_twin_is_silent(path):
    diagnosis = diagnose(case(path, "Healthy"))
    assert not diagnosis.findings, [(one.rule, one.summary) for one in diagnosis.findings]
    assert path.stem not in [one.rule for one in diagnosis.not_checked], "silent because it did not look"


@pytest.mark.parametrize("code", sorted(RULES))
def test_rule_is_documented(code):
    rule = RULES[code]
    assert re.fullmatch(r"[A-H]\d{3}", code) and code[0] in FAMILIES
    headings = re.findall(r"^## (.*)$", rule.text, re.MULTILINE)
    assert headings == list(HEADINGS)
    assert all(rule.section(heading) for heading in headings)
    assert rule.causes and all(len(cause) > 8 for cause in rule.causes)
    assert rule.text.split("\n")[0].endswith(".")
    assert rule.name.split("-")[0] not in REMEDIES
    assert set(rule.explains) <= set(RULES) - {code}


def test_names_are_unique_and_no_two_rules_explain_each_other():
    assert len({rule.name for rule in RULES.values()}) == len(RULES)
    for code, rule in RULES.items():
        assert all(code not in RULES[symptom].explains for symptom in rule.explains)


def test_pages_are_generated():
    for path, text in pages().items():
        assert (ROOT / path).read_text() == text, f"{path} is old: python -m earnest.rules.docs"


@pytest.mark.parametrize("topic", ["A101", "a101", "labels-all-masked", "tokens", "bands"])
def test_explain(topic):
    assert explain(topic).startswith("# ")


def test_explain_something_unknown():
    with pytest.raises(UserError, match="Z999"):
        explain("Z999")


def test_an_empty_run_is_not_judged():
    diagnosis = diagnose(Run())
    assert not diagnosis.findings and not diagnosis.verdicts and diagnosis.not_checked


def test_few_points_are_said_to_be_few():
    run = Run.of({}, {"train/loss_scale": Series(np.array([1, 2]), np.array([1.0, 2.0]))})
    needs = {one.rule: one.needs for one in diagnose(run).not_checked}
    assert needs["D401"] == "5 points of train/loss_scale (it has 2)"


@pytest.mark.parametrize(
    ("held_out", "severity"), [([7, 4, 3, 2.9, 2.9, 2.9], "note"), ([7, 4, 3, 2.9, 3.1, 3.2], "warning")]
)
def test_memorising_that_costs_nothing_held_out_is_a_note(held_out, severity):
    step = np.arange(1, 61)
    run = Run.of(
        {"audio_vocab": 1026},
        {
            "train/ce_nats/codebook_0": Series(step, 0.2 + 6.7 * np.exp(-step / 8)),
            "eval/ce_nats/codebook_0": Series(step[9::10], np.array(held_out, float)),
        },
        {"held_out": {"streams": {"codebook_0": {"ce_nats": held_out[-1], "unigram_nats": 5.0, "bigram_nats": 4.0}}}},
    )
    assert [one.severity for one in diagnose(run).findings if one.rule == "E102"] == [severity]
