"""The vocabulary is complete: whatever a rule needs and whatever training writes stands in it."""

import re

import pytest

from earnest.facts import FACTS
from earnest.rules.catalogue import RULES
from earnest.signals import SIGNALS, Key, key, parse
from earnest.streams import Codebook, Part


@pytest.mark.parametrize(
    "rule", list(RULES.values()) if isinstance(RULES, dict) else list(RULES), ids=lambda rule: rule.code
)
def test_what_a_rule_needs_stands_in_the_vocabulary(rule):
    for need in rule.needs:
        for word in need.removesuffix("?").split("|"):
            kind, _, name = word.rpartition(":")
            if kind == "fact":
                assert name in FACTS, word
            elif not kind and word not in ("run", "verdicts"):
                assert re.sub(r"^(train|eval)/", "", word) in SIGNALS, word


@pytest.mark.parametrize(
    "parts", [("train", "ce_nats", Codebook(0)), ("eval", "loss", None), ("train", "loss", Part("adv/g"))]
)
def test_keys_are_taken_apart_as_they_were_made(parts):
    split, name, stream = parts
    assert parse(key(name, stream, split)) == Key(split, name, stream)


def test_what_is_no_key_is_refused():
    with pytest.raises(ValueError, match="loss"):
        parse("loss")
