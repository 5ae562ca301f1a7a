"""A mixture of transformers for music: a Llama reads text, MusicGen's feed-forward networks carry the audio.

Each layer has the Llama's norms and attention; a text position goes through the Llama's own MLP, an audio position
through down → MusicGen's FFN → up. Attention is global and causal over both. Which position takes which way is known
from the layout (arXiv:2411.04996 §3), so the positions of a batch are sorted by modality once, and every linear layer
works on one block.

Audio tokens are flattened in time-major order, one position a code; the vocabulary is the Llama's plus the codec's.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from huggingface_hub.dataclasses import strict
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoTokenizer,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaModel
from transformers.utils.hub import cached_file

from earnest.data.baselines import ALPHA
from earnest.data.batch import Batch, Example, Prompt
from earnest.data.masks import IGNORE, shift
from earnest.data.patterns import flatten
from earnest.data.row import Turn
from earnest.data.text import byte_tokenizer
from earnest.errors import TooLongError, UserError
from earnest.files import fingerprint
from earnest.models.backbones import load_backbone, load_experts
from earnest.models.packed import Route
from earnest.models.system import Continuation, Head, Output, Round, System
from earnest.streams import TEXT, Codebook, Stream

Group = Literal["adapters", "output", "embeddings", "experts", "attention", "backbone"]


@dataclass(frozen=True)
class MoTDesign:
    """How text and audio are joined. The defaults are SLM-MoT's, as far as a parameter of it does something."""

    trained: tuple[Group, ...] = ("adapters", "output")
    """What is trained: adapters (down and up projections), output (rows of the output layer), embeddings (input rows of
    the codes), experts (the audio feed-forward networks), attention (the audio's own projections), backbone (the
    Llama). All else is frozen."""
    attention: Literal["copied", "new", "shared"] = "copied"
    """Audio positions have query, key, value and output projections of their own, copied from the backbone's or with
    random weights, or share the backbone's. New ones must be trained. SmolLM2's swamp codes with what they add at all
    positions alike (docs/log.md)."""
    output: Literal["all", "new", "audio"] = "all"
    """The output layer: all rows, the text's being a copy that is trained with the audio's; the new audio rows beside
    the backbone's frozen text rows; or audio rows alone, over which then the softmax goes, and which begin with the
    frequencies of the codes."""
    output_multiplier: float = 1.0
    """Of audio rows alone: below 1 they learn more slowly than the rest, at one learning rate (as in muP,
    arXiv:2203.03466)."""
    rows_per_codebook: bool = False
    """Every codebook has embedding and output rows of its own; else one set serves all, and only the position tells
    them apart."""
    ends: bool = False
    """One more output row says that the audio ends. Without it, generation goes on to the length asked for."""
    expert_layers: tuple[int, ...] = ()
    """Which decoder layer of the experts goes into each layer of the backbone; empty for the first ones in their
    order."""
    text_window: int = 32
    """Most tokens of a text, BOS included."""
    max_positions: int = 1024
    """Context: text, the audio's BOS, and one position per code."""


@dataclass(frozen=True)
class MoTShape:
    """Sizes of what is not loaded from a checkpoint: a backbone with random weights and a byte tokenizer, and random
    experts."""

    width: int = 256
    """Width of the backbone's residual stream."""
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 512
    """Inner width of the backbone's feed-forward networks."""
    expert_width: int = 128
    """Width that the audio's adapters project down to."""
    expert_ffn: int = 512
    """Inner width of the audio's feed-forward networks."""
    vocabulary: int | None = None
    """Rows of the backbone's embedding; as many as the byte tokenizer has tokens, if not given."""


@strict
class MoTModelConfig(PreTrainedConfig):
    """Everything that a MoT's tensors follow from: the backbone's configuration, sizes of audio and experts,
    `MoTDesign`'s fields.

    `backbone`, `experts`: names or paths that frozen weights came from; `base_sha256`: of these weights, where a
    checkpoint goes without them.
    """

    model_type = "earnest-mot"
    sub_configs = {"backbone_config": LlamaConfig}  # type: ignore[assignment]  # noqa: RUF012 (transformers' form)

    backbone_config: LlamaConfig | dict | None = None
    codebooks: int = 4
    codes: int = 2048
    expert_width: int = 1024
    expert_ffn: int = 4096
    expert_activation: str = "gelu"
    trained: list[str] | tuple[str, ...] = MoTDesign.trained
    attention: str = MoTDesign.attention
    output: str = MoTDesign.output
    output_multiplier: float = MoTDesign.output_multiplier
    rows_per_codebook: bool = MoTDesign.rows_per_codebook
    ends: bool = MoTDesign.ends
    expert_layers: list[int] | tuple[int, ...] = MoTDesign.expert_layers
    text_window: int = MoTDesign.text_window
    max_positions: int = MoTDesign.max_positions
    backbone: str = ""
    experts: str = ""
    base_sha256: str = ""

    def __post_init__(self, **kwargs):
        if not isinstance(self.backbone_config, LlamaConfig):
            self.backbone_config = LlamaConfig(**(self.backbone_config or {}))
        super().__post_init__(**kwargs)

    @property
    def llama(self) -> LlamaConfig:
        return cast(LlamaConfig, self.backbone_config)


AutoConfig.register(MoTModelConfig.model_type, MoTModelConfig)  # AutoTokenizer reads the config beside the tokenizer


class AudioExpert(nn.Module):
    """down → fc1 → activation → fc2 → up, without biases: MusicGen's feed-forward network between two adapters.

    In a fresh model `up` is zero (LoRA's start, arXiv:2106.09685 §4.1): the audio expert adds nothing to the residual
    stream yet.
    """

    def __init__(self, width: int, expert_width: int, expert_ffn: int, activation: str):
        super().__init__()
        self.down = nn.Linear(width, expert_width, bias=False)
        self.fc1 = nn.Linear(expert_width, expert_ffn, bias=False)
        self.act = ACT2FN[activation]
        self.fc2 = nn.Linear(expert_ffn, expert_width, bias=False)
        self.up = nn.Linear(expert_width, width, bias=False)

    def forward(self, audio_MD: Tensor) -> Tensor:
        return self.up(self.fc2(self.act(self.fc1(self.down(audio_MD)))))


class MoTLayer(GradientCheckpointingLayer):
    """What a layer has beside the backbone's own: the audio expert, and the audio's attention where it is not
    shared."""

    def __init__(self, config: MoTModelConfig, index: int):
        super().__init__()
        self.attention = LlamaAttention(config.llama, index) if config.attention != "shared" else None
        self.expert = AudioExpert(
            config.llama.hidden_size, config.expert_width, config.expert_ffn, config.expert_activation
        )

    def forward(
        self, text_ND: Tensor, audio_MD: Tensor, block: LlamaDecoderLayer, route: Route
    ) -> tuple[Tensor, Tensor]:
        """Both blocks through one layer. Nothing is detached: later positions teach earlier ones through keys and
        values."""
        text_attention, audio_attention = block.self_attn, self.attention or block.self_attn
        text_in_ND, audio_in_MD = block.input_layernorm(text_ND), block.input_layernorm(audio_MD)
        q_PHD, k_PHD, v_PHD = (
            route.joined(
                getattr(text_attention, name)(text_in_ND), getattr(audio_attention, name)(audio_in_MD)
            ).unflatten(-1, (-1, text_attention.head_dim))
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed_ND, mixed_MD = route.parted(route.attend(q_PHD, k_PHD, v_PHD).flatten(1))
        text_ND = text_ND + text_attention.o_proj(mixed_ND)
        audio_MD = audio_MD + audio_attention.o_proj(mixed_MD)
        text_ND = text_ND + block.mlp(block.post_attention_layernorm(text_ND))
        audio_MD = audio_MD + self.expert(block.post_attention_layernorm(audio_MD))
        return text_ND, audio_MD

    def advance(self, audio_B1D: Tensor, block: LlamaDecoderLayer, **context) -> Tensor:
        """One audio position more of each sequence; `context`: position_embeddings, attention_mask, past_key_values."""
        mixed_B1D, _ = (self.attention or block.self_attn)(block.input_layernorm(audio_B1D), **context)
        audio_B1D = audio_B1D + mixed_B1D
        return audio_B1D + self.expert(block.post_attention_layernorm(audio_B1D))


class MoT(PreTrainedModel, System):
    """The model with its tokenizer: lays clips out, runs them, and advances one code at a time."""

    config_class = MoTModelConfig
    config: MoTModelConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["LlamaDecoderLayer", "MoTLayer"]  # noqa: RUF012 (transformers' form)

    prior_CV: Tensor
    name = "mot"
    tokenizer: PreTrainedTokenizerBase

    def __init__(self, config: MoTModelConfig):
        super().__init__(config)
        backbone = config.llama
        self.codebooks, self.codes, self.max_positions = config.codebooks, config.codes, config.max_positions
        self.eos_id = config.codes if config.ends else None
        self.delays = [0] * config.codebooks
        self.bos_id = config.codes + config.ends  # stands only in the input
        self.after_end_id = config.codes  # nothing follows an end: without delays no codebook waits for another
        self.text_vocab, self.audio_vocab = backbone.vocab_size, config.codes + config.ends
        self.backbone = LlamaModel(backbone)
        self.layers = nn.ModuleList(MoTLayer(config, index) for index in range(backbone.num_hidden_layers))
        sets = config.codebooks if config.rows_per_codebook else 1
        self.embed_audio = nn.Embedding(sets * config.codes + 1, backbone.hidden_size)  # the last row is BOS
        self.audio_rows = nn.Linear(backbone.hidden_size, sets * config.codes + config.ends, bias=False)
        # Without rows of its own, the output layer's text rows are the backbone's embedding: its output layer is tied
        # to it.
        own_text_rows = config.output == "all" or not backbone.tie_word_embeddings
        self.text_rows = nn.Linear(backbone.hidden_size, backbone.vocab_size, bias=False) if own_text_rows else None
        if config.output == "audio":
            self.register_buffer("prior_CV", torch.zeros(config.codebooks, config.codes + config.ends))
        self.post_init()
        self._freeze()

    def both(self) -> Iterator[tuple[MoTLayer, LlamaDecoderLayer]]:
        """Per layer what belongs to the audio, and the backbone's own."""
        pairs = zip(self.layers, self.backbone.layers, strict=True)
        yield from cast(Iterator[tuple[MoTLayer, LlamaDecoderLayer]], pairs)

    def group_of(self, name: str) -> Group:
        """Which of `MoTDesign.trained`'s groups a parameter belongs to."""
        if name == "text_rows.weight":
            return "output" if self.config.output == "all" else "backbone"
        if name == "audio_rows.weight":
            return "output"
        if name.startswith("layers."):
            part, of = name.split(".")[2:4]
            return "attention" if part == "attention" else "adapters" if of in ("down", "up") else "experts"
        return "embeddings" if name.startswith("embed_audio.") else "backbone"

    def _freeze(self) -> None:
        """Freeze what is not trained; also what only text's own prediction would train, as no text is scored."""
        last = f"backbone.layers.{len(self.layers) - 1}."
        text_only = [f"{last}mlp."]
        if self.config.attention != "shared":
            text_only += [f"{last}self_attn.q_proj.", f"{last}self_attn.o_proj."]
        if self.config.output == "audio":
            text_only.append("text_rows.")
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(
                self.group_of(name) in self.config.trained and not name.startswith(tuple(text_only))
            )

    # --- from its parts, to a checkpoint and back
    # -------------------------------------------------------------------------

    @classmethod
    def assemble(
        cls, codebooks: int, codes: int, design: MoTDesign, shape: MoTShape, backbone: str = "", experts: str = ""
    ) -> "MoT":
        """A fresh model for a codec of `codebooks` codebooks with `codes` entries each.

        backbone, experts: checkpoints (see `load_backbone`, `load_experts`); without one, random weights of `shape`'s
        sizes. New rows start at a tenth of the embedding's spread: as large as text rows they would be loud, at zero
        all alike. Input rows that are trained start at a fiftieth, so that what is learnt of a code soon outweighs what
        it drew; output rows of audio alone at a thousandth: to what a model expects (see `expect`) larger ones would
        add noise. Raises UserError where the parts do not go together.
        """
        tokenizer = byte_tokenizer()
        fresh = LlamaConfig(
            vocab_size=shape.vocabulary or len(tokenizer),
            hidden_size=shape.width,
            intermediate_size=shape.ffn,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=design.max_positions,
            tie_word_embeddings=True,
        )
        base = _Base.load(backbone, experts, design.expert_layers, fresh)
        _check(design, codebooks, base.llama.config.max_position_embeddings)
        config = MoTModelConfig(
            backbone_config=base.llama.config,
            codebooks=codebooks,
            codes=codes,
            expert_width=base.networks[0]["fc1"].shape[1] if base.networks else shape.expert_width,
            expert_ffn=base.networks[0]["fc1"].shape[0] if base.networks else shape.expert_ffn,
            expert_activation=base.activation,
            backbone=backbone,
            experts=experts,
            **asdict(design),
        )
        model = cls(config)
        model._take(base)
        model.tokenizer = base.tokenizer or tokenizer
        with torch.no_grad():
            if model.text_rows is not None:
                model.text_rows.weight.copy_(base.llama.lm_head.weight)
            for layer, block in model.both():
                layer.expert.up.weight.zero_()
                _fit(block.post_attention_layernorm, layer.expert.down)
                if layer.attention is not None and design.attention == "new":
                    _fit(block.input_layernorm, layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj)
            spread = model.backbone.embed_tokens.weight.std()
            model.embed_audio.weight.normal_().mul_((0.02 if "embeddings" in design.trained else 0.1) * spread)
            model.audio_rows.weight.normal_().mul_((0.001 if config.output == "audio" else 0.1) * spread)
        return model

    def _take(self, base: "_Base") -> None:
        """Copy the backbone's weights, into the audio's attention too where that is a copy, and the experts' where
        there are some."""
        self.backbone.load_state_dict(base.llama.model.state_dict())
        for layer, block in self.both():
            if layer.attention is not None and self.config.attention == "copied":
                layer.attention.load_state_dict(block.self_attn.state_dict())
        for (layer, _), network in zip(self.both(), base.networks, strict=False):  # none, or one for each layer
            layer.expert.fc1.load_state_dict({"weight": network["fc1"]})
            layer.expert.fc2.load_state_dict({"weight": network["fc2"]})

    def base(self) -> dict[str, Tensor]:
        """The frozen tensors that can be had again from the checkpoints that `config` names."""
        named = {"backbone": self.config.backbone, "attention": self.config.backbone, "experts": self.config.experts}
        groups = {group for group, source in named.items() if source and group not in self.config.trained}
        return {name: parameter for name, parameter in self.named_parameters() if self.group_of(name) in groups}

    def save_pretrained(self, save_directory: str | Path, whole: bool = False, **kwargs) -> None:  # type: ignore[override]
        """Write config, tokenizer and weights; `base()` stays out unless `whole`, and only its hash is written."""
        base = {} if whole else self.base()
        self.config.base_sha256 = fingerprint(base) if base else ""
        state = {name: tensor for name, tensor in self.state_dict().items() if name not in base}
        super().save_pretrained(save_directory, state_dict=state, **kwargs)
        self.tokenizer.save_pretrained(save_directory)

    @classmethod
    def from_pretrained(cls, path: str | Path, *args, **kwargs) -> "MoT":  # type: ignore[override]
        """Load what `save_pretrained` wrote; the base, where it stayed out, from where it came from.

        Raises UserError where that is another base than the one that the checkpoint was trained on.
        """
        config = MoTModelConfig.from_pretrained(path)
        if config.base_sha256:
            model = cls(config)
            model._take(_Base.load(config.backbone, config.experts, config.expert_layers, config.llama))
            base = model.base()
            if fingerprint(base) != config.base_sha256:
                sources = " and ".join(filter(None, (config.backbone, config.experts)))
                raise UserError(
                    f"{sources} with weights {fingerprint(base)[:16]}…",
                    f"weights {config.base_sha256[:16]}…, which {path} was trained on",
                    "put the base back that the training read, or train on this one",
                )
            state = load_file(str(cached_file(path, "model.safetensors")))
            missing, unexpected = model.load_state_dict(state, strict=False)
            if unexpected or set(missing) != set(base):
                wrong = sorted({*unexpected, *(set(missing) ^ set(base))})
                raise UserError(
                    f"tensors {', '.join(wrong[:5])} in {path}",
                    "those of its config.json",
                    "copy the whole checkpoint anew",
                )
        else:
            model = super().from_pretrained(path, *args, **kwargs)
            model._freeze()
        model.tokenizer = AutoTokenizer.from_pretrained(path)
        return model

    @property
    def pad_id(self) -> int:
        return self._begin_id

    @property
    def _begin_id(self) -> int:
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return cast(int, end if begin is None else begin)

    # --- from a clip to positions
    # -------------------------------------------------------------------------------------------

    def prompt(self, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None) -> Prompt:
        """What stands before the audio: BOS and the text, led by the speaker where there is one; None is the empty
        text.

        Raises UserError where the text is longer than its window.
        """
        self.refuse_conversation(turns)
        ids_L = self._ids(": ".join(filter(None, (speaker, text))))
        if len(ids_L) > self.config.text_window:
            raise TooLongError(
                f"a text of {len(ids_L)} tokens ({(text or '')[:40]!r}…)",
                f"at most {self.config.text_window}, the text's window",
                "shorten the text, or raise --design.text-window",
            )
        return self._text_only(ids_L)

    def lay_out(
        self, codes_CT: Tensor | None, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None
    ) -> Example:
        """Prompt, BOS of the audio, then frame by frame the codes of all codebooks; every code counts, and no text
        does.

        Raises UserError where the codes are not of this model's codebooks, or the clip is longer than the context.
        """
        self.refuse_conversation(turns)
        assert codes_CT is not None
        codebooks, frames = codes_CT.shape
        if codebooks != self.codebooks or int(codes_CT.max()) >= self.codes:
            raise UserError(
                f"codes of {codebooks} codebooks with ids up to {int(codes_CT.max())}",
                f"{self.codebooks} codebooks with ids below {self.codes}",
                "take the codec that this model was made for",
            )
        prompt = self.prompt(text, speaker)
        start, positions = len(prompt), len(prompt) + 1 + codebooks * frames
        if positions > self.max_positions:
            raise TooLongError(
                f"a clip of {positions} positions ({codebooks} per frame)",
                f"at most {self.max_positions}",
                "cut the clips (--data.window-s), or raise --design.max-positions",
            )
        audio_A = torch.cat([codes_CT.new_tensor([self.bos_id]), flatten(codes_CT)]).long()
        labels_A = audio_A.clone()
        labels_A[0] = IGNORE
        if self.eos_id is not None:
            labels_A = torch.cat([labels_A, labels_A.new_tensor([self.eos_id])])
        targets_A = shift(labels_A)[: len(audio_A)]
        tokens_SC = torch.cat([prompt.tokens_SC, audio_A[:, None].expand(-1, codebooks)])
        audio_targets_SC = torch.full_like(tokens_SC, IGNORE)
        audio_targets_SC[torch.arange(start, positions), torch.arange(len(audio_A)) % codebooks] = targets_A
        text_S = torch.cat([prompt.text_S, torch.full((len(audio_A),), self.pad_id)])
        is_audio_S = torch.arange(positions) >= start
        return Example(text_S, tokens_SC, is_audio_S, torch.full_like(text_S, IGNORE), audio_targets_SC)

    def text_of(self, ids_L: Sequence[int]) -> str:
        return cast(str, self.tokenizer.decode(list(ids_L)))

    def lay_out_text(self, text: str) -> Example:
        """Text alone, every token of it counted: what tells whether the backbone still reads as it did."""
        prompt = self._text_only(self._ids(text))
        return Example(
            **vars(prompt),
            text_targets_S=shift(prompt.text_S),
            audio_targets_SC=torch.full_like(prompt.tokens_SC, IGNORE),
        )

    def _ids(self, text: str) -> list[int]:
        """User text cannot smuggle in special tokens: it is encoded with ``split_special_tokens``."""
        return [self._begin_id, *self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)]

    def _text_only(self, ids_L: list[int]) -> Prompt:
        return Prompt(
            text_S=torch.tensor(ids_L),
            tokens_SC=torch.zeros(len(ids_L), self.codebooks, dtype=torch.long),
            is_audio_S=torch.zeros(len(ids_L), dtype=torch.bool),
        )

    @torch.no_grad()
    def expect(self, counts: Mapping[Stream, Mapping[int, int]]) -> None:
        """Let a fresh model of audio rows alone predict each code as often as it is a target (`counts`: stream ->
        {code: how often}), and half a time more."""
        for c, prior_V in enumerate(self.prior_CV):
            count_V = torch.full_like(prior_V, ALPHA)
            for code, count in counts[Codebook(c)].items():
                count_V[code] += count
            prior_V.copy_((count_V / count_V.sum()).log())

    # --- training
    # -------------------------------------------------------------------------------------------------------------

    def outputs(self, batch: Batch) -> dict[Stream, Output]:
        states_PD = self.states(batch)
        return {stream: Output(states_PD, head) for stream, head in self.heads().items()}

    def states(self, batch: Batch) -> Tensor:
        """Hidden states (P, D) of the positions that exist.

        Text stands first, so its states depend on no audio: where the backbone is frozen, autograd keeps nothing of
        them.
        """
        exists_BS = batch.exists_BS
        route = Route.of(batch, self.backbone.rotary_emb, self.embed_audio.weight)
        text_N, _ = route.parted(batch.text_BS[exists_BS])
        _, token_M = route.parted(batch.tokens_BSC[..., 0][exists_BS])
        _, order_M = route.parted((batch.is_audio_BS.cumsum(1) - 1)[exists_BS])
        text_ND, audio_MD = self.backbone.embed_tokens(text_N), self.embedded(token_M, order_M)
        for layer, block in self.both():
            text_ND, audio_MD = layer(text_ND, audio_MD, block=block, route=route)
        return self.backbone.norm(route.joined(text_ND, audio_MD))

    def embedded(self, token_M: Tensor, order_M: Tensor) -> Tensor:
        """Input rows of audio tokens; order: how many audio tokens stand before, BOS included."""
        row_M = token_M + self.codes * ((order_M - 1) % self.codebooks) if self.config.rows_per_codebook else token_M
        return self.embed_audio(torch.where(token_M == self.bos_id, self.embed_audio.num_embeddings - 1, row_M))

    def heads(self) -> dict[Stream, Head]:
        """Per codebook the rows that its codes are predicted with; the end has a row behind those of the first
        codebook."""
        text_VD = (self.text_rows or self.backbone.embed_tokens).weight
        audio_VD = self.audio_rows.weight
        if self.config.output_multiplier != 1:
            audio_VD = audio_VD * self.config.output_multiplier
        heads: dict[Stream, Head] = {}
        row = 0
        for c in range(self.codebooks):
            ids = self.codes + (self.config.ends and c == 0)
            if self.config.output == "audio":
                rows_VD = audio_VD[row : row + ids] if self.config.rows_per_codebook else audio_VD
                heads[Codebook(c)] = Head((rows_VD,), 0, ids, self.prior_CV[c, : len(rows_VD)])
            else:
                heads[Codebook(c)] = Head((text_VD, audio_VD), len(text_VD) + row, ids)
            row += ids if self.config.rows_per_codebook else 0
        beside = () if self.config.output == "audio" else (audio_VD,)
        return {TEXT: Head((text_VD, *beside), 0, len(text_VD)), **heads}

    # --- generation
    # -----------------------------------------------------------------------------------------------------------

    def begin(self, prompts: Sequence[Prompt]) -> "MoTContinuation":
        return MoTContinuation(self, prompts)


class MoTContinuation(Continuation):
    """A batch of sequences that is being continued: the key-value cache, which of its positions exist, and how many
    audio tokens there are."""

    def __init__(self, model: MoT, prompts: Sequence[Prompt]):
        self.model = model
        self.cache = DynamicCache(config=model.config.llama)
        self.heads = model.heads()
        self.tokens = 0
        lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        longest = int(lengths_B.max())
        self.exists_BS = torch.arange(longest, device=model.device)[None] >= longest - lengths_B[:, None]
        text_BS = pad_sequence([prompt.text_S for prompt in prompts], True, model.pad_id, "left").to(model.device)
        position_BS = (self.exists_BS.cumsum(1) - 1).clamp(min=0)
        model.backbone(text_BS, self.exists_BS, position_BS, past_key_values=self.cache, use_cache=True)

    def rounds(self, frame_BC: Tensor) -> Generator[Round, Tensor, None]:
        """One round per codebook. Of a frame only the last token is not appended yet."""
        token_B1 = frame_BC[:, -1:]
        for c in range(self.model.codebooks):
            token_B1 = yield Round(slice(c, c + 1), self.advance(token_B1))

    def advance(self, token_B1: Tensor) -> Tensor:
        """Append one token (B, 1); returns the logits (B, 1, V) of the next: the codes and, if the model has one, the
        end, -inf between the codes of a frame."""
        model, backbone = self.model, self.model.backbone
        audio_B1D = model.embedded(token_B1, torch.full_like(token_B1, self.tokens))
        position_embeddings = backbone.rotary_emb(audio_B1D, position_ids=self.exists_BS.sum(1, keepdim=True))
        self.exists_BS = torch.cat([self.exists_BS, self.exists_BS.new_ones(len(token_B1), 1)], dim=1)
        mask_B11S = self.exists_BS[:, None, None]
        for layer, block in model.both():
            audio_B1D = layer.advance(
                audio_B1D,
                block,
                position_embeddings=position_embeddings,
                attention_mask=mask_B11S,
                past_key_values=self.cache,
            )
        logits_B1V = self.heads[Codebook(self.tokens % model.codebooks)].logits(backbone.norm(audio_B1D))
        self.tokens += 1
        return F.pad(logits_B1V, (0, model.bos_id - logits_B1V.shape[-1]), value=-torch.inf)


@dataclass(frozen=True)
class _Base:
    """What a MoT is built on: a Llama with its tokenizer (None: a fresh Llama), and for each of its layers MusicGen's
    feed-forward network (none at all: fresh ones)."""

    llama: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase | None
    networks: list[dict[str, Tensor]]
    activation: str

    @classmethod
    def load(cls, backbone: str, experts: str, expert_layers: Sequence[int], fresh: LlamaConfig) -> "_Base":
        """Read the checkpoints named; without a backbone named, make one of the configuration `fresh`.

        Raises UserError where there is no expert for a layer.
        """
        llama, tokenizer = load_backbone(backbone) if backbone else (LlamaForCausalLM(fresh), None)
        if not experts:
            return cls(llama, tokenizer, [], "gelu")
        networks, activation = load_experts(experts)
        layers = llama.config.num_hidden_layers
        chosen = list(expert_layers) or list(range(layers))
        if len(chosen) != layers or not all(0 <= layer < len(networks) for layer in chosen):
            raise UserError(
                f"a backbone of {layers} layers and experts of {len(networks)}, with expert layers {chosen}",
                f"for each of the {layers} layers one of the experts' layers 0 to {len(networks) - 1}",
                "name them with --design.expert-layers (one may serve several times), or take experts with more layers",
            )
        return cls(llama, tokenizer, [networks[layer] for layer in chosen], activation)


def _fit(norm: nn.Module, *readers: nn.Linear) -> None:
    """Fresh weights are made for states of size one; a trained norm's weights are smaller (in SmolLM2 from 0.04), and
    would hush them."""
    size = cast(Tensor, norm.weight).square().mean().sqrt()
    for reader in readers:
        reader.weight.div_(size)


def _check(design: MoTDesign, codebooks: int, context: int) -> None:
    if design.output != "audio" and design.output_multiplier != 1:
        raise UserError(
            f"an output multiplier of {design.output_multiplier:g} with text rows in the output layer",
            "1, or an output layer of audio rows alone",
            "set --design.output audio, or --design.output-multiplier 1",
        )
    needed = design.text_window + 1 + codebooks
    if not needed <= design.max_positions <= context:
        raise UserError(
            f"{design.max_positions} positions for a text of {design.text_window} tokens and audio",
            f"from {needed}, which hold one frame, to the backbone's {context}",
            "change --design.max-positions or --design.text-window",
        )
    if design.attention == "shared" and "attention" in design.trained:
        raise UserError(
            "attention among what is trained, and shared with the backbone",
            "attention of the audio's own, or a trained backbone",
            "set --design.attention copied, or name backbone instead",
        )
    if design.attention == "new" and "attention" not in design.trained:
        raise UserError(
            "new attention that is not among what is trained",
            "new attention that is trained, or the backbone's",
            "name attention in --design.trained, or set --design.attention copied",
        )
