"""Conversations: the JSON forms that are read, what is refused, and whom a cloning sample imitates."""

import json

import numpy as np
import pytest
import torch

from earnest.data.clip import Clip
from earnest.data.corpus import Corpus, layout_of
from earnest.data.layouts.chatml import Cloning, cloning, load_conversations
from earnest.data.masks import IGNORE
from earnest.data.row import Row, Turn
from earnest.data.vary import Variation
from earnest.errors import UserError
from earnest.models import load_model
from earnest.models.higgs import Higgs, HiggsShape
from tests.equipment.texts import REFERENCE_TEXT, TARGET_TEXT
from tests.equipment.tiny import CODEBOOKS, CODES, random_codes, tiny_higgs


@pytest.fixture
def folder(tmp_path):
    for name in ("reference.wav", "target.wav"):
        (tmp_path / name).write_bytes(b"not read here")
    return tmp_path


def read(folder, *samples, name="data.json"):
    text = json.dumps(samples, ensure_ascii=False) if name.endswith(".json") else "\n".join(map(json.dumps, samples))
    (folder / name).write_text(text, encoding="utf-8")
    return load_conversations(folder / name)


def said(conversation) -> list[tuple]:
    """(role, parts as words, counts) of each turn, for comparison."""
    words = lambda part: f"<{part.name}>" if isinstance(part, Clip) else part  # noqa: E731
    return [(turn.role, [words(part) for part in turn.parts], turn.scored) for turn in conversation.turns]


BOSON = {  # boson-ai/higgs-audio: strings, parts and lists of both; start_index ends what is only given
    "messages": [
        {"role": "system", "content": "Generate audio following instruction."},
        {"role": "user", "content": REFERENCE_TEXT},
        {"role": "assistant", "content": {"type": "audio", "audio_url": "reference.wav"}},
        {"role": "user", "content": [TARGET_TEXT]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": TARGET_TEXT}, {"type": "audio", "audio_url": "target.wav"}],
        },
    ],
    "start_index": 3,
    "speaker": "ahmed",
}


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_boson_conversations(folder, name):
    [conversation] = read(folder, BOSON, name=name)
    assert conversation.speaker == "ahmed"
    assert [clip.path for clip in conversation.clips] == [folder / "reference.wav", folder / "target.wav"]
    assert said(conversation) == [
        ("system", ["Generate audio following instruction."], False),
        ("user", [REFERENCE_TEXT], False),
        ("assistant", ["<reference.wav>"], False),
        ("user", [TARGET_TEXT], False),
        ("assistant", [TARGET_TEXT, "<target.wav>"], True),
    ]


def test_without_start_index_every_turn_of_the_assistant_counts(folder):
    [conversation] = read(folder, {"messages": BOSON["messages"]})
    assert [turn.scored for turn in conversation.turns] == [False, False, True, False, True]


def test_transformers_template_has_a_scene(folder):
    [conversation] = read(
        folder,
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Generate audio following instruction."}]},
                {"role": "scene", "content": [{"type": "text", "text": "Audio is recorded from a quiet room."}]},
                {"role": "user", "content": [{"type": "text", "text": "hello"}]},
                {"role": "assistant", "content": [{"type": "audio", "url": "target.wav"}]},
            ]
        },
    )
    system = "".join(conversation.turns[0].parts)
    assert system == (
        "Generate audio following instruction.\n\n<|scene_desc_start|>\nAudio is recorded from a quiet room.\n"
        "<|scene_desc_end|>"
    )
    assert [turn.role for turn in conversation.turns] == ["system", "user", "assistant"]


def test_ms_swift_puts_audio_where_the_text_says(folder):
    [conversation] = read(
        folder,
        {
            "messages": [
                {"role": "user", "content": "<audio> /translate"},
                {"role": "assistant", "content": "a<audio>b"},
            ],
            "audios": ["reference.wav", "target.wav"],
        },
    )
    assert said(conversation) == [
        ("user", ["<reference.wav>", " /translate"], False),
        ("assistant", ["a", "<target.wav>", "b"], True),
    ]


def test_train_higgs_audio_metadata(folder):
    (folder / "target.txt").write_text(f"{TARGET_TEXT}\n", encoding="utf-8")
    sample = {"audio_file": "target.wav", "transcript_file": "target.txt", "speaker_id": "huo", "scene": "quiet_room"}
    plain, clone = read(
        folder,
        {
            "dataset_info": {},
            "samples": [sample, sample | {"ref_audio_file": "reference.wav", "ref_transcript": REFERENCE_TEXT}],
        },
    )
    assert plain.speaker == "huo" and "Audio is recorded from quiet room." in plain.turns[0].parts[0]
    assert said(plain)[1:] == [("user", [TARGET_TEXT], False), ("assistant", ["<target.wav>"], True)]
    assert said(clone)[1:] == [
        ("user", [REFERENCE_TEXT], False),
        ("assistant", ["<reference.wav>"], False),
        ("user", [TARGET_TEXT], False),
        ("assistant", ["<target.wav>"], True),
    ]


USER = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({"messages": [USER]}, "no assistant's turn"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "no assistant's turn"),
        ({"messages": [USER, {"role": "assistant", "content": "hi"}], "start_index": 2}, "no assistant's turn"),
        (
            {"messages": [USER, {"role": "assistant", "content": [{"type": "audio", "audio_url": ""}]}]},
            "without a file",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": [{"type": "audio", "audio_url": "gone.wav"}]}]},
            "gone.wav",
        ),
        ({"messages": [USER, {"role": "assistant", "content": "<audio>"}], "audios": []}, "without a file"),
        (
            {"messages": [USER, {"role": "assistant", "content": [{"type": "audio", "raw_audio": "UklGRg=="}]}]},
            "inside the JSON",
        ),
        ({"messages": [USER, {"role": "robot", "content": "hi"}]}, "robot"),
        ({"messages": [USER, {"role": "assistant", "content": [{"type": "image"}]}]}, "image"),
        ({"messages": [USER, {"role": "assistant", "content": 3}]}, "a part 3"),
        ({"messages": [USER, "hi"]}, "hi"),
        ({"message": []}, "message"),
        ({"samples": [{"audio_file": "target.wav"}]}, "no text for target.wav"),
        ({"samples": [{"audio_file": "gone.wav", "transcript": "x"}]}, "gone.wav"),
        (
            {"samples": [{"audio_file": "target.wav", "transcript": "x", "ref_audio_file": "reference.wav"}]},
            "no text for reference.wav",
        ),
        ({"samples": ["hi"]}, "hi"),
        ("hello", "hello"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_name(folder, sample, words):
    with pytest.raises(UserError, match=words) as refused:
        read(folder, sample)
    assert "data.json" in refused.value.seen


@pytest.mark.parametrize("text", ["", "{", "[1]", "[]"])
def test_files_of_another_kind_are_refused(folder, text):
    (folder / "data.json").write_text(text)
    with pytest.raises(UserError, match=r"data\.json"):
        load_conversations(folder / "data.json")


def test_a_cloning_sample_counts_the_target_alone():
    turns = cloning(Clip("r.wav", "r.wav"), "what r says", "what is wanted", Clip("t.wav", "t.wav"))
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user", "assistant"]
    assert [turn.scored for turn in turns] == [False, False, False, False, True]
    assert cloning(Clip("r.wav", "r.wav"), "what r says", "what is wanted") == turns[:-1]


def row(source: str, speaker: str, frames: int = 10) -> Row:
    return Row(np.full((CODEBOOKS, frames), len(source)), source, speaker, source=source)


def seeded(epoch: int):
    return np.random.default_rng([0, epoch, 2])


def test_references_are_other_clips_of_the_same_speaker():
    rows = [row(f"{speaker}{i}", speaker) for speaker in "ab" for i in range(5)] + [
        row("a_long", "a", frames=99),
        row("c0", "c"),
    ]
    vary = Cloning(rows, Variation(), frac=0.5, max_frames=50)
    assert {vary.reference(rows[2], seeded(epoch)).source for epoch in range(200)} == {"a0", "a1", "a3", "a4"}
    assert vary.reference(rows[2]).source == "a3" and vary.reference(rows[4]).source == "a0"  # the same each time
    assert vary.reference(rows[-2]).speaker == "a"  # a long clip may be a target
    assert vary.reference(rows[-1]) is None and not vary(rows[-1]).turns  # nobody else to imitate
    assert vary(rows[2]).turns  # evaluation always clones
    assert 60 < sum(bool(vary(rows[2], seeded(epoch)).turns) for epoch in range(200)) < 140


# --- laid out by the model --------------------------------------------------------------------------------------------


def words(ids) -> str:
    return MODEL.tokenizer.decode(ids.tolist())


MODEL = HiggsShape(width=16, layers=1, heads=1, ffn=16, max_positions=512).build(CODEBOOKS, CODES)


def test_only_the_target_of_a_cloning_sample_is_scored():
    generator = torch.Generator().manual_seed(0)
    reference_CT, target_CT = random_codes(7, generator), random_codes(11, generator)
    example = MODEL.lay_out(None, "", turns=cloning(reference_CT, REFERENCE_TEXT, TARGET_TEXT, target_CT))
    audio = example.is_audio_S.nonzero()[:, 0]
    assert len(audio) == (7 + 2 + CODEBOOKS - 1) + (11 + 2 + CODEBOOKS - 1)
    begins = audio[7 + 2 + CODEBOOKS - 1].item()  # the target's first position
    counts_SC = example.audio_targets_SC != IGNORE
    assert not counts_SC[: begins - 1].any() and (example.text_targets_S[: begins - 2] == IGNORE).all()
    assert counts_SC.sum(0).tolist() == [12] * CODEBOOKS  # eleven codes and one EOS
    for codebook in range(CODEBOOKS):
        column = example.audio_targets_SC[:, codebook]
        assert column[column != IGNORE].tolist() == [*target_CT[codebook].tolist(), MODEL.eos_id]
    assert words(example.text_targets_S[example.text_targets_S != IGNORE]) == "<|audio_out_bos|><|audio_eos|><|eot_id|>"
    assert REFERENCE_TEXT in words(example.text_S) and TARGET_TEXT in words(example.text_S)


def test_what_the_assistant_says_in_words_counts():
    turns = [Turn("user", ("read it",)), Turn("assistant", (TARGET_TEXT, random_codes(3, torch.Generator())))]
    example = MODEL.lay_out(None, "", turns=turns)
    spoken = words(example.text_targets_S[example.text_targets_S != IGNORE])
    assert spoken == f"{TARGET_TEXT}<|audio_out_bos|><|audio_eos|><|eot_id|>"


def test_two_clips_that_count_are_shifted_each_within_itself():
    first_CT, second_CT = torch.full((CODEBOOKS, 3), 5), torch.full((CODEBOOKS, 4), 9)
    turns = [Turn("assistant", (first_CT,)), Turn("user", ("again",)), Turn("assistant", (second_CT,))]
    targets_SC = MODEL.lay_out(None, "", turns=turns).audio_targets_SC
    for codebook in range(CODEBOOKS):
        column = targets_SC[:, codebook]
        assert column[column != IGNORE].tolist() == [5] * 3 + [MODEL.eos_id] + [9] * 4 + [MODEL.eos_id]


def test_a_prompt_is_what_stands_before_the_audio():
    reference_CT, target_CT = torch.full((CODEBOOKS, 7), 3), torch.full((CODEBOOKS, 5), 4)
    example = MODEL.lay_out(None, "", turns=cloning(reference_CT, "a b", "c d", target_CT))
    prompt = MODEL.prompt("", turns=cloning(reference_CT, "a b", "c d"))
    for name in ("text_S", "tokens_SC", "is_audio_S"):
        assert torch.equal(getattr(prompt, name), getattr(example, name)[: len(prompt)])
    assert example.is_audio_S[len(prompt)] and words(prompt.text_S[-1:]) == "<|audio_out_bos|>"


def test_a_reference_longer_than_the_context_is_refused():
    turns = cloning(torch.zeros(CODEBOOKS, 600, dtype=torch.long), "a", "b")
    with pytest.raises(UserError, match=f"{600 + 2 + CODEBOOKS - 1} audio frames"):
        MODEL.prompt("", turns=turns)
    with pytest.raises(UserError, match="audio frames"):
        MODEL.lay_out(None, "", turns=(*turns, Turn("assistant", (torch.zeros(CODEBOOKS, 3),))))


def test_a_drawn_reference_that_does_not_fit_is_replaced_by_the_one_of_evaluation():
    rows = [row("a", "x", 350), row("b", "x", 8), row("c", "x", 300), row("d", "x", 340)]  # a context of 512 positions
    corpus = Corpus(rows, layout_of(MODEL), 0, 1024, Cloning(rows, Variation(), frac=1.0, max_frames=400))
    assert [note[:3] for note in corpus.left_out] == ["c: ", "d: "]  # with d and with a; a imitates b, and b imitates c
    for epoch in range(20):
        corpus.batch([0, 1], seed=0, epoch=epoch)


def test_the_instruction_is_kept_with_the_weights(tmp_path):
    model = tiny_higgs()
    assert words(model.prompt("x", "june").text_S).count("june") == 1
    Higgs(model.lm, model.tokenizer, instruction="Be brief.").save_pretrained(tmp_path)
    assert "Be brief." in words(load_model(tmp_path).prompt("x", "june").text_S)
