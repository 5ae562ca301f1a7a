"""Conversations of text and audio: turns, zero-shot cloning, and the JSON that the public Higgs trainers read.

A file (.json, or .jsonl with one object a line) holds conversations ``{"messages": [{"role", "content"}],
"start_index"?, "speaker"?, "audios"?}`` (boson-ai/higgs-audio data_types.py; transformers' chat templates; ms-swift) or
``{"samples": [{"audio_file", "transcript_file", "ref_audio_file"?, ...}]}`` (train-higgs-audio).
"""

import json
import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from earnest.data.clip import Clip
from earnest.data.layouts.opened import text_of
from earnest.data.row import Audio, Row, Turn, Vary
from earnest.errors import UserError
from earnest.files import read_small
from earnest.records import loads

ROLES = ("system", "user", "assistant")
# Higgs' system turn (boson-ai/higgs-audio examples/generation.py), and the marks around a scene's description in it.
INSTRUCTION = "Generate audio following instruction."
SCENE_START, SCENE_END = "<|scene_desc_start|>", "<|scene_desc_end|>"
AUDIO_PLACE = "<audio>"  # in ms-swift's texts: here is the next of `audios`
LARGEST_TRANSCRIPT_BYTES = 1 << 20
LONGEST_NAME = 1000
AUDIO_FILE_KEYS = ("audio_url", "url", "path", "audio")


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
            parts = (
                part if isinstance(part, str) else torch.as_tensor(codes[part.path].astype(np.int64))
                for part in turn.parts
            )
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
    """A conversation of zero-shot cloning: text and audio of the reference, then the text to say in that voice and, for
    training, the audio of it."""
    turns: list[Turn[Audio]] = [
        Turn("system", (instruction,)),
        Turn("user", (reference_text,)),
        Turn("assistant", (reference,), counts=False),
        Turn("user", (text,)),
    ]
    return tuple(turns) if target is None else (*turns, Turn("assistant", (target,)))


class Cloning:
    """`vary(row, random)`: a row becomes a conversation of zero-shot cloning; the reference is another row of the same
    speaker.

    rows: those that may be references, if no longer than `max_frames` · frac: share of rows that become such a
    conversation in training, drawn row by row; in evaluation all do · instruction: the system turn · vary: what else
    changes, before. A row stays as it is if its speaker has no other clip, or if it is a conversation already.
    """

    def __init__(self, rows: Sequence[Row], vary: Vary, frac: float, max_frames: int, instruction: str = INSTRUCTION):
        self.vary, self.frac, self.instruction = vary, frac, instruction
        self.rows = rows
        places: dict[str, array[int]] = {}
        for place, row in enumerate(rows):
            if row.frames <= max_frames:
                places.setdefault(row.speaker, array("i")).append(place)
        self.references = {speaker: _References(rows, each) for speaker, each in places.items()}

    def __call__(self, row: Row, random: np.random.Generator | None = None) -> Row:
        varied = self.vary(row, random)
        reference = None if row.turns else self.reference(row, random)
        if reference is None or (random is not None and random.random() >= self.frac):
            return varied
        codes_CT, target_CT = (
            torch.as_tensor(codes.astype(np.int64)) for codes in (reference.codes_CT, varied.codes_CT)
        )
        turns = cloning(codes_CT, reference.text or "", varied.text or "", target_CT, self.instruction)
        return replace(varied, turns=turns)

    def reference(self, row: Row, random: np.random.Generator | None = None) -> Row | None:
        """Another row of the speaker, drawn; without `random` the next one in the order of sources, so that every
        evaluation sees the same. None if there is no other."""
        if row.speaker not in self.references:
            return None
        references = self.references[row.speaker]
        places, (start, end) = references.places, references.of_source(row.source)
        others = len(places) - (end - start)
        if not others:
            return None
        if random is None:
            return self.rows[places[end if end < len(places) else 0]]
        drawn = int(random.integers(others))
        return self.rows[places[drawn if drawn < start else drawn + end - start]]


class _References:
    """Rows of one speaker in the order of their sources, which are not kept: their hashes find a row without making
    others."""

    def __init__(self, rows: Sequence[Row], places: Sequence[int]):
        self._rows = rows
        sources = sorted((rows[place].source, place) for place in places)
        self.places = array("i", (place for _, place in sources))
        hashes = np.array([hash(source) for source, _ in sources])
        self._ranks = array("i", np.argsort(hashes, kind="stable").astype(np.int32).tobytes())
        self._hashes = array("q", np.sort(hashes).tobytes())

    def of_source(self, source: str) -> tuple[int, int]:
        """Where the rows of a source stand, from the first to behind the last; of one that is not here, twice where it
        would."""
        first = bisect_left(self._hashes, hash(source))
        count = bisect_right(self._hashes, hash(source), first) - first
        if not count:
            start = bisect_left(self.places, source, key=lambda place: self._rows[place].source)
            return start, start
        start = min(self._ranks[first : first + count])
        return start, start + count


# --- reading ----------------------------------------------------------------------------------------------------------


def load_conversations(path: str | os.PathLike[str]) -> list[Conversation]:
    """Read a file of conversations; audio paths are relative to it, and no audio is read.

    Raises UserError, which names the conversation, for a file that is not JSON of these forms, a conversation without
    an assistant's turn to train on, an unknown role, and an audio part without a file.
    """
    path = Path(path)
    conversations = [
        _Stored(fields, path.parent, f"{path}, conversation {number}").conversation()
        for number, fields in enumerate(_samples(path), 1)
    ]
    if not conversations:
        raise UserError(f"no conversation in {path}", "at least one", "check the path")
    return conversations


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    """The fields of every conversation of a file."""
    expected = '{"messages": [...]} or {"samples": [...]}, a list of these, or one of these a line (.jsonl)'
    try:
        text = text_of(path)
        lines = [line for line in text.splitlines() if line.strip()]
        stored = [loads(line) for line in lines] if path.suffix == ".jsonl" else loads(text)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}", expected, "check the path and the file") from error
    for value in _list(stored):
        outer = _object(value)
        if outer is None or not isinstance(outer.get("samples", outer.get("messages")), list):
            shown = json.dumps(value, ensure_ascii=False)[:80]
            raise UserError(f"{path} holds {shown}", expected, "convert it to one of these forms")
        for inner in _list(outer.get("samples", [outer])):
            fields = _object(inner)
            if fields is None:
                raise UserError(f"{path} holds the sample {str(inner)[:80]}", expected, "correct it, or remove it")
            yield fields


def _object(value: Any) -> dict[str, Any] | None:
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def _list(value: Any) -> list[Any]:
    """A list as it is; anything else as the one element of a list."""
    return cast(list[Any], value) if isinstance(value, list) else [value]


@dataclass(frozen=True)
class _Stored:
    """One conversation as its JSON has it; `source` names it in errors."""

    fields: dict[str, Any]
    folder: Path
    source: str

    def conversation(self) -> Conversation:
        turns = tuple(self._chat()) if "messages" in self.fields else self._listed()
        if not any(turn.scored and turn.parts for turn in turns):
            raise UserError(
                f"{self.source}: no assistant's turn to train on",
                "at least one turn of the assistant, at or after start_index",
                "add what the assistant says, or leave the conversation out",
            )
        misc = _object(self.fields.get("misc")) or {}
        speaker = self.fields.get("speaker") or self.fields.get("speaker_id") or misc.get("speaker") or ""
        return Conversation(turns, str(speaker), self.source)

    def _chat(self) -> list[Turn[Clip]]:
        """The turns of `messages`; those before `start_index` are given, not trained on."""
        audios = iter(_list(self.fields.get("audios") or []))
        turns: list[Turn[Clip]] = []
        for index, value in enumerate(_list(self.fields["messages"])):
            message = _object(value)
            if message is None:
                expected = 'an object: {"role": ..., "content": ...}'
                raise UserError(f"{self.source}: a message {str(value)[:80]}", expected, "correct it, or remove it")
            role, content = message.get("role"), _list(message.get("content") or [])
            parts = tuple(part for item in content for part in self._parts(item, audios))
            if role == "scene":  # transformers' template: a description of the scene ends the system turn
                system = turns.pop().parts if turns and turns[-1].role == "system" else ()
                turns.append(Turn("system", (*system, f"\n\n{SCENE_START}\n", *parts, f"\n{SCENE_END}")))
            elif role in ROLES:
                turns.append(Turn(role, parts, counts=index >= self._start_index()))
            else:
                raise UserError(f"{self.source}: role {role!r}", f"one of {', '.join(ROLES)}", "rename it")
        return turns

    def _start_index(self) -> int:
        start = self.fields.get("start_index") or 0
        if not isinstance(start, int):
            raise UserError(
                f"{self.source}: start_index {str(start)[:80]!r}",
                "the number of the first message to train on, from 0",
                "write a whole number, or leave it out",
            )
        return start

    def _parts(self, item: Any, audios: Iterator[Any]) -> Iterator[str | Clip]:
        """The texts and clips of a string or of one part of a content; ms-swift's text has places for `audios`."""
        part = {"type": "text", "text": item} if isinstance(item, str) else _object(item) or {}
        text = part.get("text")
        if part.get("type") == "text" and isinstance(text, str):
            before, *after = text.split(AUDIO_PLACE) if "audios" in self.fields else [text]
            if before:
                yield before
            for piece in after:
                yield self._clip(next(audios, None))
                if piece:
                    yield piece
        elif part.get("type") == "audio":
            if part.get("offset") or part.get("raw_audio"):
                raise UserError(
                    f"{self.source}: audio inside the JSON, or a cut of a file",
                    "a whole audio file",
                    "write it to a file, and name that",
                )
            yield self._clip(next((part[name] for name in AUDIO_FILE_KEYS if part.get(name)), None))
        else:
            raise UserError(
                f"{self.source}: a part {str(item)[:80]}",
                '{"type": "text", "text": ...} or {"type": "audio", "audio_url": ...}',
                "correct it, or remove it",
            )

    def _listed(self) -> tuple[Turn[Clip], ...]:
        """The turns of a row of train-higgs-audio's metadata.json: one file and its text, and perhaps a reference."""
        fields = self.fields
        target = self._clip(fields.get("audio_file"))
        text = self._transcript(fields.get("transcript"), fields.get("transcript_file"), target)
        instruction = INSTRUCTION
        if scene := fields.get("scene"):
            described = f"Audio is recorded from {str(scene).replace('_', ' ')}."
            instruction += f"\n\n{SCENE_START}\n{described}\n{SCENE_END}"
        if not fields.get("ref_audio_file"):
            return Turn("system", (instruction,)), Turn("user", (text,)), Turn("assistant", (target,))
        reference = self._clip(fields["ref_audio_file"])
        reference_text = self._transcript(fields.get("ref_transcript"), fields.get("ref_transcript_file"), reference)
        return cloning(reference, reference_text, text, target, instruction)

    def _transcript(self, text: Any, file: Any, audio: Clip) -> str:
        """The text as given, or of its file, which has the audio's name if none is given."""
        if isinstance(text, str) and text:
            return text.strip()
        path = self._inside(file or audio.path.with_suffix(".txt").name)
        try:
            if not text and path is not None:
                return read_small(path, LARGEST_TRANSCRIPT_BYTES).decode().strip()
        except (OSError, ValueError) as error:
            raise UserError(f"{self.source}: {path}: {error}", "a transcript in UTF-8", "mend the file") from error
        raise UserError(
            f"{self.source}: no text for {audio.name}",
            f"its transcript: a field of the JSON, or a text file in {self.folder}",
            f"write what is said into {Path(audio.name).with_suffix('.txt')}",
        )

    def _inside(self, file: Any) -> Path | None:
        """A file that the conversations name, if it lies in their folder: compared by its letters, as in a folder of
        clips, so that links are followed."""
        name = os.path.normpath(file) if isinstance(file, str) and "\0" not in file else os.pardir
        if os.path.isabs(name) or name.split(os.sep)[0] == os.pardir or len(name) > LONGEST_NAME:
            return None
        path = self.folder / name
        return path if path.is_file() else None

    def _clip(self, file: Any) -> Clip:
        path = self._inside(file)
        if path is None:
            named = f"names {str(file)[:80]}, which is not there" if file else "without a file"
            raise UserError(
                f"{self.source}: an audio part {named}",
                f"an audio file in {self.folder}",
                "add the file, or take the part out",
            )
        return Clip(path, str(file))
