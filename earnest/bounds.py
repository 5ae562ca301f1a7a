"""Which numbers a configuration may hold: by what a field's name says of its unit and meaning, and the exceptions."""

import dataclasses
import math
from typing import Any

from earnest.errors import UserError

# Fields of which 0 means "none" or "never", as their documentation says
MAY_BE_ZERO = frozenset(
    {
        *(
            "every_steps",
            "demo_every_steps",
            "monitor_every_steps",
            "predictions",
            "piece_words",
            "rank",
            "demo_clips",
            "semantic_dim",
        ),
        *("adversarial_only_from_step", "warmup_steps", "init_frames", "seed", "probe_s", "weight_decay"),
        *(
            "learning_rate",
            "discriminator_learning_rate",
            "guidance",
            "temperatures",
            "acoustic_codebooks",
            "temperature",
        ),
    }
)
HAVE_THEIR_OWN = ("expert_layers", "codebook_weights")  # checks, where what they belong to is known
FROM_ITS_END = ("llm_layer", "wavlm_layer", "layer")  # -1 is the last one
AT_MOST = {"seed": 2**32 - 1, "layers": 1000, "encoder_layers": 1000}  # numpy's seeds; more layers than any model has
OPEN_AT_ONE = ("ema_decay", "dropout", "held_out_frac")  # 1 would keep, or leave, nothing


def check_bounds(config: Any, prefix: str = "--") -> None:
    """Raises UserError for a number of a configuration that cannot be: not finite, negative, zero where there must be
    one, a share above 1."""
    for field in dataclasses.fields(config):
        value, option = getattr(config, field.name), prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            check_bounds(value, option + ".")
        else:
            for each in value if isinstance(value, tuple) else (value,):
                check_number(field.name, option, each)


def check_number(name: str, option: str, value: object) -> None:
    """Raises UserError if a number cannot be the value of an option of this name; what is no number passes."""
    if isinstance(value, bool) or not isinstance(value, int | float) or name in FROM_ITS_END or name in HAVE_THEIR_OWN:
        return
    fix = f"choose another {option}"
    if not math.isfinite(value):
        raise UserError(f"{option} {value:g}", "a finite number", fix)
    if name in AT_MOST and value > AT_MOST[name]:
        raise UserError(f"{option} {value:g}", f"a whole number, at most {AT_MOST[name]:,}", fix)
    if name.endswith("_frac") or name in ("frac", "top_p", *OPEN_AT_ONE):
        below = name in OPEN_AT_ONE
        least_is_open = name == "top_p"
        if not (0 <= value <= 1) or (below and value == 1) or (least_is_open and value == 0):
            expected = f"a share {'above' if least_is_open else 'from'} 0 {'and below' if below else 'to'} 1"
            raise UserError(f"{option} {value:g}", expected, fix)
        return
    if value < 0 or (value == 0 and name not in MAY_BE_ZERO and not _is_weight(option)):
        least = "0 or more" if name in MAY_BE_ZERO or _is_weight(option) else "1 or more"
        least = least if isinstance(value, int) or least == "0 or more" else "more than 0"
        raise UserError(f"{option} {value:g}", f"a {'whole ' if isinstance(value, int) else ''}number, {least}", fix)


def _is_weight(option: str) -> bool:
    return "weight" in option  # of a loss: 0 leaves it out


def check_heads(group: str, width: int, heads: int, kv_heads: int | None = None, option: str = "width") -> None:
    """Raises UserError if attention cannot be cut into these heads: each takes an equal, even part of the width (rotary
    positions turn pairs), and each head of keys and values serves equally many others.

    group: how the options are called before `width`, such as "--shape.".
    """
    if width % (2 * heads):
        nearest = max(round(width / (2 * heads)), 1) * 2 * heads
        raise UserError(
            f"{group}{option} {width} for {heads} heads",
            "an even width for each head: a multiple of twice the heads",
            f"{group}{option} {nearest}, or another number of heads",
        )
    if kv_heads and heads % kv_heads:
        raise UserError(
            f"{group}kv-heads {kv_heads} for {heads} heads", f"a divisor of {heads}", f"{group}kv-heads {heads}"
        )
