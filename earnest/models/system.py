"""The contract of a language model: what data, loss, generation, monitors and probes ask of it.

A new family of models is one class that implements `System`, and one recipe.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from earnest.data.batch import Batch, Example, Prompt
from earnest.data.row import Turn
from earnest.errors import UserError
from earnest.models.compiled import check_compiler
from earnest.sampling import Published, Repetition
from earnest.streams import TEXT, Stream


@dataclass(frozen=True, eq=False)
class Head:
    """The output layer of one stream: the rows of `blocks` (V_i, D), one after the other.

    Target t of the stream is row ``first_id + t``; `ids` rows from there on are the stream's own vocabulary (None:
    all). `prior_V`, of all rows, is added to their logits, and is no parameter.
    """

    blocks: tuple[Tensor, ...]
    first_id: int = 0
    ids: int | None = None
    prior_V: Tensor | None = None

    @property
    def rows(self) -> int:
        return sum(map(len, self.blocks))

    @property
    def own(self) -> slice:
        return slice(self.first_id, self.rows if self.ids is None else self.first_id + self.ids)

    def logits(self, states_ND: Tensor) -> Tensor:
        """(N, D) -> (N, V) over the stream's own vocabulary, as generation needs them."""
        return self.with_prior(states_ND @ self.own_rows_VD.T)

    @property
    def own_rows_VD(self) -> Tensor:
        """The rows of the stream's own vocabulary."""
        own, parts, start = self.own, list[Tensor](), 0
        for block_VD in self.blocks:
            parts.append(block_VD[max(0, own.start - start) : max(0, own.stop - start)])
            start += len(block_VD)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def with_prior(self, logits_NV: Tensor) -> Tensor:
        """Logits over the stream's own vocabulary, with its share of the prior."""
        return logits_NV if self.prior_V is None else logits_NV + self.prior_V[self.own]


@dataclass(frozen=True, eq=False)
class Output:
    """What one stream is predicted from: states and the output layer that reads them.

    `states_PD`: of the positions that exist, in the row-major order of ``batch.exists_BS``; only rows whose target
    counts are read. Streams that are predicted from the same states share one tensor.
    """

    states_PD: Tensor
    head: Head


@dataclass(frozen=True, eq=False)
class Round:
    """Codebooks whose tokens of one frame are drawn together: which ones, and their logits (B, K, V). Every round of a
    model has the same V; ids that cannot occur have logits of -inf."""

    codebooks: slice
    logits_BKV: Tensor


class Continuation(ABC):
    """A batch of sequences that is being continued, one frame of audio after the other."""

    @abstractmethod
    def rounds(self, frame_BC: Tensor) -> Generator[Round, Tensor, None]:
        """Append a frame of tokens, then yield the rounds in which the next frame is drawn, in the order of the
        codebooks. The tokens (B, K) drawn in a round are sent back, as the next round depends on them."""


class System(nn.Module, ABC):
    """A language model with its layout: clips become positions, positions become states, prompts are continued.

    It never shifts targets: what the states of a position predict is already aligned in the `Batch`.
    """

    name: str
    """Of the system, in the facts of a run."""
    codebooks: int
    codes: int
    """Entries of a codebook; ids of special tokens are above them."""
    delays: list[int]
    """Frames by which each codebook starts late."""
    bos_id: int
    """The token before the first code of a codebook."""
    eos_id: int | None
    """The token that ends the audio; None if the model cannot end it."""
    after_end_id: int
    """The token that fills a codebook after its end."""
    pad_id: int
    """The text id of padding."""
    text_vocab: int
    """How many ids can occur as a text target."""
    audio_vocab: int
    """How many ids can occur as a target of one codebook, special tokens included."""
    continues_audio: bool = False
    """Whether the model speaks on in the voice of audio that is given as its own, under the text of both."""
    reads_conversations: bool = False
    """Whether the model takes conversations in place of a text and a speaker."""
    instruction: str = ""
    """The system turn of a clip without a conversation; ``{speaker}`` is replaced by the speaker's name."""
    repetition: Repetition = Repetition()
    """The rule that the model was published with."""
    published: Published = Published()
    """How it was published to be sampled."""
    ends_by_argmax: bool = False
    """Whether a clip ends when its end is the likeliest token, and only then, at any temperature."""
    cut_texts: set[str] = set()  # noqa: RUF012 (of a class whose texts are never cut)
    """Texts of which only the beginning was laid out."""
    recompute: bool = False
    """Whether activations are computed again in the backward pass, layer by layer, in place of being kept."""
    compiled: bool = False
    """Whether the layers are compiled in training (earnest/models/compiled.py)."""

    def compile_layers(self, wanted: bool) -> None:
        """Set `compiled`. Raises UserError if torch cannot compile for the device that the model is on."""
        if wanted:
            check_compiler(self.device)
        self.compiled = wanted

    def recompute_layers(self, wanted: bool) -> None:
        """Set `recompute`."""
        self.recompute = wanted

    @abstractmethod
    def prompt(self, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None) -> Prompt:
        """What comes before the audio that is to be generated; None is the null input of a system that has one.

        turns: a conversation in place of text and speaker. Raises UserError if the system does not take it, or it is
        too long.
        """

    @abstractmethod
    def lay_out(
        self, codes_CT: Tensor | None, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None
    ) -> Example:
        """A clip as positions with their targets. turns: a conversation in place of text, speaker and codes.

        Raises UserError if the codes are not of this model's codebooks, or the whole is too long.
        """

    def positions(self, frames: int, text: str | None, speaker: str = "") -> int:
        """How many positions `lay_out` gives a clip of so many frames; raises TooLongError as it does. A model that
        knows better need not lay a clip out for it."""
        codes_CT = torch.zeros(self.codebooks, frames, dtype=torch.long)
        return len(self.lay_out(codes_CT, text, speaker))

    def positions_of(self, turns: Sequence[Turn[Tensor]]) -> int:
        """`positions` of a conversation; raises UserError if the model takes none."""
        return len(self.lay_out(None, None, turns=turns))

    @abstractmethod
    def outputs(self, batch: Batch) -> Mapping[Stream, Output]:
        """What each stream of the batch is predicted from; a stream that is never scored may be left out."""

    @abstractmethod
    def begin(self, prompts: Sequence[Prompt]) -> Continuation:
        """Read prompts of any lengths; the first frame that is appended then is BOS in all codebooks."""

    @abstractmethod
    def save_pretrained(self, path: str | Path) -> None:
        """Write a directory that `earnest.models.load_model` reads."""

    def order(self, stream: Stream) -> int:
        """How far before its label the last input is that a prediction of the stream may see: 1 for the position
        before, 0 if it also sees the lower codebooks of the label's own frame, as a depth decoder does."""
        return 1

    def text_of(self, ids_L: Sequence[int]) -> str | None:
        """The text that ids spell; None if the system cannot say."""
        return None

    def refuse_conversation(self, turns: Sequence[Turn[Tensor]] | None) -> None:
        """For systems that take none."""
        if turns is not None:
            raise UserError(
                f"a conversation for a {self.name} model",
                "a text and a speaker",
                "take a system that reads conversations",
            )

    def check_codes(self, codes_CT: Tensor) -> None:
        """Raises UserError if codes are not of this model's codebooks."""
        codebooks, highest = len(codes_CT), int(codes_CT.max())
        if codebooks != self.codebooks or highest >= self.codes:
            raise UserError(
                f"codes of {codebooks} codebooks with ids up to {highest}",
                f"{self.codebooks} codebooks with ids below {self.codes}",
                "take the codec that this model was made for, or set the model's codebooks and codes to the codec's",
            )

    def vocabulary(self, stream: Stream) -> int:
        """How many ids can occur as a target of the stream."""
        return self.text_vocab if stream == TEXT else self.audio_vocab

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
