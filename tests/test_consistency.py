"""Reports do not contradict themselves; what is irrelevant changes no verdict; a true fact silences no finding."""

import pytest

from tests.strangers import not_yet
from tests.strangers.consistency import NOT_YET, properties

LISTED = not_yet(NOT_YET)
PROPERTIES = properties()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.xfail(reason=LISTED[name], strict=True)] if name in LISTED else [])
        for name in PROPERTIES
    ],
)
def test_property_of_a_log(name):
    assert not PROPERTIES[name]()


def test_only_properties_are_listed_as_not_holding_yet():
    assert LISTED.keys() <= PROPERTIES.keys()
