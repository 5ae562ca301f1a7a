"""Masked cross-entropy over text and codebooks, with heads applied only where a target counts."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from earnest.data.batch import Batch, codebook_stream
from earnest.data.masks import IGNORE
from earnest.errors import UserError
from earnest.signals import key

SIGNAL_NAMES = {"ce": "ce_nats", "correct": "accuracy_frac", "copied": "copy_frac", "entropy": "entropy_nats"}


@dataclass(frozen=True)
class StreamSums:
    """One stream of one batch, as sums over its counted targets: whoever averages divides by what counts."""

    ce: Tensor  # nats, scalar, carries the gradient
    ce_B: Tensor  # nats per clip
    counted_B: Tensor
    correct: Tensor  # argmax equals the target
    copied: Tensor  # argmax equals the input token at that position
    entropy: Tensor  # nats, of the predicted distribution


def stream_sums(model, batch: Batch) -> dict[str, StreamSums]:
    """Cross-entropy and its companions per stream: text, codebook_0, ...; a stream without counted targets is absent.

    `model` offers forward(batch) -> (B, S, D), text_logits (N, D) -> (N, V) and audio_logits (N, D) -> (N, C, V). The heads
    see only rows where some target counts: over all positions they are most of a step at Higgs' vocabularies.
    """
    hidden_BSD = model(batch)
    sums = {}
    for streams, head, targets_BSK, inputs_BSK in (
        (["text"], lambda hidden_ND: model.text_logits(hidden_ND)[:, None], batch.text_targets_BS[..., None], batch.text_BS[..., None]),
        ([codebook_stream(c) for c in range(batch.codebooks)], model.audio_logits, batch.audio_targets_BSC, batch.tokens_BSC),
    ):
        rows_BS = (targets_BSK != IGNORE).any(-1)
        if not rows_BS.any():
            continue
        logits_NKV = head(hidden_BSD[rows_BS])
        target_NK, input_NK, clip_N = targets_BSK[rows_BS], inputs_BSK[rows_BS], rows_BS.nonzero()[:, 0]
        counts_NK = target_NK != IGNORE
        # float(): under bf16 autocast the cross-entropy itself stays in fp32
        log_p_NKV = logits_NKV.float().log_softmax(-1)
        ce_NK = F.nll_loss(log_p_NKV.flatten(0, 1), target_NK.flatten(), ignore_index=IGNORE, reduction="none").view_as(target_NK)
        with torch.no_grad():
            entropy_NK = -(log_p_NKV.exp() * log_p_NKV).sum(-1)
            guess_NK = logits_NKV.argmax(-1)
            per_clip_2BK = torch.zeros(2, len(batch.clip_B), len(streams), device=ce_NK.device)
            per_clip_2BK[0].index_add_(0, clip_N, ce_NK)
            per_clip_2BK[1].index_add_(0, clip_N, counts_NK.float())
        for k, stream in enumerate(streams):
            counts_N = counts_NK[:, k]
            if counts_N.any():
                sums[stream] = StreamSums(
                    ce=ce_NK[:, k].sum(),
                    ce_B=per_clip_2BK[0, :, k],
                    counted_B=per_clip_2BK[1, :, k],
                    correct=(guess_NK == target_NK)[counts_N, k].sum(),
                    copied=(guess_NK == input_NK)[counts_N, k].sum(),
                    entropy=entropy_NK[counts_N, k].sum(),
                )
    return sums


def stream_weights(codebooks: int, text_weight: float, audio_weight: float) -> dict[str, float]:
    """Weights so that the loss is ``text_weight * text + audio_weight * mean over codebooks``: comparable with ln V."""
    return {"text": text_weight, **{codebook_stream(c): audio_weight / codebooks for c in range(codebooks)}}


def token_loss(model, batch: Batch, counted: Mapping[str, int], weights: Mapping[str, float]) -> tuple[Tensor, dict[str, float]]:
    """This batch's share of the step's loss, and of its signals; summed over the micro-batches of a step both are means.

    counted: targets per stream in *all* micro-batches of the step. Raises UserError where nothing counts at all: a mean
    over nothing would be NaN, or a silent 0.
    """
    sums = stream_sums(model, batch)
    if not any(counted.values()):
        raise UserError(
            "no target counts: every label is masked",
            "at least one counted target in a step",
            "look at the labels with `earnest trace`; did the assistant's turn get lost or cut?",
        )
    shares = {stream: weights[stream] * stream_sum.ce / counted[stream] for stream, stream_sum in sums.items()}
    loss = torch.stack(list(shares.values())).sum() if shares else next(model.parameters()).sum() * 0
    signals = {key("loss"): loss.item()}
    for stream, stream_sum in sums.items():
        for name, signal in SIGNAL_NAMES.items():
            signals[key(signal, stream)] = getattr(stream_sum, name).item() / counted[stream]
    return loss, signals
