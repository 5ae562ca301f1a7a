"""Masked cross-entropy over text and codebooks, with output layers applied only where a target counts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, cast

import torch
from torch import Tensor, nn

from earnest.data.batch import Batch, Places, taken
from earnest.errors import UserError
from earnest.models.system import Head, Output, System
from earnest.signals import key
from earnest.streams import TEXT, Codebook, Stream

SIGNAL_NAMES = {
    "ce": "ce_nats",
    "full_ce": "ce_full_nats",
    "correct": "accuracy_frac",
    "copied": "copy_frac",
    "entropy": "entropy_nats",
}
# Logits held at a time, and as many probabilities: 128 MiB in fp32, not gigabytes at a vocabulary of 128256.
CHUNK_LOGITS = 2**24
CACHED = 2**18  # numbers of which a processor's cache holds a few times as many
MANY_ROWS = 64  # from which on a product's gradient is worth a copy to another type


@dataclass(frozen=True)
class StreamSums:
    """Sums over the counted targets of one stream in one batch, without gradients; a mean is a sum divided by how many
    count in the whole step."""

    ce: Tensor  # nats within the stream's own vocabulary, scalar
    full_ce: Tensor | None  # nats within all rows of the head, if these are more
    ce_B: Tensor  # nats per clip, within the stream's own vocabulary
    counted_B: Tensor
    correct: Tensor  # argmax equals the target
    copied: Tensor  # argmax equals the input token at that position
    entropy: Tensor  # nats, of the predicted distribution


class _LinearCrossEntropy(torch.autograd.Function):
    """sum_n scale_n * CE(softmax(hidden_n @ W.T + prior), target_n) in chunks of rows; the forward pass makes the
    gradients too.

    Logits that are kept for the backward pass fill memory at large vocabularies (Cut Your Losses, arXiv:2411.09009;
    Liger kernel, arXiv:2410.10989). Returns the sum, and per row, without gradients: CE over all rows of W, CE over the
    stream's own vocabulary, and argmax and entropy of the latter. parts: how many consecutive rows belong to each head.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        target_N: Tensor,
        scale_N: Tensor,
        parts: Sequence[tuple[int, Head]],
        *blocks: Tensor,
    ) -> tuple[Tensor, ...]:
        wants_hidden, _, _, _, *wants_block = ctx.needs_input_grad
        device = hidden_ND.device.type
        # As a linear layer would: hidden states are fp32 under autocast too, as the residual stream is.
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype
        rows_ND, weights = hidden_ND.to(dtype), [block_VD.to(dtype) for block_VD in blocks]
        ends = list(accumulate(len(block_VD) for block_VD in blocks))
        grad_hidden_ND = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_blocks: list[Tensor | None] = [None] * len(blocks)
        full_N, within_N, entropy_N = (torch.zeros(len(target_N), device=hidden_ND.device) for _ in range(3))
        guess_N = torch.zeros_like(target_N)
        with torch.autocast(device, enabled=False):
            # Two buffers serve all chunks: fresh memory of this size costs a CPU more than what is computed in it
            # (measured).
            chunk = min(len(target_N), max(1, CHUNK_LOGITS // ends[-1]))
            logits_cV, p_cV = (hidden_ND.new_empty(chunk, ends[-1], dtype=torch.float32) for _ in range(2))
            chunks = list(_chunks(parts, chunk))
            # A CPU adds up the rows' gradient in their own dtype: a bf16 product of that size, made to be added, costs
            # more than bf16 saves, and so does one of few rows (measured).
            once = len(chunks) == 1 and chunk >= MANY_ROWS
            grad_dtype = dtype if hidden_ND.is_cuda or once else blocks[0].dtype
            for n, head in chunks:
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
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
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
    # A third of einsum's time, if the products stay in the cache.
    rows = max(1, CACHED // p_nV.shape[1])
    pairs = zip(torch.split(p_nV, rows), torch.split(logits_nV, rows), strict=True)
    mean_n = torch.cat([(p_rV * logits_rV).sum(-1) for p_rV, logits_rV in pairs])
    return logsumexp_n - logits_nV.gather(1, target_n[:, None])[:, 0], guess_n, logsumexp_n - mean_n


def _chunks(parts: Sequence[tuple[int, Head]], size: int) -> Iterator[tuple[slice, Head]]:
    """(at most `size` rows, their head) one after the other. parts: how many consecutive rows belong to each head."""
    start = 0
    for rows, head in parts:
        for at in range(start, start + rows, size):
            yield slice(at, min(at + size, start + rows)), head
        start += rows


def _plus_product(sum_IK: Tensor | None, left_IJ: Tensor, right_JK: Tensor, dtype: torch.dtype) -> Tensor:
    if sum_IK is None:
        return (left_IJ @ right_JK).to(dtype)
    return sum_IK.addmm_(left_IJ, right_JK) if sum_IK.dtype == left_IJ.dtype else sum_IK.add_(left_IJ @ right_JK)


@dataclass(frozen=True, eq=False)
class _Counted:
    """The positions of one stream whose target counts: which of those that exist, their targets as rows of the output
    layer, and the stream's own tokens there."""

    stream: Stream
    output: Output
    row_N: Tensor
    target_N: Tensor
    input_N: Tensor

    @property
    def scored_with(self) -> tuple[int, ...]:
        """Streams that read the same states with the same output layer are scored together."""
        return id(self.output.states_PD), *map(id, self.output.head.blocks)


def score(
    outputs: Mapping[Stream, Output], batch: Batch, scales: Mapping[Stream, float]
) -> tuple[Tensor, dict[Stream, StreamSums]]:
    """``sum over streams of scales[stream] * its summed cross-entropy``, and every stream's sums; a stream without
    counted targets is absent.

    outputs: a model's, for this batch. The gradient is that of the cross-entropy over all rows of a head.
    """
    exists_BS, places = batch.exists_BS, batch.places
    parts = _counted(outputs, batch, places)
    loss = _of_nothing(outputs, parts)
    sums: dict[Stream, StreamSums] = {}
    for _, group in groupby(parts, lambda part: part.scored_with):
        members = list(group)
        total, per_row = _cross_entropy(members, scales)
        loss = loss + total
        for part, (full_N, within_N, guess_N, entropy_N) in zip(members, per_row, strict=True):
            head = part.output.head
            per_clip_2B = torch.zeros(2, len(exists_BS), device=exists_BS.device)
            per_clip_2B.index_add_(1, places.clip_P[part.row_N], torch.stack([within_N, torch.ones_like(within_N)]))
            sums[part.stream] = StreamSums(
                ce=within_N.sum(),
                full_ce=None if head.own == slice(0, head.rows) else full_N.sum(),
                ce_B=per_clip_2B[0],
                counted_B=per_clip_2B[1],
                correct=(guess_N == part.target_N).sum(),
                copied=(guess_N - head.first_id == part.input_N).sum(),
                entropy=entropy_N.sum(),
            )
    return loss, sums


def _counted(outputs: Mapping[Stream, Output], batch: Batch, places: Places) -> list[_Counted]:
    """The streams that have counted targets."""
    parts: list[_Counted] = []
    for stream, output in outputs.items():
        row_N = places.counted[stream]
        if len(row_N):
            place_N = places.exist_P[row_N]
            target_N, token_N = (taken(of(stream), place_N) for of in (batch.targets, batch.tokens))
            parts.append(_Counted(stream, output, row_N, target_N + output.head.first_id, token_N))
    return parts


def _of_nothing(outputs: Mapping[Stream, Output], parts: Sequence[_Counted]) -> Tensor:
    """0, with a gradient of zeros for everything that no target reaches: another rank may have targets for it, and all
    ranks reduce the same tensors."""
    tensors = {id(output.states_PD): output.states_PD for output in outputs.values()}
    if torch.is_grad_enabled():
        blocks = {id(block_VD): block_VD for output in outputs.values() for block_VD in output.head.blocks}
        reached = {id(block_VD) for part in parts for block_VD in part.output.head.blocks}
        tensors |= {block: blocks[block] for block in blocks.keys() - reached}
    first, *others = (tensor.sum() * 0 for tensor in tensors.values())
    return sum(others, first)


def _cross_entropy(
    parts: Sequence[_Counted], scales: Mapping[Stream, float]
) -> tuple[Tensor, Iterator[tuple[Tensor, ...]]]:
    """The scaled sum over streams that share states and output layer; and of each stream, per row: cross-entropy over
    all rows of the head, over the stream's own vocabulary, argmax and entropy."""
    first, sizes = parts[0].output, [len(part.row_N) for part in parts]
    scale_N = torch.cat(
        [torch.full(part.row_N.shape, float(scales.get(part.stream, 0)), device=part.row_N.device) for part in parts]
    )
    made = cast(Any, _LinearCrossEntropy).apply(
        first.states_PD.index_select(0, torch.cat([part.row_N for part in parts])),
        torch.cat([part.target_N for part in parts]),
        scale_N,
        [(size, part.output.head) for size, part in zip(sizes, parts, strict=True)],
        *first.head.blocks,
    )
    total, *per_row = cast(tuple[Tensor, ...], made)
    return total, zip(*(torch.split(tensor, sizes) for tensor in per_row), strict=True)


def stream_weights(
    codebooks: int, text_weight: float, audio_weight: float, codebook_weights: Sequence[float] = ()
) -> dict[Stream, float]:
    """Weights so that the loss is ``text_weight * text + audio_weight * mean over codebooks``: comparable with ln V.

    codebook_weights: of each codebook in that mean, the last one for all that follow; equal if empty. Raises UserError
    if they do not fit the codebooks.
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
        TEXT: text_weight,
        **{Codebook(c): audio_weight * share / sum(shares) for c, share in enumerate(shares)},
    }


def signal_names(streams: Iterable[Stream]) -> list[str]:
    """Of every signal that `TokenObjective` may return of these streams."""
    return [key("loss"), *(key(signal, stream) for stream in streams for signal in SIGNAL_NAMES.values())]


class TokenObjective(nn.Module):
    """A model and its loss in one forward pass, so that data-parallel wrappers see every parameter that is used."""

    def __init__(self, model: System, weights: Mapping[Stream, float]):
        super().__init__()
        self.model = model
        self.weights = dict(weights)
        wanted = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
        # accelerate shards these, as transformers' models say, by the names that their layers have here
        lineages = {type(module).__name__: type(module).__mro__ for module in model.modules()}
        self._no_split_modules = sorted(
            name for name, classes in lineages.items() if wanted & {of.__name__ for of in classes}
        )

    def forward(self, batch: Batch, counted: Mapping[Stream, int]) -> tuple[Tensor, dict[str, float]]:
        """This batch's share of the step's loss and signals; summed over the micro-batches of a step both are means.

        counted: targets per stream in *all* micro-batches of the step. Raises UserError if nothing counts at all: a
        mean over nothing would be NaN, or a silent 0.
        """
        if not any(counted.values()):
            raise UserError(
                "no target counts: every label is masked",
                "at least one counted target in a step",
                "look at the labels with `earnest trace`; did the assistant's turn get lost or cut?",
            )
        scales = {stream: self.weights[stream] / count for stream, count in counted.items() if count}
        loss, sums = score(self.model.outputs(batch), batch, scales)
        totals: dict[str, tuple[Tensor, int]] = {key("loss"): (loss.detach(), 1)}
        for stream, stream_sum in sums.items():
            for name, signal in SIGNAL_NAMES.items():
                if (value := getattr(stream_sum, name)) is not None:
                    totals[key(signal, stream)] = value, counted[stream]
        dtype = torch.promote_types(loss.dtype, torch.float32)
        # one copy from the device: each value alone would be waited for
        values: list[float] = torch.stack([value.to(dtype) for value, _ in totals.values()]).tolist()
        return loss, {name: value / count for (name, (_, count)), value in zip(totals.items(), values, strict=True)}
