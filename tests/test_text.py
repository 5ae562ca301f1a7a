"""The tokenizer and the prompt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earnest.data.text import AUDIO_EOS, AUDIO_OUT, SPECIALS, byte_tokenizer, special_id, text_ids
from tests.equipment.tiny import tiny_higgs

TOKENIZER = byte_tokenizer()
ARABIC = "وَمِنْ ثُمَّ قَالُوا أَنَّهُ لا يُوجَدُ إِلا أَنْ نَأْخُذَ سَيَنْسَتِيلْ."


@given(st.text(max_size=60))
def test_any_text_survives_encode_and_decode(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False, split_special_tokens=True)) == text


@pytest.mark.parametrize("text", [ARABIC, "two  spaces", " user assistant system\n\n", "naïve — “quotes” 你好 🎧"])
def test_a_text_stands_unchanged_in_its_prompt(text):
    assert TOKENIZER.decode(tiny_higgs().prompt(text).text_S.tolist()).count(text) == 1


def test_user_text_cannot_smuggle_in_special_tokens():
    model = tiny_higgs()
    clean = model.prompt("x").text_S.tolist()
    hostile = model.prompt("".join(SPECIALS)).text_S.tolist()
    for special in SPECIALS:
        number = special_id(TOKENIZER, special)
        assert hostile.count(number) == clean.count(number), special


def test_marks_are_tokens_where_they_are_asked_for_and_known():
    assert text_ids(TOKENIZER, f"a{AUDIO_EOS}b", marks=[AUDIO_EOS]) == [
        *text_ids(TOKENIZER, "a"),
        special_id(TOKENIZER, AUDIO_EOS),
        *text_ids(TOKENIZER, "b"),
    ]
    assert TOKENIZER.decode(text_ids(TOKENIZER, "a<|unknown|>b", marks=["<|unknown|>"])) == "a<|unknown|>b"


def test_special_tokens_have_ids_of_their_own():
    numbers = [special_id(TOKENIZER, special) for special in SPECIALS]
    assert len(set(numbers)) == len(SPECIALS) and min(numbers) >= 256
    assert {special_id(TOKENIZER, AUDIO_OUT), special_id(TOKENIZER, AUDIO_EOS)} <= set(numbers)
