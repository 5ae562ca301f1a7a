"""Dia: a byte encoder and a decoder of delayed codebooks, for music or speech from text, with an unconditional branch.

On transformers' `DiaForConditionalGeneration` (nari-labs/Dia-1.6B). A clip is one sequence in a `Batch`, text first,
audio after it; `Dia.states` splits it into the encoder's and the decoder's input. Stereo is two sets of codebooks, left
then right. Interleaving them (audiocraft) is the same model with its codebooks renamed: only the delays decide which
codebooks see which.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DiaConfig as HFDiaConfig
from transformers import DiaForConditionalGeneration

from earnest.bounds import check_heads
from earnest.data.batch import Batch, Example, Prompt, taken
from earnest.data.masks import IGNORE, ends_at_eos, shift
from earnest.data.patterns import check_delays, delay, framed
from earnest.data.row import Turn
from earnest.errors import TooLongError, UserError
from earnest.models.adapters import restore_adapters
from earnest.models.companions import Companions, read_companions, write_companions
from earnest.models.dia.continuation import DiaContinuation
from earnest.models.dia.layers import PackedDecoderLayer, PackedEncoderLayer, Within
from earnest.models.packed import recomputed
from earnest.models.published import published
from earnest.models.system import Head, Output, System
from earnest.streams import Codebook, Stream

log = logging.getLogger(__name__)

SPEAKER_TURNS = {b"[S1]": b"\x01", b"[S2]": b"\x02"}  # one id each, as in nari-labs' tokenizer
NULL_BYTE = 0  # the null input, and padding behind a text

Specials = Literal["eos", "none", "all"]


@dataclass(frozen=True)
class DiaShape:
    """A Dia trained from scratch. Widths are heads * head_dim of the decoder and of the encoder."""

    width: int = 256
    """Width of the decoder's residual stream."""
    layers: int = 4
    """Layers of the decoder."""
    heads: int = 4
    """Heads of the decoder's attention."""
    kv_heads: int = 2
    """Heads of keys and values in the decoder's self-attention; the query heads share them."""
    ffn: int = 512
    """Inner width of the decoder's feed-forward networks."""
    encoder_width: int = 128
    """Width of the text encoder's residual stream."""
    encoder_layers: int = 2
    """Layers of the text encoder."""
    encoder_heads: int = 2
    """Heads of the text encoder's attention."""
    encoder_ffn: int = 256
    """Inner width of the text encoder's feed-forward networks."""
    max_bytes: int = 512
    """The longest text."""
    max_audio_positions: int = 1024
    """The longest audio: frames, BOS, EOS and the largest delay."""

    def build(self, codebooks: int, codes: int, delays: Sequence[int] = (), specials: Specials = "eos") -> "Dia":
        """A fresh model for `codebooks` codebooks of `codes` entries; EOS, PAD and BOS are added. Without `delays`:
        0, 1, 2, ..."""
        check_heads("--shape.", self.width, self.heads, self.kv_heads)
        check_heads("--shape.encoder-", self.encoder_width, self.encoder_heads)
        delays = list(delays) or list(range(codebooks))
        check_delays(codebooks, delays)
        config = HFDiaConfig(
            encoder_config={
                "hidden_size": self.encoder_width,
                "intermediate_size": self.encoder_ffn,
                "num_hidden_layers": self.encoder_layers,
                "num_attention_heads": self.encoder_heads,
                "num_key_value_heads": self.encoder_heads,
                "head_dim": self.encoder_width // self.encoder_heads,
                "max_position_embeddings": self.max_bytes,
            },
            decoder_config={
                "hidden_size": self.width,
                "intermediate_size": self.ffn,
                "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads,
                "num_key_value_heads": self.kv_heads,
                "head_dim": self.width // self.heads,
                "cross_hidden_size": self.encoder_width,
                "cross_num_attention_heads": self.heads,
                "cross_num_key_value_heads": self.heads,
                "cross_head_dim": self.width // self.heads,
                "max_position_embeddings": self.max_audio_positions,
                "num_channels": codebooks,
                "vocab_size": codes + 3,
                "eos_token_id": codes,
                "pad_token_id": codes + 1,
                "bos_token_id": codes + 2,
            },
            delay_pattern=delays,
        )
        lm = DiaForConditionalGeneration(config)
        soften_attention(lm)
        return Dia(lm, specials)


@torch.no_grad()
def soften_attention(lm: DiaForConditionalGeneration) -> None:
    """Scale fresh queries by the 1/sqrt(head_dim) that Dia's attention leaves out.

    Dia scales by 1, to which its trained weights are adapted; at transformers' initialisation the scores then have a
    standard deviation of about 9 instead of 0.8, and the softmax is saturated from the first step on.
    """
    for module in lm.modules():
        if hasattr(module, "q_proj"):
            attention: Any = module
            attention.q_proj.weight *= attention.head_dim**-0.5


class Dia(System):
    """`specials`: which tokens beside the codes count as targets. "eos": one EOS per codebook, at its delayed row.
    "none": codes alone, so that the model never learns to end. "all": EOS, and the BOS that fills a late codebook's
    start. PAD never counts."""

    name = "dia"
    pad_id = NULL_BYTE
    continues_audio = True
    ends_by_argmax = True  # transformers' DiaEOSChannelFilterLogitsProcessor, nari-labs' _sample_next_token

    def __init__(self, lm: DiaForConditionalGeneration, specials: Specials = "eos"):
        super().__init__()
        self.lm = lm
        # the same weights under the same names; a checkpoint does not know
        for layers, packed in (
            (lm.model.encoder.layers, PackedEncoderLayer),
            (lm.model.decoder.layers, PackedDecoderLayer),
        ):
            for layer in layers:
                layer.__class__ = packed
        config: Any = lm.config  # transformers types its parts loosely
        decoder = config.decoder_config
        self.codebooks: int = decoder.num_channels
        self.codes: int = decoder.eos_token_id  # the special ids are above the codes
        self.bos_id: int = decoder.bos_token_id
        self.end_id: int = decoder.eos_token_id
        self.after_end_id: int = decoder.pad_token_id
        self.delays: list[int] = list(config.delay_pattern)
        self.max_bytes: int = config.encoder_config.max_position_embeddings
        self.max_audio_positions: int = decoder.max_position_embeddings
        self.max_positions = self.max_bytes + self.max_audio_positions
        self.text_vocab: int = config.encoder_config.vocab_size
        self.audio_vocab: int = decoder.vocab_size
        self.published = published(lm, guidance_of_dia=True)
        self.companions: Companions = {}
        self.specials: Specials = specials
        self.eos_id = None if specials == "none" else self.end_id
        config.specials = specials  # in config.json too: a resumed run counts the same targets
        if specials not in get_args(Specials):
            raise UserError(f"specials {specials!r}", f"one of {', '.join(get_args(Specials))}", "take one of these")

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        delays: Sequence[int] = (),
        specials: Specials | None = None,
        codebooks: int | None = None,
    ) -> "Dia":
        """Load a directory or Hub checkpoint in transformers' format.

        `delays` other than the checkpoint's are used, with a warning. A mono checkpoint with half of `codebooks`
        becomes a stereo model: embeddings and output rows of every codebook are doubled, and the embeddings halved, as
        those of a frame are summed. Raises UserError if there are not as many delays as codebooks.
        """
        lm = DiaForConditionalGeneration.from_pretrained(path)
        config: Any = lm.config
        if codebooks == 2 * config.decoder_config.num_channels:
            lm = _doubled(lm)
            config = lm.config
        before = list(config.delay_pattern)
        if delays and list(delays) != before:
            check_delays(len(before), delays)
            log.warning(
                "delays %s on weights trained with %s: each codebook now sees other frames of the others than in "
                "training, so expect the loss to start near chance, and plan to train as long as from scratch",
                list(delays),
                before,
            )
            config.delay_pattern = list(delays)
        restore_adapters(lm, path)
        model = cls(lm, specials or getattr(config, "specials", "eos"))
        model.companions = read_companions(path)
        return model

    def save_pretrained(self, path: str | Path) -> None:
        """Write config and safetensors for transformers' own class."""
        self.lm.save_pretrained(path)
        write_companions(self.companions, path)

    # --- from a clip to positions -------------------------------------------------------------------------------------

    def prompt(self, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None) -> Prompt:
        """The text's bytes; without a text, the null input.

        Dia knows no speakers: turns are marked in the text, [S1] and [S2]. The null input is one zero byte.
        transformers and nari-labs take a zero for each byte of the conditional text, which is the same to the decoder:
        the encoder's states of equal bytes are equal, whatever their number, and so is what attention reads from them.
        Raises UserError if the text is too long.
        """
        self.refuse_conversation(turns)
        data = (text or "").encode()
        for mark, byte in SPEAKER_TURNS.items():
            data = data.replace(mark, byte)
        if len(data) > self.max_bytes:
            raise TooLongError(
                f"a text of {len(data)} bytes ({(text or '')[:40]!r}…)",
                f"at most {self.max_bytes} bytes of UTF-8",
                "shorten the text",
            )
        text_S = torch.tensor(list(data) or [NULL_BYTE])
        return Prompt(
            text_S=text_S,
            tokens_SC=torch.zeros(len(text_S), self.codebooks, dtype=torch.long),
            is_audio_S=torch.zeros(len(text_S), dtype=torch.bool),
        )

    def lay_out(
        self, codes_CT: Tensor | None, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None
    ) -> Example:
        """The text's bytes, then [BOS] + codes + [EOS] delayed. Which targets count: see `Dia`.

        Raises UserError if the codes are not of this model's codebooks, or text or clip are too long.
        """
        self.refuse_conversation(turns)
        assert codes_CT is not None
        self.check_codes(codes_CT)
        frames = codes_CT.shape[1]
        prompt = self.prompt(text, speaker)
        self._check_length(frames)
        tokens_CS = delay(
            framed(codes_CT.long(), self.bos_id, self.end_id), self.delays, before=self.bos_id, behind=self.after_end_id
        )
        audio_positions = tokens_CS.shape[1]
        labels_CS = torch.where(tokens_CS == self.after_end_id, IGNORE, tokens_CS)
        if self.specials != "all":
            labels_CS = ends_at_eos(tokens_CS, self.delays, frames)
        if self.specials == "none":
            labels_CS = labels_CS.masked_fill(labels_CS == self.end_id, IGNORE)
        text_positions = len(prompt)
        return Example(
            text_S=F.pad(prompt.text_S, (0, audio_positions), value=NULL_BYTE),
            tokens_SC=torch.cat([prompt.tokens_SC, tokens_CS.T]),
            is_audio_S=F.pad(prompt.is_audio_S, (0, audio_positions), value=True),
            text_targets_S=torch.full((text_positions + audio_positions,), IGNORE),
            audio_targets_SC=torch.cat([torch.full_like(prompt.tokens_SC, IGNORE), shift(labels_CS.T)]),
        )

    def positions(self, frames: int, text: str | None, speaker: str = "") -> int:
        return len(self.prompt(text, speaker)) + self._check_length(frames)

    def _check_length(self, frames: int) -> int:
        """Positions of a clip's audio. Raises TooLongError if they are too many."""
        positions = frames + 2 + max(self.delays)
        if positions > self.max_audio_positions:
            raise TooLongError(
                f"a clip of {positions} positions",
                f"at most {self.max_audio_positions}",
                "train on windows of the clips, or cut them",
            )
        return positions

    # --- training -----------------------------------------------------------------------------------------------------

    def outputs(self, batch: Batch) -> dict[Stream, Output]:
        states_PD = self.states(batch)
        return {stream: Output(states_PD, head) for stream, head in self.heads().items()}

    def states(self, batch: Batch) -> Tensor:
        """Hidden states (P, D) of the positions that exist: the decoder's at audio, zeros at text."""
        places, lm = batch.places, self.lm.model
        text_ND = lm.encoder.embedding(taken(batch.text_BS, places.text_N))
        texts = Within.of(places.texts, lm.encoder.rotary_emb, text_ND)
        for layer in lm.encoder.layers:
            text_ND = recomputed(self, layer, text_ND, within=texts)
        text_ND = lm.encoder.norm(text_ND)
        [audio_MD] = lm.decoder.embeddings(taken(batch.tokens_BSC, places.audio_M)[None])
        audios = Within.of(places.audios, lm.decoder.rotary_emb, audio_MD)
        for layer in lm.decoder.layers:
            audio_MD = recomputed(self, layer, audio_MD, text_ND=text_ND, within=audios, texts=places.texts)
        audio_MD = lm.decoder.norm(audio_MD)
        row_M = (batch.exists_BS.flatten().cumsum(0) - 1)[places.audio_M]
        return audio_MD.new_zeros(len(places.exist_P), audio_MD.shape[-1]).index_copy(0, row_M, audio_MD)

    def heads(self) -> dict[Stream, Head]:
        audio_CVD = torch.unbind(torch.unflatten(self.lm.logits_dense.weight, 0, (self.codebooks, -1)))
        return {Codebook(c): Head((weight_VD,)) for c, weight_VD in enumerate(audio_CVD)}

    # --- generation ---------------------------------------------------------------------------------------------------

    def begin(self, prompts: Sequence[Prompt]) -> DiaContinuation:
        return DiaContinuation(self, prompts)


@torch.no_grad()
def _doubled(lm: DiaForConditionalGeneration) -> DiaForConditionalGeneration:
    """The same model with every codebook twice, with the same delay."""
    config: Any = HFDiaConfig(**lm.config.to_dict())
    config.decoder_config.num_channels *= 2
    config.delay_pattern *= 2
    weights = lm.state_dict()
    weights["model.decoder.embeddings.embed.weight"] = weights["model.decoder.embeddings.embed.weight"].repeat(2, 1) / 2
    weights["logits_dense.weight"] = weights["logits_dense.weight"].repeat(2, 1)
    wider: Any = DiaForConditionalGeneration(config)
    wider.load_state_dict(weights)
    return wider.to(lm.dtype)
