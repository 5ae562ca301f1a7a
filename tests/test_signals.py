"""A signal's key is taken apart as it was made."""

import pytest

from earnest.signals import Key, key, parse
from earnest.streams import Codebook, Part


@pytest.mark.parametrize(
    "parts", [("train", "ce_nats", Codebook(0)), ("eval", "loss", None), ("train", "loss", Part("adv/g"))]
)
def test_keys_are_taken_apart_as_they_were_made(parts):
    split, name, stream = parts
    assert parse(key(name, stream, split)) == Key(split, name, stream)


def test_what_is_no_key_is_refused():
    with pytest.raises(ValueError, match="loss"):
        parse("loss")
