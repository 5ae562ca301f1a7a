"""A rule cannot be silent: it looked, or it says what it needs."""

import pytest

from earnest.rules import diagnose
from earnest.rules.catalogue import RULES, SILENT, Looked, apply, rule
from earnest.rules.needs import Case, Fact, Signal
from earnest.run import Run
from tests.equipment.cases import CASES, case
from tests.equipment.one_column import OUT, answers, runs, silent, table
from tests.equipment.planted import BENIGN
from tests.equipment.simulated import healthy_run

RUNS = dict(runs())


@pytest.mark.parametrize("name", RUNS)
def test_no_rule_is_silent_on_one_column(name):
    assert not silent(RUNS[name])


def test_no_rule_is_silent_on_a_log_of_a_rule():
    for path in CASES:
        for section in ("Sick", "Healthy"):
            assert not silent(case(path, section)), f"{path.stem} {section}"


def test_no_rule_is_silent_on_healthy_runs():
    for name, make in BENIGN.items():
        assert not silent(make()), name
    for seed in range(20):
        assert not silent(healthy_run(seed)), seed


def test_nothing_is_looked_at_in_an_empty_run():
    assert not [code for code, said in answers(Run()).items() if any(isinstance(one, Looked) for one in said)]


def test_a_diagnosis_names_the_rules_that_looked():
    diagnosis = diagnose(Run.of(series={"train/grad_norm": ([1, 2, 3], [1.0, 2.0, 1.5])}))
    assert diagnosis.checked == ["C101", "D103"]
    assert {one.rule for one in diagnosis.not_checked} == RULES.keys() - {"C101", "D103"}


def test_what_looked_at_one_column_is_as_listed():
    assert OUT.read_text() == table(), "other rules look at a column: python -m tests.equipment.one_column"


@pytest.fixture
def catalogue_as_it_was():
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


def test_a_rule_that_gives_no_answer_is_not_checked(catalogue_as_it_was):
    @rule("Z101", "note")
    def says_nothing(grad_norm: Signal):
        yield from ()

    run = Run.of(series={"train/grad_norm": ([1, 2], [1.0, 2.0])})
    assert [one.needs for one in apply(RULES["Z101"], Case(run))] == [SILENT]


def test_a_rule_may_only_ask_for_what_there_is(catalogue_as_it_was):
    with pytest.raises(TypeError, match="grad_norms is no signal"):

        @rule("Z102", "note")
        def asks_for_no_signal(grad_norms: Signal):
            yield Looked()

    with pytest.raises(TypeError, match="codebooks is not of type"):

        @rule("Z103", "note")
        def asks_for_another_type(codebooks: Fact[str]):
            yield Looked()

    with pytest.raises(TypeError, match="asks for nothing"):

        @rule("Z104", "note")
        def asks_for_nothing(codebooks: int):
            yield Looked()
