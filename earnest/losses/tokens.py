"""Masked cross-entropy over text and codebooks, with output layers applied only where a target counts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from earnest.data.batch import Batch, codebook_stream
from earnest.data.masks import IGNORE
from earnest.errors import UserError
from earnest.models.system import Head
from earnest.signals import key

SIGNAL_NAMES = {
    "ce": "ce_nats",
    "full_ce": "ce_full_nats",
    "correct": "accuracy_frac",
    "copied": "copy_frac",
    "entropy": "entropy_nats",
}
CHUNK_LOGITS = (
    2**24
)  # logits held at a time, and as many probabilities: 128 MiB in fp32, not gigabytes at a vocabulary of 128256


@dataclass(frozen=True)
class StreamSums:
    """One stream of one batch, as sums over its counted targets: whoever averages divides by what counts. No
    gradients."""

    ce: Tensor  # nats within the stream's own vocabulary, scalar
    full_ce: Tensor | None  # nats within all rows of the head, where these are more
    ce_B: Tensor  # nats per clip, within the stream's own vocabulary
    counted_B: Tensor
    correct: Tensor  # argmax equals the target
    copied: Tensor  # argmax equals the input token at that position
    entropy: Tensor  # nats, of the predicted distribution


class _LinearCrossEntropy(torch.autograd.Function):
    """sum_n scale_n * CE(softmax(hidden_n @ W.T + prior), target_n) in chunks of rows; the gradients are made on the
    way.

    Keeping logits for the backward pass is what fills memory at large vocabularies (Cut Your Losses, arXiv:2411.09009;
    Liger kernel, arXiv:2410.10989). Returns the sum, and per row, without gradients: CE over all rows of W, CE over the
    stream's own vocabulary, and argmax and entropy of the latter; parts: how many rows in a row are of which head.
    """

    @staticmethod
    def forward(
        ctx, hidden_ND: Tensor, target_N: Tensor, scale_N: Tensor, parts: Sequence[tuple[int, Head]], *blocks: Tensor
    ):
        wants_hidden, _, _, _, *wants_block = ctx.needs_input_grad
        device = hidden_ND.device.type
        # As a linear layer would: hidden states are fp32 under autocast too, as the residual stream is.
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype
        rows_ND, weights = hidden_ND.to(dtype), [block_VD.to(dtype) for block_VD in blocks]
        # A CPU adds up the rows' gradient in their own dtype: a bf16 product of that size, made to be added, costs more
        # than bf16 saves (measured).
        grad_dtype = dtype if hidden_ND.is_cuda else blocks[0].dtype
        ends = torch.tensor([len(block_VD) for block_VD in blocks]).cumsum(0).tolist()
        grad_hidden_ND = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_blocks: list[Tensor | None] = [None] * len(blocks)
        full_N, within_N, entropy_N = (torch.zeros(len(target_N), device=hidden_ND.device) for _ in range(3))
        guess_N = torch.zeros_like(target_N)
        with torch.autocast(device, enabled=False):
            # Two buffers serve all chunks: fresh memory of this size costs a CPU more than what is computed in it
            # (measured).
            chunk = min(len(target_N), max(1, CHUNK_LOGITS // ends[-1]))
            logits_cV, p_cV = (hidden_ND.new_empty(chunk, ends[-1], dtype=torch.float32) for _ in range(2))
            for n, head in _chunks(parts, chunk):
                own, target_n = head.own, target_N[n]
                logits_nV, p_nV = logits_cV[: len(target_n)], p_cV[: len(target_n)]
                for weight_VD, end in zip(weights, ends, strict=True):
                    part_nv = logits_nV[:, end - len(weight_VD) : end]
                    if dtype == torch.float32:
                        torch.mm(rows_ND[n], weight_VD.T, out=part_nv)
                    else:
                        part_nv.copy_(rows_ND[n] @ weight_VD.T)  # fp32 also under bf16
                if head.prior_V is not None:
                    logits_nV += head.prior_V
                torch.softmax(logits_nV, -1, out=p_nV)
                full_N[n], guess_N[n], entropy_N[n] = _distribution(logits_nV, p_nV, target_n)
                within_N[n] = full_N[n]
                if own != slice(0, ends[-1]):
                    own_nV = logits_nV[:, own]
                    within_N[n], guess_n, entropy_N[n] = _distribution(own_nV, own_nV.softmax(-1), target_n - own.start)
                    guess_N[n] = guess_n + own.start
                # d CE / d logits is p - onehot(target); the scale goes with the narrow factor of each product.
                p_nV.scatter_add_(1, target_n[:, None], -torch.ones_like(p_nV[:, :1]))
                slope_nV = p_nV.to(dtype)
                columns = [slice(end - len(weight_VD), end) for weight_VD, end in zip(weights, ends, strict=True)]
                if grad_hidden_ND is not None:
                    products = [slope_nV[:, of] @ weight_VD for of, weight_VD in zip(columns, weights, strict=True)]
                    grad_hidden_ND[n] = sum(products[1:], products[0]) * scale_N[n, None]
                slope_nV = slope_nV if grad_dtype == dtype else p_nV.to(grad_dtype)
                scaled_nD = (hidden_ND[n] * scale_N[n, None]).to(grad_dtype)
                for index in (index for index, wanted in enumerate(wants_block) if wanted):
                    part_Vn = slope_nV[:, columns[index]].T
                    grad_blocks[index] = _plus_product(grad_blocks[index], part_Vn, scaled_nD, blocks[index].dtype)
        ctx.save_for_backward(grad_hidden_ND, *grad_blocks)
        ctx.mark_non_differentiable(full_N, within_N, guess_N, entropy_N)
        return (full_N * scale_N).sum(), full_N, within_N, guess_N, entropy_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream, *_):
        # In place, as a second gradient of 128256 rows is a gigabyte; so a graph is good for one backward pass.
        grad_hidden_ND, *grad_blocks = (grad if grad is None else grad.mul_(upstream) for grad in ctx.saved_tensors)
        return grad_hidden_ND, None, None, None, *grad_blocks


def _distribution(logits_nV: Tensor, p_nV: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per row the target's cross-entropy, the argmax and the entropy, in nats, of logits and their softmax.

    Nothing of that size is made: with l the logits and a the argmax, logsumexp = l_a - ln p_a, and the entropy is
    logsumexp - sum p * l.
    """
    top_n, guess_n = logits_nV.max(-1)
    logsumexp_n = top_n - p_nV.gather(1, guess_n[:, None])[:, 0].log()
    mean_n = torch.einsum("nv,nv->n", p_nV, logits_nV)
    return logsumexp_n - logits_nV.gather(1, target_n[:, None])[:, 0], guess_n, logsumexp_n - mean_n


def _chunks(parts: Sequence[tuple[int, Head]], size: int) -> Iterator[tuple[slice, Head]]:
    """(at most `size` rows, their head) one after the other; parts: how many rows in a row are of which."""
    start = 0
    for rows, head in parts:
        for at in range(start, start + rows, size):
            yield slice(at, min(at + size, start + rows)), head
        start += rows


def _plus_product(sum_IK: Tensor | None, left_IJ: Tensor, right_JK: Tensor, dtype: torch.dtype) -> Tensor:
    if sum_IK is None:
        return (left_IJ @ right_JK).to(dtype)
    return sum_IK.addmm_(left_IJ, right_JK) if sum_IK.dtype == left_IJ.dtype else sum_IK.add_(left_IJ @ right_JK)


def score(model, batch: Batch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, StreamSums]]:
    """``sum over streams of scales[stream] * its summed cross-entropy``, and every stream's sums; a stream without
    counted targets is absent.

    `model` offers forward(batch) -> hidden_PD, the hidden states of the positions that exist, in the row-major order of
    ``batch.exists_BS``, and heads() -> {stream: Head}. What a gradient flows from is the cross-entropy over all rows of
    a head.
    """
    hidden_PD = model(batch)
    device, exists_BS = hidden_PD.device, batch.exists_BS
    clip_P = torch.arange(len(exists_BS), device=device)[:, None].expand(exists_BS.shape)[exists_BS]
    columns = {"text": (batch.text_targets_BS[exists_BS], batch.text_BS[exists_BS])}
    audio_targets_PC, tokens_PC = batch.audio_targets_BSC[exists_BS], batch.tokens_BSC[exists_BS]
    for c in range(batch.codebooks):
        columns[codebook_stream(c)] = audio_targets_PC[:, c], tokens_PC[:, c]

    sums: dict[str, StreamSums] = {}
    every_head = {stream: head for stream, head in model.heads().items() if stream in columns}
    heads = {stream: head for stream, head in every_head.items() if (columns[stream][0] != IGNORE).any()}
    # What no target reaches gets a gradient of zeros: another rank may have targets for it, and all of them reduce the
    # same tensors.
    loss = hidden_PD.sum() * 0
    if torch.is_grad_enabled():
        blocks, reached = (
            {id(block_VD): block_VD for head in some.values() for block_VD in head.blocks}
            for some in (every_head, heads)
        )
        loss = loss + sum(blocks[block].sum() * 0 for block in blocks.keys() - reached)
    # Streams with one output layer between them are scored together, so that its gradient is made once.
    for _, group in groupby(heads.items(), lambda item: tuple(map(id, item[1].blocks))):
        members = list(group)
        rows = [(columns[stream][0] != IGNORE).nonzero()[:, 0] for stream, _ in members]
        targets = [columns[stream][0][row] + head.first_id for (stream, head), row in zip(members, rows, strict=True)]
        scale_N = torch.cat(
            [
                torch.full(row.shape, float(scales.get(stream, 0)), device=device)
                for (stream, _), row in zip(members, rows, strict=True)
            ]
        )
        total, *per_row = _LinearCrossEntropy.apply(
            hidden_PD.index_select(0, torch.cat(rows)),
            torch.cat(targets),
            scale_N,
            [(len(row), head) for (_, head), row in zip(members, rows, strict=True)],
            *members[0][1].blocks,
        )
        loss = loss + total
        for (stream, head), row, target_N, full_N, within_N, guess_N, entropy_N in zip(
            members, rows, targets, *(tensor.split([len(row) for row in rows]) for tensor in per_row), strict=True
        ):
            per_clip_2B = torch.zeros(2, len(exists_BS), device=device)
            per_clip_2B.index_add_(1, clip_P[row], torch.stack([within_N, torch.ones_like(within_N)]))
            sums[stream] = StreamSums(
                ce=within_N.sum(),
                full_ce=None if head.own == slice(0, head.rows) else full_N.sum(),
                ce_B=per_clip_2B[0],
                counted_B=per_clip_2B[1],
                correct=(guess_N == target_N).sum(),
                copied=(guess_N - head.first_id == columns[stream][1][row]).sum(),
                entropy=entropy_N.sum(),
            )
    return loss, sums


def stream_weights(
    codebooks: int, text_weight: float, audio_weight: float, codebook_weights: Sequence[float] = ()
) -> dict[str, float]:
    """Weights so that the loss is ``text_weight * text + audio_weight * mean over codebooks``: comparable with ln V.

    codebook_weights: of each codebook in that mean, the last one for all that follow; equal if empty. Raises UserError
    where they do not fit the codebooks.
    """
    shares = list(codebook_weights) or [1.0]
    if len(shares) > codebooks or min(shares) < 0 or not sum(shares):
        raise UserError(
            f"codebook weights {shares}",
            f"{codebooks} or fewer, none negative, not all zero",
            "give at most one for each codebook",
        )
    shares += shares[-1:] * (codebooks - len(shares))
    return {
        "text": text_weight,
        **{codebook_stream(c): audio_weight * share / sum(shares) for c, share in enumerate(shares)},
    }


class TokenObjective(nn.Module):
    """A model and its loss in one forward pass, so that data-parallel wrappers see every parameter that is used."""

    def __init__(self, model: nn.Module, weights: Mapping[str, float]):
        super().__init__()
        self.model = model
        self.weights = dict(weights)
        classes = {type(module).__name__ for module in model.modules()}
        wanted = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
        self._no_split_modules = sorted(classes & wanted)  # where accelerate shards, as transformers' models say it

    def forward(self, batch: Batch, counted: Mapping[str, int]) -> tuple[Tensor, dict[str, float]]:
        """This batch's share of the step's loss, and of its signals; summed over the micro-batches of a step both are
        means.

        counted: targets per stream in *all* micro-batches of the step. Raises UserError where nothing counts at all: a
        mean over nothing would be NaN, or a silent 0.
        """
        if not any(counted.values()):
            raise UserError(
                "no target counts: every label is masked",
                "at least one counted target in a step",
                "look at the labels with `earnest trace`; did the assistant's turn get lost or cut?",
            )
        loss, sums = score(self.model, batch, {stream: self.weights[stream] / n for stream, n in counted.items() if n})
        signals = {key("loss"): loss.item()}
        for stream, stream_sum in sums.items():
            for name, signal in SIGNAL_NAMES.items():
                if (value := getattr(stream_sum, name)) is not None:
                    signals[key(signal, stream)] = value.item() / counted[stream]
        return loss, signals
