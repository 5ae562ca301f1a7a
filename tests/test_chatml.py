"""Conversations: the JSON forms that are read, what is refused, and whom a cloning sample imitates."""

import json

import numpy as np
import pytest

from earnest.data.chatml import References, cloning, load_conversations
from earnest.data.folder import Clip
from earnest.errors import UserError

REFERENCE_TEXT = "حلو لو سميته حاجة ممكن الأهالي يسمعوه"  # the two texts of document 004, one of them fully diacritised
TARGET_TEXT = "وَمِنْ ثُمَّ قَالُوا أَنَّهُ لا يُوجَدُ إِلا أَنْ نَأْخُذَ سَيَنْسَتِيلْ."


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
        {"role": "assistant", "content": [{"type": "text", "text": TARGET_TEXT}, {"type": "audio", "audio_url": "target.wav"}]},
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
        "Generate audio following instruction.\n\n<|scene_desc_start|>\nAudio is recorded from a quiet room.\n<|scene_desc_end|>"
    )
    assert [turn.role for turn in conversation.turns] == ["system", "user", "assistant"]


def test_ms_swift_puts_audio_where_the_text_says(folder):
    [conversation] = read(
        folder,
        {
            "messages": [{"role": "user", "content": "<audio> /translate"}, {"role": "assistant", "content": "a<audio>b"}],
            "audios": ["reference.wav", "target.wav"],
        },
    )
    assert said(conversation) == [("user", ["<reference.wav>", " /translate"], False), ("assistant", ["a", "<target.wav>", "b"], True)]


def test_train_higgs_audio_metadata(folder):
    (folder / "target.txt").write_text(f"{TARGET_TEXT}\n", encoding="utf-8")
    sample = {"audio_file": "target.wav", "transcript_file": "target.txt", "speaker_id": "huo", "scene": "quiet_room"}
    plain, clone = read(
        folder,
        {"dataset_info": {}, "samples": [sample, sample | {"ref_audio_file": "reference.wav", "ref_transcript": REFERENCE_TEXT}]},
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
        ({"messages": [USER, {"role": "assistant", "content": [{"type": "audio", "audio_url": ""}]}]}, "without a file"),
        ({"messages": [USER, {"role": "assistant", "content": [{"type": "audio", "audio_url": "gone.wav"}]}]}, "gone.wav"),
        ({"messages": [USER, {"role": "assistant", "content": "<audio>"}], "audios": []}, "without a file"),
        ({"messages": [USER, {"role": "assistant", "content": [{"type": "audio", "raw_audio": "UklGRg=="}]}]}, "inside the JSON"),
        ({"messages": [USER, {"role": "robot", "content": "hi"}]}, "robot"),
        ({"messages": [USER, {"role": "assistant", "content": [{"type": "image"}]}]}, "image"),
        ({"messages": [USER, {"role": "assistant", "content": 3}]}, "a part 3"),
        ({"messages": [USER, "hi"]}, "hi"),
        ({"message": []}, "message"),
        ({"samples": [{"audio_file": "target.wav"}]}, "no text for target.wav"),
        ({"samples": [{"audio_file": "gone.wav", "transcript": "x"}]}, "gone.wav"),
        ({"samples": [{"audio_file": "target.wav", "transcript": "x", "ref_audio_file": "reference.wav"}]}, "no text for reference.wav"),
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


def row(source: str, speaker: str, frames: int = 10):
    return {"source": source, "speaker": speaker, "text": source, "codes_CT": np.zeros((2, frames), dtype=np.int64)}


def test_references_are_other_clips_of_the_same_speaker():
    rows = [row(f"{speaker}{i}", speaker) for speaker in "ab" for i in range(5)] + [row("a_long", "a", frames=99), row("c0", "c")]
    references = References(rows, max_frames=50)
    drawn = [references.of(rows[2], np.random.default_rng([0, epoch, 2])) for epoch in range(200)]
    assert {reference["source"] for reference in drawn} == {"a0", "a1", "a3", "a4"}
    assert references.of(rows[2], None)["source"] == "a3" and references.of(rows[4], None)["source"] == "a0"  # the same each time
    assert references.of(rows[-2], None)["speaker"] == "a"  # a long clip may be a target
    assert references.of(rows[-1], None) is None  # nobody else to imitate
