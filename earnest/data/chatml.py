"""Conversations of text and audio: turns, zero-shot cloning, and the JSON that the public Higgs trainers read.

A file (.json, or .jsonl with one object a line) holds conversations ``{"messages": [{"role", "content"}],
"start_index"?, "speaker"?, "audios"?}`` (boson-ai/higgs-audio data_types.py; transformers' chat templates; ms-swift) or
``{"samples": [{"audio_file", "transcript_file", "ref_audio_file"?, ...}]}`` (train-higgs-audio).
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earnest.data.folder import Clip
from earnest.data.row import Audio, Row, Turn, Vary
from earnest.errors import UserError

ROLES = ("system", "user", "assistant")
INSTRUCTION = (
    "Generate audio following instruction."  # Higgs' system turn (boson-ai/higgs-audio examples/generation.py)
)
SCENE_START, SCENE_END = (
    "<|scene_desc_start|>",
    "<|scene_desc_end|>",
)  # around a description of the scene, in the system turn
AUDIO_PLACE = "<audio>"  # where ms-swift's text holds the next of `audios`


@dataclass(frozen=True)
class Conversation:
    """Turns in order; `name` says where they were read."""

    turns: tuple[Turn[Clip], ...]
    speaker: str = ""
    name: str = ""
    split: str | None = None

    @property
    def clips(self) -> list[Clip]:
        return [part for turn in self.turns for part in turn.parts if isinstance(part, Clip)]

    def row(self, codes: Mapping[Path, np.ndarray]) -> Row:
        """A row of a `Corpus`: its turns with codes_CT in place of each clip, and as its own codes and text the last
        ones.

        codes: path -> codes_CT; KeyError if a clip has none.
        """

        def encoded(turn: Turn[Clip]) -> Turn[Tensor]:
            parts = (part if isinstance(part, str) else torch.as_tensor(codes[part.path]) for part in turn.parts)
            return Turn(turn.role, tuple(parts), turn.counts)

        texts = [part for turn in self.turns if turn.role == "user" for part in turn.parts if isinstance(part, str)]
        return Row(
            codes_CT=codes[self.clips[-1].path] if self.clips else np.zeros((1, 0), np.int64),
            text=texts[-1] if texts else "",
            speaker=self.speaker,
            source=self.name,
            turns=tuple(map(encoded, self.turns)),
        )


def cloning(
    reference: Audio, reference_text: str, text: str, target: Audio | None = None, instruction: str = INSTRUCTION
) -> tuple[Turn[Audio], ...]:
    """Zero-shot cloning: what the reference says and how it sounds, then what is to be said in that voice, and (in
    training) how."""
    turns: list[Turn[Audio]] = [
        Turn("system", (instruction,)),
        Turn("user", (reference_text,)),
        Turn("assistant", (reference,), counts=False),
        Turn("user", (text,)),
    ]
    return tuple(turns) if target is None else (*turns, Turn("assistant", (target,)))


class Cloning:
    """`vary(row, random)`: a row becomes a sample of zero-shot cloning, its reference another row of the same speaker.

    rows: those that may serve as references, if no longer than `max_frames` · frac: share of rows in training, drawn
    one by one, that become such a sample; in evaluation all do · instruction: the system turn · vary: what else
    changes, before. A row whose speaker has no other clip, or which brings a conversation of its own, stays as it is.
    """

    def __init__(self, rows: Iterable[Row], vary: Vary, frac: float, max_frames: int, instruction: str = INSTRUCTION):
        self.vary, self.frac, self.instruction = vary, frac, instruction
        self.references: dict[str, list[Row]] = {}  # by speaker
        for row in sorted(rows, key=lambda row: row.source):
            if row.frames <= max_frames:
                self.references.setdefault(row.speaker, []).append(row)

    def __call__(self, row: Row, random: np.random.Generator | None = None) -> Row:
        varied = self.vary(row, random)
        reference = None if row.turns else self.reference(row, random)
        if reference is None or (random is not None and random.random() >= self.frac):
            return varied
        codes_CT, target_CT = torch.as_tensor(reference.codes_CT), torch.as_tensor(varied.codes_CT)
        turns = cloning(codes_CT, reference.text or "", varied.text or "", target_CT, self.instruction)
        return replace(varied, turns=turns)

    def reference(self, row: Row, random: np.random.Generator | None = None) -> Row | None:
        """Drawn anew in training; without `random` the next one in order of source, so that evaluation sees the same
        each time."""
        others = [other for other in self.references.get(row.speaker, []) if other.source != row.source]
        if not others:
            return None
        after = next((index for index, other in enumerate(others) if other.source > row.source), 0)
        return others[after if random is None else int(random.integers(len(others)))]


# --- reading
# ----------------------------------------------------------------------------------------------------------------


def load_conversations(path: str | os.PathLike) -> list[Conversation]:
    """Read a file of conversations; audio paths are relative to it, and no audio is read.

    Raises UserError for a file that is not JSON of these forms, a conversation without an assistant's turn to train on,
    an unknown role, and an audio part without a file, naming the conversation.
    """
    path = Path(path)
    conversations = [
        _conversation(sample, path.parent, f"{path}, conversation {number}")
        for number, sample in enumerate(_samples(path), 1)
    ]
    if not conversations:
        raise UserError(f"no conversation in {path}", "at least one", "check the path")
    return conversations


def _samples(path: Path) -> Iterator[Mapping[str, Any]]:
    expected = '{"messages": [...]} or {"samples": [...]}, a list of these, or one of these a line (.jsonl)'
    try:
        text = path.read_text(encoding="utf-8-sig")
        stored = (
            [json.loads(line) for line in text.splitlines() if line.strip()]
            if path.suffix == ".jsonl"
            else json.loads(text)
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}", expected, "check the path and the file") from error
    for sample in stored if isinstance(stored, list) else [stored]:
        if not isinstance(sample, dict) or not isinstance(sample.get("samples", sample.get("messages")), list):
            raise UserError(
                f"{path} holds {json.dumps(sample, ensure_ascii=False)[:80]}",
                expected,
                "convert it to one of these forms",
            )
        for one in sample.get("samples", [sample]):
            if not isinstance(one, dict):
                raise UserError(f"{path} holds the sample {str(one)[:80]}", expected, "mend it")
            yield one


def _conversation(sample: Mapping[str, Any], folder: Path, source: str) -> Conversation:
    turns = _chat(sample, folder, source) if "messages" in sample else _listed(sample, folder, source)
    if not any(turn.scored and turn.parts for turn in turns):
        raise UserError(
            f"{source}: no assistant's turn to train on",
            "at least one turn of the assistant, at or after start_index",
            "add what the assistant says, or leave the conversation out",
        )
    speaker = sample.get("speaker") or sample.get("speaker_id") or (sample.get("misc") or {}).get("speaker") or ""
    return Conversation(turns, str(speaker), source)


def _chat(sample: Mapping[str, Any], folder: Path, source: str) -> tuple[Turn, ...]:
    """Messages -> turns: a content is a string, a part, or a list of both; turns before start_index are given, not
    trained on."""
    audios = iter(sample.get("audios") or [])

    def clip(file: Any) -> Clip:
        return _clip(file, folder, source)

    def parts(content: Any) -> Iterator[str | Clip]:
        for part in content if isinstance(content, list) else [content]:
            part = {"type": "text", "text": part} if isinstance(part, str) else part
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
                before, *after = part["text"].split(AUDIO_PLACE) if "audios" in sample else [part["text"]]
                yield from [before] if before else []
                for text in after:
                    yield clip(next(audios, None))
                    yield from [text] if text else []
            elif isinstance(part, dict) and part.get("type") == "audio":
                if part.get("offset") or part.get("raw_audio"):
                    raise UserError(
                        f"{source}: audio inside the JSON, or a cut of a file",
                        "a whole audio file",
                        "write it to a file, and name that",
                    )
                yield clip(next((part[name] for name in ("audio_url", "url", "path", "audio") if part.get(name)), None))
            else:
                raise UserError(
                    f"{source}: a part {str(part)[:80]}",
                    '{"type": "text", "text"} or {"type": "audio", "audio_url"}',
                    "mend it",
                )

    turns: list[Turn] = []
    for index, message in enumerate(sample["messages"]):
        if not isinstance(message, dict):
            raise UserError(f"{source}: a message {str(message)[:80]}", '{"role", "content"}', "mend it")
        role, said = message.get("role"), tuple(parts(message.get("content") or []))
        if role == "scene":  # transformers' template: a description of the scene ends the system turn
            system = turns.pop() if turns and turns[-1].role == "system" else Turn("system", ())
            turns.append(Turn("system", (*system.parts, f"\n\n{SCENE_START}\n", *said, f"\n{SCENE_END}")))
            continue
        if role not in ROLES:
            raise UserError(f"{source}: role {role!r}", f"one of {', '.join(ROLES)}", "rename it")
        turns.append(Turn(role, said, counts=index >= (sample.get("start_index") or 0)))
    return tuple(turns)


def _listed(sample: Mapping[str, Any], folder: Path, source: str) -> tuple[Turn, ...]:
    """A row of train-higgs-audio's metadata.json: one file and its text, and perhaps a reference to clone."""

    def text_of(text: str | None, file: str | None, audio: Clip) -> str:
        file = file or audio.path.with_suffix(".txt").name
        if not text and not (folder / file).is_file():
            raise UserError(
                f"{source}: no text for {audio.name}", f"its transcript, or {folder / file}", "write down what is said"
            )
        return (text or (folder / file).read_text(encoding="utf-8")).strip()

    target = _clip(sample.get("audio_file"), folder, source)
    text = text_of(sample.get("transcript"), sample.get("transcript_file"), target)
    scene = sample.get("scene")
    described = (
        f"\n\n{SCENE_START}\nAudio is recorded from {str(scene).replace('_', ' ')}.\n{SCENE_END}" if scene else ""
    )
    if not sample.get("ref_audio_file"):
        return Turn("system", (INSTRUCTION + described,)), Turn("user", (text,)), Turn("assistant", (target,))
    reference = _clip(sample["ref_audio_file"], folder, source)
    reference_text = text_of(sample.get("ref_transcript"), sample.get("ref_transcript_file"), reference)
    return cloning(reference, reference_text, text, target, INSTRUCTION + described)


def _clip(file: Any, folder: Path, source: str) -> Clip:
    if not isinstance(file, str) or not (folder / file).is_file():
        raise UserError(
            f"{source}: an audio part {f'names {file}, which is not there' if file else 'without a file'}",
            f"an audio file, relative to {folder}",
            "add the file, or take the part out",
        )
    return Clip(folder / file, file)
