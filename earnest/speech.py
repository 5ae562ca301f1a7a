"""Saying a text with any checkpoint: where model and codec come from, whose voice it is, and how it is sampled."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from earnest.checkpoints import latest_checkpoint
from earnest.codecs import Codec, load_codec
from earnest.data.audio import ClipError
from earnest.data.batch import Prompt
from earnest.data.layouts.chatml import cloning
from earnest.data.row import Turn
from earnest.data.store import codes_of_file
from earnest.errors import UserError
from earnest.facts import Facts
from earnest.generate import Request, check_codec, check_guidance, generate_pieces
from earnest.models import load_model
from earnest.models.precision import Precision, computed_in, fast_float32, under
from earnest.models.system import System
from earnest.records import loads
from earnest.run import read_run
from earnest.sampling import USUAL, Sampling, Weights

TRAINED_NULL_FRAC = 0.02  # of the clips trained without their text: below it guidance is off unless it is asked for


@dataclass(frozen=True)
class Wish:
    """The sampling that the user asks for; a field that is None takes the value that the model was published with."""

    temperature: float | None = None
    guidance: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    filter_by_guidance: bool | None = None
    seed: int = 0
    weights: Weights = "exact"
    compile: bool = False


@dataclass(frozen=True)
class Speech:
    """Texts said with one model.

    request, sampling: how they are drawn (`resolved`); the request's prompt is not used · speaker: one of the run's,
    empty if it has none · voice: audio of a voice to clone in place of a speaker, and what it says · piece_words: a
    long text is said in pieces of at most so many words; `max_frames` is then that of a piece · autocast: in what the
    codes are generated (`precision_of`)."""

    model: System
    codec: Codec
    request: Request
    sampling: Sampling
    max_frames: int
    speaker: str = ""
    voice: tuple[Path, str] | None = None
    piece_words: int = 0
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext

    def __post_init__(self) -> None:
        """Raises UserError for a voice or pieces, if the model cannot take them."""
        if self.piece_words and not self.model.reads_conversations:
            raise UserError(
                f"--piece-words for a {self.model.name} model",
                "a Higgs model: each piece is a turn of a conversation",
                "leave it out, and pass several short --text instead",
            )
        if self.voice and not (self.model.reads_conversations or self.model.continues_audio):
            raise UserError(
                f"a reference for a {self.model.name} model", "a Higgs or a Dia model", "leave the reference out"
            )

    def most_frames(self, text: str) -> int:
        """Frames of a text that the model does not end."""
        return self.max_frames * len(self._texts(text))

    def pieces(self, text: str) -> Iterator[Tensor]:
        """Pieces of codes of a text, as they are generated. Raises UserError for a reference that cannot be read."""
        return under(self.autocast, self._pieces(text))

    def _pieces(self, text: str) -> Iterator[Tensor]:
        if self.model.reads_conversations and (self.voice or self.piece_words):
            return self._conversation(text)
        request = replace(self.request, prompt=self.model.prompt(text, self.speaker))
        if self.voice:
            path, its_text = self.voice
            request = replace(
                self.request,
                prompt=self.model.prompt(f"{its_text} {text}", self.speaker),
                before_CT=reference_codes(self.codec, path),
            )
        return generate_pieces(self.model, request, max_frames=self.max_frames, sampling=self.sampling)

    def _conversation(self, text: str) -> Iterator[Tensor]:
        instruction = self.model.instruction.replace("{speaker}", "" if self.voice else self.speaker)
        before: tuple[Turn[Tensor], ...] = (Turn("system", (instruction,)),)
        if self.voice:
            path, its_text = self.voice
            before = cloning(reference_codes(self.codec, path), its_text, "", instruction=instruction)[:-1]
        return generate_long(
            self.model,
            self._texts(text),
            before,
            self.request,
            max_frames=self.max_frames,
            sampling=self.sampling,
        )

    def _texts(self, text: str) -> list[str]:
        return in_pieces(text, self.piece_words) if self.piece_words else [text]


def check_speaker(wanted: str | None, facts: Facts) -> str:
    """The speaker that was asked for; the run's first if none was, empty if it names none. Raises UserError for one
    that is not known."""
    speakers = list(facts.speakers or ())
    if wanted is not None and wanted not in speakers:
        raise UserError(
            f"speaker {wanted!r}",
            f"one of {', '.join(speakers)}" if speakers else "no speaker: the run names none",
            "leave --speaker out for the first of these" if speakers else "leave --speaker out",
        )
    return wanted or next(iter(speakers), "")


def resolved(model: System, facts: Facts, wish: Wish) -> tuple[Request, Sampling]:
    """The wish, with what the model was published with in place of what is not asked for; the prompt is still empty.

    facts: of the run, whose share of clips trained without text says whether guidance can be asked for. Raises
    UserError if it cannot."""
    published, null_frac = model.published, facts.unconditional_frac
    if null_frac is None and facts.config:
        null_frac = 0.0  # a run of a system without a null input; a released checkpoint says nothing
    guidance = wish.guidance
    if guidance is None:
        guidance = published.guidance if null_frac is None or null_frac >= TRAINED_NULL_FRAC else 1.0
    check_guidance(guidance, 1.0 if null_frac is None else null_frac)
    usual = published.sampling
    sampling = Sampling(
        usual.top_k if wish.top_k is None else wish.top_k,
        usual.top_p if wish.top_p is None else wish.top_p,
        usual.filter_by_guidance if wish.filter_by_guidance is None else wish.filter_by_guidance,
        weights=wish.weights,
        compile=wish.compile,
    )
    nothing = torch.zeros(0, dtype=torch.long)
    empty = Prompt(nothing, nothing[:, None].expand(0, model.codebooks), nothing.bool())
    temperature = published.temperature if wish.temperature is None else wish.temperature
    null = None if guidance == 1 else model.prompt(None)
    return Request(empty, temperature, wish.seed, guidance, null), sampling


def reference_codes(codec: Codec, path: Path) -> Tensor:
    """codes_CT of an audio file. Raises UserError if it cannot be read."""
    try:
        codes_CT, _ = codes_of_file(path, codec)
    except ClipError as error:
        raise UserError(str(error), "a readable audio file with at least one sample", "check the file") from error
    return torch.as_tensor(codes_CT.astype(np.int64))


def in_pieces(text: str, words: int) -> list[str]:
    """A long text cut behind sentences into pieces of at most `words` words; a longer sentence is a piece by itself."""
    pieces: list[str] = []
    for sentence in re.findall(r"\S[^.!?\u061f\u3002]*[.!?\u061f\u3002]*\s*", text):
        if pieces and len(f"{pieces[-1]} {sentence}".split()) <= words:
            pieces[-1] += sentence
        else:
            pieces.append(sentence)
    return [piece.strip() for piece in pieces]


def generate_long(
    model: System,
    pieces: Sequence[str],
    before: Sequence[Turn[Tensor]],
    request: Request,
    *,
    max_frames: int,
    sampling: Sampling = USUAL,
    context: int = 2,
) -> Iterator[Tensor]:
    """Pieces of codes of a long text, each said after the turns `before` and the last `context` pieces with their
    audio, as boson-ai's own script does; `max_frames` for each piece. request: its prompt is not used."""
    earlier: list[tuple[Turn[Tensor], Turn[Tensor]]] = []
    for piece in pieces:
        user: Turn[Tensor] = Turn("user", (piece,))
        turns = (*before, *(turn for pair in earlier[-context:] for turn in pair), user)
        spoken: list[Tensor] = []
        one = replace(request, prompt=model.prompt(piece, turns=turns))
        for codes_CT in generate_pieces(model, one, max_frames=max_frames, sampling=sampling):
            spoken.append(codes_CT.cpu())
            yield codes_CT
        if spoken:
            earlier.append((user, Turn("assistant", (torch.cat(spoken, dim=1),), counts=False)))


CODECS = {"higgs": "bosonai/higgs-audio-v2-tokenizer", "dia": "descript/dac_44khz", "mot": "facebook/encodec_32khz"}
"""What the released models of each system were trained on."""


def load_run(
    path: Path, codec: str | None = None, checkpoint: Path | None = None, device: torch.device | str = "cpu"
) -> tuple[System, Codec, Facts]:
    """A model on `device`, its codec, and the facts of the run that trained it.

    path: a run; or a checkpoint, ours or transformers', merged or adapters; or the name of one on the Hub · codec:
    another than the model was trained on · checkpoint: of the run; the newest if None. Raises UserError if one is
    missing."""
    facts, weights = Facts(), path
    fast_float32()
    if not _is_model(path):
        facts, weights = read_run(path).facts, latest_checkpoint(path)
    elif (path.parent.parent / "run.json").is_file() and path.parent.name == "checkpoints":
        facts = read_run(path.parent.parent).facts
    weights = checkpoint or weights
    model = load_model(weights if weights.exists() else weights.as_posix())
    name = codec or (facts.config or {}).get("codec") or _named_codec(weights) or CODECS[model.name]
    loaded = load_codec(str(name), device)
    check_codec(model, loaded)
    return model.to(device), loaded, facts


def precision_of(facts: Facts, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """The precision in which a model generates: that of its run, or of a released checkpoint's weights."""
    wanted: Precision = (facts.config or {}).get("mixed_precision", "no")
    return computed_in(device, wanted)


def _named_codec(checkpoint: Path) -> str | None:
    """The codec that the processor of a checkpoint names, as transformers keeps it."""
    file = checkpoint / "processor_config.json"
    if not file.is_file():
        return None
    try:
        stored = cast(dict[str, dict[str, str | None]], loads(file.read_text(encoding="utf-8")))
        return stored["audio_tokenizer"]["audio_tokenizer_name_or_path"]
    except (ValueError, KeyError, TypeError):  # one that names none, or is none
        return None


def _is_model(path: Path) -> bool:
    """Whether a path is no run but a model: a directory with a configuration, or a name on the Hub."""
    if path.exists():
        return (path / "config.json").is_file() or (path / "adapter_config.json").is_file()
    return not path.is_absolute() and len(path.parts) == 2 and not path.parent.is_dir()
