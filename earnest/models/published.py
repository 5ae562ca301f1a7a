"""How a checkpoint was published to be sampled."""

from typing import Any

from transformers import PreTrainedModel

from earnest.sampling import Published, Sampling


def published(lm: PreTrainedModel, guidance_of_dia: bool = False) -> Published:
    """What its generation_config.json says; greedy and without guidance if it says nothing of sampling.

    guidance_of_dia: its scale s means conditional + s * (conditional - null), ours is 1 + s; and guidance only chooses
    the likeliest tokens, which are then drawn without it."""
    config: Any = lm.generation_config
    if not getattr(config, "do_sample", False):
        return Published()
    scale = getattr(config, "guidance_scale", None)
    guidance = 1.0 if scale is None else scale + guidance_of_dia
    return Published(
        temperature=_or(config.temperature, 1.0),
        guidance=guidance,
        sampling=Sampling(
            _or(config.top_k, Sampling.top_k), _or(config.top_p, 1.0), filter_by_guidance=guidance_of_dia
        ),
    )


def _or(value: Any, usual: Any) -> Any:
    return usual if value is None else value
