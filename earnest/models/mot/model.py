"""The MoT itself: which tensors it has, how it is put together and saved, how clips are laid out and scored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel
from transformers.utils.hub import cached_file

from earnest.bounds import check_heads
from earnest.data.baselines import ALPHA
from earnest.data.batch import Batch, Example, Prompt, taken
from earnest.data.masks import IGNORE, shift
from earnest.data.patterns import flatten
from earnest.data.row import Turn
from earnest.data.text import byte_tokenizer, plain_ids
from earnest.errors import TooLongError, UserError
from earnest.files import fingerprint
from earnest.models.mot.base import Base, fit_to_norm
from earnest.models.mot.config import Group, MoTDesign, MoTModelConfig, MoTShape, check
from earnest.models.mot.continuation import MoTContinuation
from earnest.models.mot.layers import MoTLayer
from earnest.models.packed import Route, recomputed
from earnest.models.system import Head, Output, System
from earnest.streams import TEXT, Codebook, Stream

# What lets AutoModel load a checkpoint, with trust_remote_code=True.
MODELING = "modeling_earnest_mot"
AUTO = {"AutoConfig": "MoTModelConfig", "AutoModel": "MoT"}
MODELING_FILE = """\
# The model is a part of the package earnest (pip install earnest[train]).
from earnest.models.mot.config import MoTModelConfig
from earnest.models.mot.model import MoT
"""


class MoT(PreTrainedModel, System):
    """The model with its tokenizer."""

    config_class = MoTModelConfig
    config: MoTModelConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["LlamaDecoderLayer", "MoTLayer"]  # noqa: RUF012 (transformers' form)

    name = "mot"
    prior_CV: Tensor
    tokenizer: PreTrainedTokenizerBase

    def __init__(self, config: MoTModelConfig):
        super().__init__(config)
        backbone = config.llama
        self.cut_texts = set[str]()
        self.codebooks, self.codes, self.max_positions = config.codebooks, config.codes, config.max_positions
        self.eos_id = config.codes if config.ends else None
        self.delays = [0] * config.codebooks
        self.bos_id = config.codes + config.ends  # an input only
        self.after_end_id = config.codes  # not used: without delays all codebooks end together
        self.text_vocab, self.audio_vocab = backbone.vocab_size, config.codes + config.ends
        self.backbone = LlamaModel(backbone)
        self.layers = nn.ModuleList(MoTLayer(config, index) for index in range(backbone.num_hidden_layers))
        sets = config.codebooks if config.rows_per_codebook else 1
        self.embed_audio = nn.Embedding(sets * config.codes + 1, backbone.hidden_size)  # the last row is BOS
        self.audio_rows = nn.Linear(backbone.hidden_size, sets * config.codes + config.ends, bias=False)
        # An output layer without text rows of its own reads the backbone's embedding, to which the backbone's is tied.
        own_text_rows = config.output == "all" or not backbone.tie_word_embeddings
        self.text_rows = nn.Linear(backbone.hidden_size, backbone.vocab_size, bias=False) if own_text_rows else None
        if config.output == "audio":
            self.register_buffer("prior_CV", torch.zeros(config.codebooks, config.codes + config.ends))
        self.post_init()
        self._freeze()

    def layer_pairs(self) -> Iterator[tuple[MoTLayer, LlamaDecoderLayer]]:
        """Per layer the audio's part, and the backbone's own."""
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
        """Freeze what is not trained, and what only predictions of text would train, as no text is scored."""
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

    # --- from its parts, to a checkpoint and back ---------------------------------------------------------------------

    @classmethod
    def assemble(
        cls, codebooks: int, codes: int, design: MoTDesign, shape: MoTShape, backbone: str = "", experts: str = ""
    ) -> "MoT":
        """A fresh model for a codec of `codebooks` codebooks with `codes` entries each.

        backbone, experts: checkpoints (see `load_backbone`, `load_experts`); without one, random weights of `shape`'s
        sizes. New rows start at a tenth of the embedding's spread: as large as text rows they would outweigh these, at
        zero all would be equal. Input rows that are trained start at a fiftieth, so that training soon outweighs their
        random start; output rows of audio alone at a thousandth, as larger ones would add noise to the prior (see
        `set_prior`). Raises UserError if the parts do not fit together.
        """
        if not backbone:
            check_heads("--shape.", shape.width, shape.heads, shape.kv_heads)
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
        base = Base.load(backbone, experts, design.expert_layers, fresh)
        check(design, codebooks, base.llama.config.max_position_embeddings)
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
        model._read_with(base.tokenizer or tokenizer)
        with torch.no_grad():
            if model.text_rows is not None:
                model.text_rows.weight.copy_(base.llama.lm_head.weight)
            for layer, block in model.layer_pairs():
                layer.expert.up.weight.zero_()
                fit_to_norm(block.post_attention_layernorm, layer.expert.down)
                if layer.attention is not None and design.attention == "new":
                    own = layer.attention
                    fit_to_norm(block.input_layernorm, own.q_proj, own.k_proj, own.v_proj)
            spread = model.backbone.embed_tokens.weight.std()
            model.embed_audio.weight.normal_().mul_((0.02 if "embeddings" in design.trained else 0.1) * spread)
            model.audio_rows.weight.normal_().mul_((0.001 if config.output == "audio" else 0.1) * spread)
        return model

    def _read_with(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.pad_id = cast(int, end if begin is None else begin)  # a text begins with the same id

    def _take(self, base: Base) -> None:
        """Copy the backbone's weights, also into the audio's attention if that is a copy, and the experts' if there are
        any."""
        self.backbone.load_state_dict(base.llama.model.state_dict())
        for layer, block in self.layer_pairs():
            if layer.attention is not None and self.config.attention == "copied":
                layer.attention.load_state_dict(block.self_attn.state_dict())
        for (layer, _), network in zip(self.layer_pairs(), base.networks, strict=False):  # none, or one for each layer
            layer.expert.fc1.load_state_dict({"weight": network["fc1"]})
            layer.expert.fc2.load_state_dict({"weight": network["fc2"]})

    def base(self) -> dict[str, Tensor]:
        """The frozen tensors that can be read again from the checkpoints that `config` names."""
        named = {"backbone": self.config.backbone, "attention": self.config.backbone, "experts": self.config.experts}
        groups = {group for group, source in named.items() if source and group not in self.config.trained}
        return {name: parameter for name, parameter in self.named_parameters() if self.group_of(name) in groups}

    def save_pretrained(self, save_directory: str | Path, whole: bool = False, **kwargs: Any) -> None:  # type: ignore[override]
        """Write config, tokenizer and weights; of `base()` only a hash, unless `whole`."""
        base = {} if whole else self.base()
        self.config.base_sha256 = fingerprint(base) if base else ""
        state = {name: tensor for name, tensor in self.state_dict().items() if name not in base}
        self.config.auto_map = {name: f"{MODELING}.{own}" for name, own in AUTO.items()}  # type: ignore[attr-defined]
        super().save_pretrained(save_directory, state_dict=state, **kwargs)
        (Path(save_directory) / f"{MODELING}.py").write_text(MODELING_FILE, encoding="utf-8")
        self.tokenizer.save_pretrained(save_directory)

    @classmethod
    def from_pretrained(cls, path: str | Path, *args: Any, **kwargs: Any) -> "MoT":  # type: ignore[override]
        """Load what `save_pretrained` wrote, and a base that was not written from its own checkpoints.

        Raises UserError if that is another base than the one that the checkpoint was trained on.
        """
        config = MoTModelConfig.from_pretrained(path)
        if config.base_sha256:
            model = cls._on_its_base(config, path)
        else:
            model = super().from_pretrained(path, *args, **kwargs)
            model._freeze()
        model._read_with(AutoTokenizer.from_pretrained(path))
        return model

    @classmethod
    def _on_its_base(cls, config: MoTModelConfig, path: str | Path) -> "MoT":
        model = cls(config)
        model._take(Base.load(config.backbone, config.experts, config.expert_layers, config.llama))
        base = model.base()
        if fingerprint(base) != config.base_sha256:
            sources = " and ".join(filter(None, (config.backbone, config.experts)))
            raise UserError(
                f"{sources} with weights {fingerprint(base)[:16]}…",
                f"weights {config.base_sha256[:16]}…, which {path} was trained on",
                "put the base back that the training read, or train on this one",
            )
        state = load_file(str(cached_file(path, "model.safetensors")))
        keys = model.load_state_dict(state, strict=False)
        missing: list[str] = keys.missing_keys
        unexpected: list[str] = keys.unexpected_keys
        if unexpected or set(missing) != set(base):
            wrong = sorted({*unexpected, *(set(missing) ^ set(base))})
            raise UserError(
                f"tensors {', '.join(wrong[:5])} in {path}",
                "those of its config.json",
                "copy the whole checkpoint anew",
            )
        return model

    # --- from a clip to positions -------------------------------------------------------------------------------------

    def prompt(self, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None) -> Prompt:
        """BOS and the text, with the speaker before it if there is one; the null input is the empty text.

        Raises UserError if the text is longer than its window.
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
        does. A text longer than its window is cut.

        Raises UserError if the codes are not of this model's codebooks, or the clip is longer than the context.
        """
        self.refuse_conversation(turns)
        assert codes_CT is not None
        self.check_codes(codes_CT)
        codebooks, frames = codes_CT.shape
        prompt = self._text_only(self._windowed(text, speaker))
        start, positions = len(prompt), self._check_length(len(prompt), frames)
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

    def positions(self, frames: int, text: str | None, speaker: str = "") -> int:
        return self._check_length(len(self._windowed(text, speaker)), frames)

    def _windowed(self, text: str | None, speaker: str) -> list[int]:
        """The ids of a text that are within its window."""
        ids_L = self._ids(": ".join(filter(None, (speaker, text))))
        if len(ids_L) > self.config.text_window:
            self.cut_texts.add(text or "")
        return ids_L[: self.config.text_window]

    def _check_length(self, texts: int, frames: int) -> int:
        """Positions of a clip. Raises TooLongError if they are too many."""
        positions = texts + 1 + self.codebooks * frames
        if positions > self.max_positions:
            raise TooLongError(
                f"a clip of {positions} positions ({self.codebooks} per frame)",
                f"at most {self.max_positions}",
                "cut the clips (--data.window-s), or raise --design.max-positions",
            )
        return positions

    def text_of(self, ids_L: Sequence[int]) -> str:
        return cast(str, self.tokenizer.decode(list(ids_L)))

    def lay_out_text(self, text: str) -> Example:
        """Text alone, every token of it counted: its cross-entropy tells whether the backbone still reads as before."""
        prompt = self._text_only(self._ids(text))
        return Example(
            **vars(prompt),
            text_targets_S=shift(prompt.text_S),
            audio_targets_SC=torch.full_like(prompt.tokens_SC, IGNORE),
        )

    def _ids(self, text: str) -> list[int]:
        return [self.pad_id, *plain_ids(self.tokenizer, text)]

    def _text_only(self, ids_L: list[int]) -> Prompt:
        return Prompt(
            text_S=torch.tensor(ids_L),
            tokens_SC=torch.zeros(len(ids_L), self.codebooks, dtype=torch.long),
            is_audio_S=torch.zeros(len(ids_L), dtype=torch.bool),
        )

    @torch.no_grad()
    def set_prior(self, counts: Mapping[Stream, Mapping[int, int]]) -> None:
        """Let a fresh model of audio rows alone predict each code with its smoothed frequency among the targets.
        counts: stream -> {code: how often}."""
        for c, prior_V in enumerate(self.prior_CV):
            count_V = torch.full_like(prior_V, ALPHA)
            for code, count in counts[Codebook(c)].items():
                count_V[code] += count
            prior_V.copy_((count_V / count_V.sum()).log())

    # --- training -----------------------------------------------------------------------------------------------------

    def outputs(self, batch: Batch) -> dict[Stream, Output]:
        states_PD = self.states(batch)
        return {stream: Output(states_PD, head) for stream, head in self.heads().items()}

    def states(self, batch: Batch) -> Tensor:
        """Hidden states (P, D) of the positions that exist.

        Text comes first, so its states depend on no audio: if the backbone is frozen, autograd keeps nothing of them.
        """
        places = batch.places
        route = Route.of(batch, self.backbone.rotary_emb, self.embed_audio.weight)
        text_N = taken(batch.text_BS, places.text_N)
        token_M = taken(batch.tokens_BSC[..., 0], places.audio_M)
        order_M = taken(batch.is_audio_BS.cumsum(1) - 1, places.audio_M)
        text_ND, audio_MD = self.backbone.embed_tokens(text_N), self.embedded(token_M, order_M)
        for layer, block in self.layer_pairs():
            text_ND, audio_MD = recomputed(self, layer, text_ND, audio_MD, block=block, route=route)
        return self.backbone.norm(route.joined(text_ND, audio_MD))

    def embedded(self, token_M: Tensor, order_M: Tensor) -> Tensor:
        """Input rows of audio tokens. order: how many audio tokens precede each, BOS included."""
        row_M = token_M + self.codes * ((order_M - 1) % self.codebooks) if self.config.rows_per_codebook else token_M
        return self.embed_audio(torch.where(token_M == self.bos_id, self.embed_audio.num_embeddings - 1, row_M))

    def heads(self) -> dict[Stream, Head]:
        """Per codebook the rows that predict its codes; the row of the end comes after those of the first codebook."""
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

    # --- generation ---------------------------------------------------------------------------------------------------

    def begin(self, prompts: Sequence[Prompt]) -> MoTContinuation:
        return MoTContinuation(self, prompts)
