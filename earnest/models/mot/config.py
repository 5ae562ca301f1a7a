"""How a MoT is put together: its design, its sizes, and the configuration that a checkpoint holds."""

from dataclasses import dataclass
from typing import Any, Literal, cast

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, LlamaConfig, PreTrainedConfig

from earnest.errors import UserError

Group = Literal["adapters", "output", "embeddings", "experts", "attention", "backbone"]


@dataclass(frozen=True)
class MoTDesign:
    """How text and audio are joined. The defaults are SLM-MoT's; its parameters that do nothing are left out."""

    trained: tuple[Group, ...] = ("adapters", "output")
    """What is trained: adapters (down and up projections), output (rows of the output layer), embeddings (input rows of
    the codes), experts (the audio feed-forward networks), attention (the audio's own projections), backbone (the
    Llama). The rest is frozen."""
    attention: Literal["copied", "new", "shared"] = "copied"
    """Audio positions have query, key, value and output projections of their own, copied from the backbone's or with
    random weights, or share the backbone's. New ones must be trained. SmolLM2's own projections add nearly the same
    vector at every position, which drowns the codes (docs/log.md)."""
    output: Literal["all", "new", "audio"] = "all"
    """The output layer. `all`: text rows, a copy that is trained, and audio rows. `new`: the backbone's frozen text
    rows, and audio rows. `audio`: audio rows only; the softmax runs over these, and their logits start at the codes'
    log-frequencies."""
    output_multiplier: float = 1.0
    """Factor of the logits of `output` audio: below 1 these rows learn more slowly than the rest, at one learning rate
    (as in muP, arXiv:2203.03466)."""
    rows_per_codebook: bool = False
    """Every codebook has embedding and output rows of its own; else one set serves all, and only their positions
    distinguish codebooks."""
    ends: bool = False
    """One more output row means that the audio ends. Without it, generation goes on to the length asked for."""
    expert_layers: tuple[int, ...] = ()
    """Which decoder layer of the experts is used in each layer of the backbone; if empty, the first ones in their
    order."""
    text_window: int = 32
    """The longest text in tokens, BOS included; a longer caption is cut in training, as SLM-MoT does, and counted."""
    max_positions: int = 1024
    """Context: text, the audio's BOS, and one position per code."""


@dataclass(frozen=True)
class MoTShape:
    """Sizes of what is not loaded from a checkpoint: a backbone with random weights and a byte tokenizer, and random
    experts."""

    width: int = 256
    """Width of the backbone's residual stream."""
    layers: int = 4
    """Layers of the backbone."""
    heads: int = 4
    """Heads of the backbone's attention."""
    kv_heads: int = 2
    """Heads of keys and values; the query heads share them."""
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

    `backbone`, `experts`: names or paths that frozen weights came from; `base_sha256`: hash of these weights if the
    checkpoint does not hold them.
    """

    model_type = "earnest-mot"
    sub_configs = {"backbone_config": LlamaConfig}  # type: ignore[assignment]  # noqa: RUF012 (transformers' form)

    backbone_config: LlamaConfig | dict[str, Any] | None = None
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

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.backbone_config, LlamaConfig):
            self.backbone_config = LlamaConfig(**(self.backbone_config or {}))
        super().__post_init__(**kwargs)

    @property
    def llama(self) -> LlamaConfig:
        return cast(LlamaConfig, self.backbone_config)


AutoConfig.register(MoTModelConfig.model_type, MoTModelConfig)  # AutoTokenizer reads the config beside the tokenizer


def check(design: MoTDesign, codebooks: int, context: int) -> None:
    """Raises UserError if the design does not fit the codebooks, the backbone's context, or itself."""
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
            "--design.trained names attention, which is shared with the backbone, and that is frozen",
            "attention of the audio's own, or a backbone that is trained",
            "set --design.attention copied, or name backbone in --design.trained instead",
        )
    if design.attention == "new" and "attention" not in design.trained:
        raise UserError(
            "--design.attention new, and --design.trained does not name attention: it would stay random",
            "new attention that is trained, or a copy of the backbone's",
            "name attention in --design.trained, or set --design.attention copied",
        )
