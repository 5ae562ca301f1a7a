"""Higgs Audio v2: a Llama whose layers route text and audio positions to separate feed-forward networks.

On transformers' `HiggsAudioV2ForConditionalGeneration` with its text head. Layout and ids are those of
boson-ai/higgs-audio and of transformers' higgs_audio_v2.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    HiggsAudioV2Config,
    HiggsAudioV2ForConditionalGeneration,
    PreTrainedTokenizerBase,
)
from transformers.models.higgs_audio_v2.modeling_higgs_audio_v2 import HiggsAudioV2DecoderLayer

from earnest.bounds import check_heads
from earnest.data.batch import Batch, Example, Prompt, taken
from earnest.data.layouts.chatml import INSTRUCTION, SCENE_END, SCENE_START
from earnest.data.masks import IGNORE, ends_at_eos, shift
from earnest.data.patterns import delay, framed
from earnest.data.row import Turn
from earnest.data.text import (
    AUDIO_DELAY,
    AUDIO_EOS,
    AUDIO_OUT,
    AUDIO_OUT_BOS,
    BEGIN,
    END_OF_TEXT,
    END_OF_TURN,
    byte_tokenizer,
    header_ids,
    special_id,
    text_ids,
)
from earnest.errors import TooLongError, UserError
from earnest.models.adapters import restore_adapters
from earnest.models.companions import Companions, read_companions, write_companions
from earnest.models.higgs.continuation import HiggsContinuation
from earnest.models.operators import rms_normed
from earnest.models.packed import Route, recomputed
from earnest.models.published import published
from earnest.models.system import Head, Output, System
from earnest.sampling import Repetition
from earnest.streams import TEXT, Codebook, Stream

KEPT = 1000  # system turns, headers and special tokens whose ids are kept
AUDIO_SPECIALS = 2  # BOS and EOS of the audio, above the codec's codes: codebook_size = codes + 2


@dataclass(frozen=True)
class HiggsShape:
    """A Higgs model trained from scratch, with a byte tokenizer."""

    width: int = 256
    """Width of the residual stream."""
    layers: int = 4
    """Number of layers."""
    heads: int = 4
    """Heads of attention."""
    ffn: int = 512
    """Inner width of the text and of the audio feed-forward network."""
    max_positions: int = 2048
    """Context: prompt, audio frames and the end of the turn."""

    def build(self, codebooks: int, codes: int) -> "Higgs":
        """A fresh model for a codec of `codebooks` codebooks with `codes` entries each; BOS and EOS are added."""
        check_heads("--shape.", self.width, self.heads)
        tokenizer = byte_tokenizer()
        config = HiggsAudioV2Config(
            vocab_size=len(tokenizer),
            hidden_size=self.width,
            intermediate_size=self.ffn,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            head_dim=self.width // self.heads,
            max_position_embeddings=self.max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            num_codebooks=codebooks,
            codebook_size=codes + AUDIO_SPECIALS,
            audio_stream_bos_id=codes,
            audio_stream_eos_id=codes + 1,
            audio_token_id=special_id(tokenizer, AUDIO_OUT),
            audio_delay_token_id=special_id(tokenizer, AUDIO_DELAY),
            audio_bos_token_id=special_id(tokenizer, AUDIO_OUT_BOS),
            bos_token_id=special_id(tokenizer, BEGIN),
            eos_token_id=special_id(tokenizer, END_OF_TURN),
            pad_token_id=special_id(tokenizer, END_OF_TEXT),
        )
        return Higgs(
            HiggsAudioV2ForConditionalGeneration(config, use_text_head=True), tokenizer, instruction="{speaker}"
        )


class RoutedLayer(HiggsAudioV2DecoderLayer):
    """transformers' layer, which also takes a batch's text and audio positions as two blocks: the route is known, not
    found again in every layer, and nothing is computed at padding. Without a `route` it is transformers' own."""

    def forward(  # type: ignore[override]
        self, text_ND: Tensor, audio_MD: Tensor | None = None, route: Route | None = None, **context: Any
    ) -> Any:
        if route is None:
            return super().forward(text_ND, **context)
        assert audio_MD is not None
        attention = self.self_attn
        normed_PD = route.joined(
            rms_normed(text_ND, self.input_layernorm), rms_normed(audio_MD, self.audio_input_layernorm)
        )
        q_PHD, k_PHD, v_PHD = (
            project(normed_PD).unflatten(-1, (-1, attention.head_dim))
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        mixed_ND, mixed_MD = route.parted(attention.o_proj(route.attend(q_PHD, k_PHD, v_PHD).flatten(1)))
        text_ND, audio_MD = text_ND + mixed_ND, audio_MD + mixed_MD
        text_ND = text_ND + self.mlp(rms_normed(text_ND, self.post_attention_layernorm))
        audio_MD = audio_MD + self.audio_mlp(rms_normed(audio_MD, self.audio_post_attention_layernorm))
        return text_ND, audio_MD


class Higgs(System):
    """The language model with its tokenizer. `specials_count`: whether the ends of audio and turns are targets."""

    name = "higgs"
    reads_conversations = True

    def __init__(
        self,
        lm: HiggsAudioV2ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        instruction: str | None = None,
    ):
        super().__init__()
        self.lm = lm
        for layer in lm.model.layers:
            layer.__class__ = RoutedLayer  # the same weights under the same names; a checkpoint does not know
        self.tokenizer = tokenizer
        self._ids = dict[tuple[str, str], list[int]]()
        self.codebooks: int = lm.config.num_codebooks
        self.codes: int = lm.config.codebook_size - AUDIO_SPECIALS
        self.bos_id: int = lm.config.audio_stream_bos_id
        self.eos_id: int = lm.config.audio_stream_eos_id
        self.delays = list(range(self.codebooks))
        self.max_positions: int = lm.config.max_position_embeddings
        self.pad_id = special_id(tokenizer, END_OF_TEXT)
        self.after_end_id = self.eos_id
        self.text_vocab, self.audio_vocab = lm.config.vocab_size, lm.config.codebook_size
        self.instruct(instruction if instruction is not None else tokenizer.init_kwargs.get("instruction", INSTRUCTION))
        self.specials_count = True
        self.repetition = _published_repetition(lm)
        self.published = published(lm)
        self.companions: Companions = {}
        if self.eos_id >= lm.config.codebook_size:
            raise UserError(
                f"codebook_size {lm.config.codebook_size} with BOS {self.bos_id} and EOS {self.eos_id}",
                f"codebook_size {self.eos_id + 1}: codes, BOS and EOS have rows of their own",
                f"set codebook_size={self.eos_id + 1} in the model's config (transformers' default of 1024 is wrong)",
            )

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "Higgs":
        """Load a directory in transformers' format, with the tokenizer beside the weights; or adapters, on the model
        that they name."""
        lm = HiggsAudioV2ForConditionalGeneration.from_pretrained(path, use_text_head=True)
        restore_adapters(lm, path)
        model = cls(lm, AutoTokenizer.from_pretrained(path))
        model.companions = read_companions(path)
        return model

    def save_pretrained(self, path: str | Path) -> None:
        """Write config, safetensors and tokenizer for transformers' own classes; of an adapted model the adapters."""
        self.lm.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        write_companions(self.companions, path)

    def instruct(self, instruction: str) -> None:
        """Set `instruction`; it is saved with the tokenizer, as a chat template would be."""
        self.instruction = self.tokenizer.init_kwargs["instruction"] = instruction

    def text_of(self, ids_L: Sequence[int]) -> str:
        return cast(str, self.tokenizer.decode(list(ids_L)))

    # --- from a clip to positions -------------------------------------------------------------------------------------

    def prompt(self, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None) -> Prompt:
        """The turns before the assistant's, and the beginning of that one.

        turns: a conversation up to there, such as `cloning` makes. Raises UserError if nothing would be left for audio,
        and for the null input, which Higgs does not have.
        """
        laid = self._laid(turns or self._turns(text, speaker), open_turn=True)
        if len(laid) + self.codebooks >= self.max_positions:
            raise self._too_long(laid, self.max_positions - self.codebooks - 1)
        return Prompt(laid.text_S, laid.tokens_SC, laid.is_audio_S)

    def lay_out(
        self, codes_CT: Tensor | None, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None
    ) -> Example:
        """Each turn is its header, its text, its audio as [BOS] + codes + [EOS] delayed, and the turn's end.

        Targets are the assistant's, in turns that count: text tokens, the marks around audio, and per codebook and clip
        its codes and one EOS. Raises UserError if codes are not of this model's codebooks, or for the null input, which
        Higgs does not have; TooLongError if the whole is longer than the context.
        """
        if turns is None:
            assert codes_CT is not None
            turns = (*self._turns(text, speaker), Turn("assistant", (codes_CT,)))
        laid = self._laid(turns)
        if len(laid) > self.max_positions:
            raise self._too_long(laid, self.max_positions)
        return laid

    def positions(self, frames: int, text: str | None, speaker: str = "") -> int:
        shape_CT = torch.empty(self.codebooks, frames, device="meta")  # nothing but its frames is asked for
        return self.positions_of((*self._turns(text, speaker), Turn("assistant", (shape_CT,))))

    def positions_of(self, turns: Sequence[Turn[Tensor]]) -> int:
        texts, audio = 1, 0
        for turn in turns:
            texts += len(self._header(turn.role)) + 1
            for part in _joined(turn.parts):
                if isinstance(part, str):
                    texts += len(self._words(turn.role, part))
                else:
                    texts += 2  # the marks before the audio and behind it
                    audio += part.shape[-1] + 2 + max(self.delays)
        if texts + audio > self.max_positions:
            raise self._too_many(texts, audio, self.max_positions)
        return texts + audio

    def _turns(self, text: str | None, speaker: str) -> tuple[Turn[Tensor], Turn[Tensor]]:
        if text is None:
            raise UserError(
                "the null input for a higgs model",
                "a text: Higgs has no unconditional branch",
                "set guidance to 1, and unconditional_frac to 0",
            )
        return Turn("system", (self.instruction.replace("{speaker}", speaker),)), Turn("user", (text,))

    def _laid(self, turns: Sequence[Turn[Tensor]], open_turn: bool = False) -> Example:
        """The turns, and with `open_turn` the beginning of the assistant's next one; labels are shifted here."""
        ids_S, clips = [self._special(BEGIN)], list[tuple[int, Tensor, Tensor]]()
        labels_S = [IGNORE]
        for turn in turns:
            self._write(ids_S, labels_S, self._header(turn.role), False)
            ended = turn.scored and self.specials_count
            for part in _joined(turn.parts):
                if isinstance(part, str):
                    self._write(ids_S, labels_S, self._words(turn.role, part), turn.scored)
                    continue
                tokens_CS, audio_labels_CS = self._audio(torch.as_tensor(part), turn.scored)
                self._write(ids_S, labels_S, [self._special(AUDIO_OUT_BOS)], ended)
                clips.append((len(ids_S), tokens_CS, audio_labels_CS))
                self._write(ids_S, labels_S, [self._special(AUDIO_OUT)] * tokens_CS.shape[1], False)
                self._write(ids_S, labels_S, [self._special(AUDIO_EOS)], ended)
            self._write(ids_S, labels_S, [self._special(END_OF_TURN)], ended)
        if open_turn:
            self._write(ids_S, labels_S, [*self._header("assistant"), self._special(AUDIO_OUT_BOS)], False)
        tokens_SC = torch.zeros(len(ids_S), self.codebooks, dtype=torch.long)
        audio_labels_SC = torch.full_like(tokens_SC, IGNORE)
        is_audio_S = torch.zeros(len(ids_S), dtype=torch.bool)
        for start, tokens_CS, labels_CS in clips:
            place = slice(start, start + tokens_CS.shape[1])
            tokens_SC[place], audio_labels_SC[place], is_audio_S[place] = tokens_CS.T, labels_CS.T, True
        text_S, text_labels_S = torch.as_tensor(np.array([ids_S, labels_S]))
        return Example(text_S, tokens_SC, is_audio_S, shift(text_labels_S), shift(audio_labels_SC))

    @staticmethod
    def _write(ids_S: list[int], labels_S: list[int], ids_L: list[int], counts: bool) -> None:
        ids_S += ids_L
        labels_S += ids_L if counts else [IGNORE] * len(ids_L)

    def _special(self, token: str) -> int:
        return self._known("special", token, lambda: [special_id(self.tokenizer, token)])[0]

    def _header(self, role: str) -> list[int]:
        return self._known("header", role, lambda: header_ids(self.tokenizer, role))

    def _words(self, role: str, text: str) -> list[int]:
        """A system turn is the same in thousands of clips, so its ids are kept."""
        if role != "system":
            return text_ids(self.tokenizer, text)
        return self._known("system", text, lambda: text_ids(self.tokenizer, text, (SCENE_START, SCENE_END)))

    def _known(self, kind: str, text: str, make: Callable[[], list[int]]) -> list[int]:
        """Ids that were made before, KEPT of them at most."""
        if (kind, text) not in self._ids:
            if len(self._ids) >= KEPT:
                self._ids.clear()
            self._ids[kind, text] = make()
        return self._ids[kind, text]

    def _audio(self, codes_CT: Tensor, counts: bool) -> tuple[Tensor, Tensor]:
        """Delayed tokens (C, S) and their labels at their own positions."""
        self.check_codes(codes_CT)
        frames = codes_CT.shape[1]
        tokens_CS = delay(
            framed(codes_CT.long(), self.bos_id, self.eos_id), self.delays, before=self.bos_id, behind=self.eos_id
        )
        labels_CS = ends_at_eos(tokens_CS, self.delays, frames) if counts else torch.full_like(tokens_CS, IGNORE)
        if not self.specials_count:
            labels_CS = labels_CS.masked_fill(labels_CS == self.eos_id, IGNORE)
        return tokens_CS, labels_CS

    def _too_long(self, laid: Example, most: int) -> TooLongError:
        frames = int(laid.is_audio_S.sum())
        return self._too_many(len(laid) - frames, frames, most)

    def _too_many(self, texts: int, frames: int, most: int) -> TooLongError:
        return TooLongError(
            f"{texts + frames} positions: {texts} text tokens, {frames} audio frames",
            f"at most {most}",
            "shorten the text, the clip or the reference, or raise the model's context",
        )

    # --- training -----------------------------------------------------------------------------------------------------

    def outputs(self, batch: Batch) -> dict[Stream, Output]:
        states_PD = self.states(batch)
        return {stream: Output(states_PD, head) for stream, head in self.heads().items()}

    def states(self, batch: Batch) -> Tensor:
        """Hidden states (P, D) of the positions that exist."""
        lm = self.lm.model
        places = batch.places
        text_ND = lm.embed_tokens(taken(batch.text_BS, places.text_N))
        audio_MD = lm.embed_audio_tokens(taken(batch.tokens_BSC, places.audio_M))
        route = Route.of(batch, lm.rotary_emb, audio_MD)
        for layer in lm.layers:
            text_ND, audio_MD = recomputed(self, layer, text_ND, audio_MD, route=route)
        return lm.norm(route.joined(text_ND, audio_MD))

    def heads(self) -> dict[Stream, Head]:
        assert self.lm.text_lm_head is not None  # `build` and `from_pretrained` ask transformers for it
        audio_CVD = torch.unbind(torch.unflatten(self.lm.audio_lm_head.weight, 0, (self.codebooks, -1)))
        heads: dict[Stream, Head] = {TEXT: Head((self.lm.text_lm_head.weight,))}
        return heads | {Codebook(c): Head((weight_VD,)) for c, weight_VD in enumerate(audio_CVD)}

    # --- generation ---------------------------------------------------------------------------------------------------

    def begin(self, prompts: Sequence[Prompt]) -> HiggsContinuation:
        return HiggsContinuation(self, prompts)


def _joined(parts: Sequence[str | Tensor]) -> Iterator[str | Tensor]:
    """Neighbouring texts as one, as transformers' chat template writes them: a tokenizer may join the end of one with
    the beginning of the next (".", "\n\n")."""
    for _, group in groupby(parts, lambda part: isinstance(part, str)):
        members = list(group)
        yield from ("".join(cast(list[str], members)),) if isinstance(members[0], str) else members


def _published_repetition(lm: HiggsAudioV2ForConditionalGeneration) -> Repetition:
    """The rule in the checkpoint's generation_config.json."""
    config: Any = lm.generation_config
    window_frames, most = (getattr(config, name, None) for name in ("ras_win_len", "ras_win_max_num_repeat"))
    return Repetition(window_frames or 0, most or 2)
