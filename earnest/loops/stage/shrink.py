"""A checkpoint's configuration, made small: layers first, then widths; vocabularies and codebooks stay as they are."""

import re
from typing import Any

LAYERS = re.compile(
    r"^(num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers|depth|num_blocks|first_k_dense_replace)$"
)
WIDTHS = re.compile(
    r"(^|_)(hidden_size|d_model|n_embd|embed_dim|hidden_dim|model_dim|input_size|embedding_size|enc_dim)$"
)
INNER = re.compile(r"(^|_)(intermediate_size|ffn_dim|n_inner|d_ff|ffn_hidden_size|moe_intermediate_size)$")
HEADS = re.compile(r"(^|_)(num_attention_heads|n_heads?|num_heads|attention_heads|num_key_value_heads|kv_heads)$")
HEAD_DIM = re.compile(r"(^|_)(head_dim|d_kv|kv_channels)$")
EXPERTS = re.compile(r"^(num_experts|n_routed_experts|num_local_experts)$")
CODECS = ("mimi", "dac", "encodec", "snac", "xcodec")  # their widths hang together with their strides
MOST_LAYERS, WIDTH, INNER_WIDTH, MOST_HEADS, HEAD, MOST_EXPERTS = 2, 64, 128, 4, 16, 4
DEPTH = 6


def shrink(config: Any, widths: bool = True, depth: int = DEPTH) -> Any:
    """Make a configuration small, in place: an object or a dict, and those inside it."""
    if depth == 0 or config is None:
        return config
    entries = config if isinstance(config, dict) else getattr(config, "__dict__", {})
    codec = str(entries.get("model_type", "")) in CODECS
    for name, value in list(entries.items()):
        if isinstance(value, dict) or (hasattr(value, "__dict__") and hasattr(value, "to_dict")):
            shrink(value, widths and not codec, depth - 1)
        elif isinstance(value, int) and not isinstance(value, bool):
            new = _small(name, value, widths and not codec)
            if new != value:
                _set(config, name, new)
        elif name in ("layer_types", "mlp_layer_types") and isinstance(value, list):
            _set(config, name, value[:MOST_LAYERS])
    return config


def _small(name: str, value: int, widths: bool) -> int:
    if LAYERS.search(name):
        return min(value, MOST_LAYERS)
    if EXPERTS.search(name):
        return min(value, MOST_EXPERTS)
    if not widths:
        return value
    if INNER.search(name):
        return min(value, INNER_WIDTH)
    if WIDTHS.search(name):
        return min(value, WIDTH)
    if HEAD_DIM.search(name):
        return min(value, HEAD)
    return min(value, MOST_HEADS) if HEADS.search(name) else value


def rescale_rope(config: Any, depth: int = DEPTH) -> None:
    """Sections of a rotary embedding add up to half a head."""
    entries = config if isinstance(config, dict) else getattr(config, "__dict__", {})
    for value in list(entries.values()):
        if isinstance(value, dict) and isinstance(sections := value.get("mrope_section"), list):
            half, each = HEAD // 2, HEAD // 2 // len(sections)
            value["mrope_section"] = [half - each * (len(sections) - 1), *[each] * (len(sections) - 1)]
        if depth and (isinstance(value, dict) or hasattr(value, "to_dict")):
            rescale_rope(value, depth - 1)


def _set(config: Any, name: str, value: Any) -> None:
    if isinstance(config, dict):
        config[name] = value
    else:
        setattr(config, name, value)
