"""Which inputs a scored logit has seen: by changing inputs, and by tracing the gradient of one label."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from earnest.data.batch import Batch
from earnest.data.masks import IGNORE
from earnest.losses.tokens import score
from earnest.probes.state import untouched

SHIFTS = (
    1,
    0,
    2,
    -1,
    3,
    -2,
)  # positions from a logit's row to where its label stands as an input; the right one first, for ties
FOUND_FRAC = 0.9  # of the labels must stand in the inputs at one distance, for that to be where they stand (assumed)


def alignment(model: Any, batch: Batch) -> dict[str, dict[str, Any]]:
    """From how far back each stream's labels are predicted, with data, model and loss taken together: stream -> offset,
    expected, codebook_matches.

    Where labels stand among the inputs is looked up in the batch; then one label is kept, its gradient traced to the
    hidden state that it is scored on, and inputs around that position are changed one at a time: the last one that
    moves this hidden state is what the logit has seen. offset = position of the label - position of that input: 1 in a
    model that predicts the next token, 0 where the label itself is seen, 2 where data and model both shift. A stream
    whose labels do not stand in its inputs is left out.
    """
    with untouched(model):
        seen = _Seen(model, batch)
        found = {}
        for stream, clip_N, position_N in _counted(batch):
            place = _place(batch, stream, clip_N, position_N)
            if place is None:
                continue
            shift, column = place
            middle = len(position_N) // 2
            traced = _traced(seen, stream, int(clip_N[middle]), int(position_N[middle]))
            if traced is None:
                continue
            clip, position, scored = traced
            if (last := seen.last_input(clip, position)) is None:
                continue  # its inputs do not reach the model at all: `dropped_inputs` says so
            found[stream] = {
                "offset": int(position_N[middle]) + shift - last,
                "expected": 1,
                "codebook_matches": column == stream and scored == stream,
            }
    return found


def dropped_inputs(model: Any, batch: Batch) -> dict[str, Any]:
    """Parts of the batch that change no hidden state where audio stands; and the shape of the logits, (positions,
    width)."""
    with untouched(model), torch.no_grad():
        hidden_PD = model(batch)
        is_audio_P = batch.is_audio_BS[batch.exists_BS]
        changed = {
            "text": replace(batch, text_BS=_other(batch.text_BS)),
            "tokens": replace(batch, tokens_BSC=_other(batch.tokens_BSC)),
        }
        dropped = [
            name for name, other in changed.items() if torch.equal(model(other)[is_audio_P], hidden_PD[is_audio_P])
        ]
        return {"dropped": dropped, "logits_shape": list(hidden_PD.shape)}


def _other(ids: Tensor) -> Tensor:
    """Ids that all differ from those given and stand in the batch, so that they are in the vocabulary."""
    known = ids.unique()
    return known[(torch.searchsorted(known, ids) + 1) % len(known)]


def _counted(batch: Batch):
    """(stream, clip_N, position_N) of the targets that count, for the streams that have any."""
    columns = {"text": batch.text_targets_BS} | {
        f"codebook_{c}": batch.audio_targets_BSC[..., c] for c in range(batch.codebooks)
    }
    for stream, targets_BS in columns.items():
        clip_N, position_N = (targets_BS != IGNORE).nonzero(as_tuple=True)
        if len(clip_N):
            yield stream, clip_N, position_N


def _place(batch: Batch, stream: str, clip_N: Tensor, position_N: Tensor) -> tuple[int, str] | None:
    """(distance, stream) at which the targets stand in the inputs; None where no distance explains them."""
    inputs = (
        {"text": batch.text_BS}
        if stream == "text"
        else {f"codebook_{c}": batch.tokens_BSC[..., c] for c in range(batch.codebooks)}
    )
    target_N = (batch.text_targets_BS if stream == "text" else batch.audio_targets_BSC[..., int(stream.split("_")[1])])[
        clip_N, position_N
    ]
    holds_BS = batch.exists_BS & (batch.is_audio_BS if stream != "text" else ~batch.is_audio_BS)
    best, best_frac = None, FOUND_FRAC
    for shift in SHIFTS:
        place_N = position_N + shift
        inside_N = (place_N >= 0) & (place_N < holds_BS.shape[1])
        inside_N &= holds_BS[clip_N, place_N.clamp(0, holds_BS.shape[1] - 1)]
        if not inside_N.any():
            continue
        for column in sorted(inputs, key=lambda name: name != stream):
            equal_frac = float(
                (inputs[column][clip_N[inside_N], place_N[inside_N]] == target_N[inside_N]).float().mean()
            )
            if equal_frac > best_frac:
                best, best_frac = (shift, column), equal_frac
    return best


def _traced(seen: "_Seen", stream: str, clip: int, position: int) -> tuple[int, int, str] | None:
    """(clip, position, stream) that the loss scores one label on, by its gradient; None where the label is not scored
    at all, or by an output layer of zeros, which lets no gradient through."""
    batch = seen.batch
    one = replace(
        batch,
        text_targets_BS=torch.full_like(batch.text_targets_BS, IGNORE),
        audio_targets_BSC=torch.full_like(batch.audio_targets_BSC, IGNORE),
    )
    if stream == "text":
        one.text_targets_BS[clip, position] = batch.text_targets_BS[clip, position]
    else:
        codebook = int(stream.split("_")[1])
        one.audio_targets_BSC[clip, position, codebook] = batch.audio_targets_BSC[clip, position, codebook]
    hidden_PD = seen.hidden_PD.clone().requires_grad_()
    loss, sums = score(_Given(hidden_PD, seen.model), one, dict.fromkeys([stream], 1.0))
    if not sums:
        return None
    (slope_PD,) = torch.autograd.grad(loss, hidden_PD)
    if not slope_PD.any():
        return None
    row = int(slope_PD.abs().sum(-1).argmax())
    where = seen.positions_P2[row].tolist()
    return where[0], where[1], next(iter(sums))


class _Given:
    """A model whose hidden states are known."""

    def __init__(self, hidden_PD: Tensor, model: Any):
        self.hidden_PD, self.heads = hidden_PD, model.heads

    def __call__(self, batch: Batch) -> Tensor:
        return self.hidden_PD


class _Seen:
    """Which inputs of a clip move a hidden state; every changed input costs one forward pass of that clip, once."""

    def __init__(self, model: Any, batch: Batch):
        self.model, self.batch = model, batch
        with torch.no_grad():
            self.hidden_PD = model(batch)
        self.positions_P2 = batch.exists_BS.nonzero()
        self.alone: dict[int, tuple[Batch, Tensor]] = {}
        self.moved: dict[
            tuple[int, int], Tensor
        ] = {}  # (clip, changed position) -> by how much each of the clip's states moves

    def last_input(self, clip: int, position: int) -> int | None:
        """The last position, of those near, whose input moves the hidden state at `position`."""
        for place in range(position + 3, position - 3, -1):
            if 0 <= place < self.batch.exists_BS.shape[1] and self.batch.exists_BS[clip, place]:
                moved_S = self.change(clip, place)
                if moved_S[position] > 1e-6 * moved_S.max():
                    return place
        return None

    @torch.no_grad()
    def change(self, clip: int, place: int) -> Tensor:
        if clip not in self.alone:
            fields = {name: tensor[clip : clip + 1] for name, tensor in vars(self.batch).items()}
            only = Batch(**fields)
            self.alone[clip] = only, self.model(only)
        if (clip, place) not in self.moved:
            only, hidden_SD = self.alone[clip]
            other = replace(only, text_BS=only.text_BS.clone(), tokens_BSC=only.tokens_BSC.clone())
            other.text_BS[:, place] = _other(self.batch.text_BS)[clip, place]
            other.tokens_BSC[:, place] = _other(self.batch.tokens_BSC)[clip, place]
            self.moved[clip, place] = (self.model(other) - hidden_SD).abs().amax(-1)
        return self.moved[clip, place]
