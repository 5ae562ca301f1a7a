"""The doctor on strangers' logs: every case of tests/strangers is judged as its expectation says."""

import pytest

from tests.strangers import CASES, not_yet
from tests.strangers.__main__ import judge

NOT_YET = not_yet()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.xfail(reason=NOT_YET[name], strict=True)] if name in NOT_YET else [])
        for name in CASES
    ],
)
def test_a_strangers_log_is_read_right(name, tmp_path):
    unmet, said = judge(CASES[name], tmp_path)
    assert not unmet, said


def test_only_cases_are_listed_as_not_yet_met():
    assert NOT_YET.keys() <= CASES.keys()
