"""The vocabulary of signals: what may stand in a `Run`, in which unit, and what it means.

A signal's key is ``split/name`` or ``split/name/stream``: ``train/ce_nats/codebook_0``,
``eval/ce_nats/text``, ``train/grad_norm``. A *stream* is one loss with its own baseline.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Key(NamedTuple):
    """A signal's key, taken apart."""

    split: str
    name: str
    stream: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in self if part is not None)


def key(name: str, stream: str | None = None, split: str = "train") -> str:
    return str(Key(split, name, stream))


def parse(text: str) -> Key:
    """Take a key apart; raises ValueError where it is not of the form split/name[/stream]."""
    parts = text.split("/", 2)
    if len(parts) < 2:
        raise ValueError(f"signal key {text!r} is not split/name or split/name/stream")
    return Key(*parts)


@dataclass(frozen=True)
class Signal:
    """One entry of the vocabulary."""

    name: str
    unit: str
    meaning: str
    baseline: str | None = None


SIGNALS = {
    signal.name: signal
    for signal in [
        Signal("ce_nats", "nats per counted target", "unweighted mean cross-entropy of one stream", "the chance ladder"),
        Signal("loss", "as optimised", "the loss that was stepped on; with a stream: that part of it, unweighted"),
        Signal("accuracy_frac", "fraction", "argmax equals target, over counted targets", "the commonest label's share"),
        Signal("copy_frac", "fraction", "argmax equals the input token at that position", "the share of repeats in the data"),
        Signal("counted_frac", "fraction", "positions of a stream whose target counts"),
        Signal("entropy_nats", "nats", "mean entropy of the predicted distribution at counted positions", "ln V"),
        Signal("grad_norm", "norm", "global gradient norm before clipping"),
        Signal("clipped_frac", "fraction", "1 where the gradient was clipped, averaged over the logged steps"),
        Signal("learning_rate", "per step", "learning rate of the first parameter group"),
        Signal("used_frac", "fraction", "entries of a codebook chosen at least once in the window", "expectation at this sample size"),
        Signal("perplexity", "entries", "exp of the entropy of a codebook's choices", "expectation at this sample size"),
        Signal("residual_frac", "fraction", "energy left after a level of the quantiser, of the latent's energy"),
        Signal("d_real", "logit", "discriminator's mean output on real audio"),
        Signal("d_fake", "logit", "discriminator's mean output on generated audio"),
        Signal("padding_frac", "fraction", "positions of the batch that hold padding"),
        Signal("step_s", "seconds", "wall time of the step"),
        Signal("skipped_clips", "clips", "clips left out so far because they could not be read"),
    ]
}


FACTS = {
    "system": "which of the four systems, or the model's class",
    "text_vocab": "ids that can occur as a text target",
    "audio_vocab": "ids that can occur as a target of one codebook, special tokens included",
    "codebooks": "number of codebooks",
    "delays": "delay of each codebook, in frames",
    "label_counts": "stream -> {id: how often it is a counted target in the training data}",
    "pretrained": "whether training started from pretrained weights",
    "unconditional_frac": "configured share of clips trained without their condition",
    "guidance": "guidance scale used for demos (1 = conditional only, uncond + s * (cond - uncond))",
    "max_grad_norm": "gradient norm at which clipping starts",
    "accumulation_steps": "micro-batches per optimizer step",
    "schedule_steps": "optimizer steps that the learning-rate schedule was made for",
    "warmup_steps": "optimizer steps of warm-up",
    "train_clips": "clips trained on",
    "held_out_clips": "clips evaluated on",
    "train_targets": "counted targets in one epoch",
    "steps_per_epoch": "optimizer steps in one pass over the data",
    "trainable_parameters": "number of trainable parameters",
    "loss_weights": "stream -> weight in the optimised loss",
    "sample_rate_hz": "audio sample rate",
    "config": "the whole resolved configuration",
    "versions": "package -> version",
}
