"""A long text in pieces: where it is cut, and what each piece is said after."""

import pytest
import torch

from earnest.cli import main
from earnest.codecs import load_codec
from earnest.data.batch import Prompt
from earnest.errors import UserError
from earnest.facts import Facts
from earnest.speech import Speech, Wish, in_pieces, resolved
from tests.equipment.tiny import tiny_higgs
from tests.equipment.tiny_dia import tiny_dia

TEXT = "It rained. Nobody went out! Why should they, with all that wind? The fire was warm."


def speech(model, piece_words: int, frames: int = 3) -> Speech:
    codec = load_codec("amy-tiny")
    return Speech(model, codec, *resolved(model, Facts(), Wish()), frames, piece_words=piece_words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (5, ["It rained. Nobody went out!", "Why should they, with all that wind?", "The fire was warm."]),
        (1, ["It rained.", "Nobody went out!", "Why should they, with all that wind?", "The fire was warm."]),
        (100, [TEXT]),
    ],
)
def test_a_text_is_cut_behind_sentences(words, expected):
    assert in_pieces(TEXT, words) == expected
    assert " ".join(expected) == TEXT  # nothing is lost


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("هل جاء؟ نعم.", ["هل جاء؟", "نعم."]),
        ("好的。再见。", ["好的。", "再见。"]),
        ("no end", ["no end"]),
        ("Wait... what?!", ["Wait...", "what?!"]),
    ],
)
def test_sentences_end_in_any_script(text, expected):
    assert in_pieces(text, 1) == expected


def test_each_piece_is_said_after_the_two_before_it_and_their_audio():
    model = tiny_higgs()
    prompts = list[Prompt]()
    begin = model.begin
    model.begin = lambda given: (prompts.extend(given), begin(given))[1]
    four = speech(model, piece_words=1)
    codes_CT = torch.cat(list(four.pieces(TEXT)), dim=1)
    assert len(prompts) == 4 and codes_CT.shape[1] <= four.most_frames(TEXT) == 12
    frames = [int(prompt.is_audio_S.sum()) for prompt in prompts]
    each = 3 + 2 + max(model.delays)  # a piece's frames, its marks, and what the delays add
    assert frames == [0, each, 2 * each, 2 * each]
    told = [model.tokenizer.decode(prompt.text_S) for prompt in prompts]
    assert "It rained." in told[2] and "It rained." not in told[3]  # two pieces are the context, no more
    assert all("The fire was warm." not in text for text in told[:3])
    whole = torch.cat(list(speech(model, piece_words=0).pieces(TEXT)), dim=1)
    assert len(prompts) == 5 and whole.shape[1] <= 3


def test_pieces_are_refused_where_a_model_has_no_turns():
    with pytest.raises(UserError, match="--piece-words for a dia model"):
        speech(tiny_dia(), piece_words=5)


def test_generate_says_a_text_in_pieces(tmp_path, capsys):
    codec = load_codec("amy-tiny")
    tiny_higgs(codebooks=codec.codebooks, codes=codec.codebook_size).save_pretrained(tmp_path / "model")
    words = ["generate", str(tmp_path / "model"), "--codec", "amy-tiny", "--text", TEXT, "--max-duration-s", "0.06"]
    assert main([*words, "--piece-words", "1", "--out", str(tmp_path / "pieces.wav")]) == 0
    assert main([*words, "--out", str(tmp_path / "whole.wav")]) == 0
    pieces, whole = ((tmp_path / f"{name}.wav").stat().st_size for name in ("pieces", "whole"))
    assert pieces > 3 * (whole - 44)  # four pieces, each as long as the whole may be
    assert main([*words, "--piece-words", "-1", "--out", str(tmp_path / "no.wav")]) == 2
