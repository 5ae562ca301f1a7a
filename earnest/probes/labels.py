"""Which inputs a scored logit has seen: inputs are changed, and the gradient of one label is traced."""

from collections.abc import Mapping
from dataclasses import fields, replace

import torch
from torch import Tensor

from earnest.data.batch import Batch
from earnest.data.masks import IGNORE
from earnest.losses.tokens import score
from earnest.models.system import Output, System
from earnest.probes.results import Alignment, Inputs
from earnest.probes.state import untouched
from earnest.streams import Codebook, Stream

SHIFTS = (1, 0, 2, -1, 3, -2)  # positions from a logit to its label among the inputs; the right one first, for ties
FOUND_FRAC = 0.9  # share of the labels that must be among the inputs at one distance to accept that distance (assumed)


def alignment(model: System, batch: Batch) -> dict[Stream, Alignment]:
    """From how far back each stream's labels are predicted, by data, model and loss together.

    The batch says where labels are among the inputs. Then one label is kept, its gradient is traced to the state that
    it is scored on, and inputs near that position are changed one at a time: the last one that moves this state is what
    the logit has seen. offset = position of the label - position of that input: 1 in a model that predicts the next
    token, 0 if the label's own position is seen (a depth decoder must see its lower codebooks), 2 if data and model
    both shift. A stream whose labels are not among its inputs is left out.
    """
    with untouched(model):
        seen = _Seen(model, batch)
        found: dict[Stream, Alignment] = {}
        for stream in batch.streams:
            clip_N, position_N = (batch.targets(stream) != IGNORE).nonzero(as_tuple=True)
            if not len(clip_N) or (place := _place(batch, stream, clip_N, position_N)) is None:
                continue
            shift, column = place
            middle = len(position_N) // 2
            traced = _traced(seen, stream, int(clip_N[middle]), int(position_N[middle]))
            if traced is None:
                continue
            scored, clip, position = traced
            if (last := seen.last_input(scored, clip, position)) is None:
                continue  # its inputs do not reach the model at all: `dropped_inputs` says so
            label = int(position_N[middle]) + shift
            found[stream] = Alignment(
                offset=label - last,
                expected=model.order(stream),
                codebook_matches=column == stream and scored == stream,
                sees_label=seen.sees_label(scored, clip, position, label) if model.order(stream) == 0 else None,
            )
    return found


def dropped_inputs(model: System, batch: Batch) -> Inputs:
    """Parts of the batch that change no state that codes are predicted from; and the shape of these states (positions,
    width)."""
    with untouched(model), torch.no_grad():
        states = _audio_states(model, batch)
        changed = {
            "text": replace(batch, text_BS=_other(batch.text_BS)),
            "tokens": replace(batch, tokens_BSC=_other(batch.tokens_BSC)),
        }
        is_audio_P = batch.is_audio_BS[batch.exists_BS]
        dropped: list[str] = []
        for name, other in changed.items():
            pairs = zip(_audio_states(model, other), states, strict=True)
            if all(torch.equal(now_PD[is_audio_P], before_PD[is_audio_P]) for now_PD, before_PD in pairs):
                dropped.append(name)
        return Inputs(tuple(dropped), tuple(states[0].shape))


def _audio_states(model: System, batch: Batch) -> list[Tensor]:
    """What codes are predicted from; states that several codebooks share are there once."""
    return _distinct({stream: output for stream, output in model.outputs(batch).items() if stream.is_audio})


def _other(ids: Tensor) -> Tensor:
    """Ids that all differ from those given and are among them, so that they are in the vocabulary."""
    known: Tensor = torch.unique(ids)
    return known[(torch.searchsorted(known, ids) + 1) % len(known)]


def _place(batch: Batch, stream: Stream, clip_N: Tensor, position_N: Tensor) -> tuple[int, Stream] | None:
    """(distance, stream) at which the targets are among the inputs; None if no distance explains them."""
    columns = [other for other in batch.streams if other.is_audio] if stream.is_audio else [stream]
    target_N, holds_BS = batch.targets(stream)[clip_N, position_N], batch.exists_BS & batch.holds(stream)
    best, best_frac = None, FOUND_FRAC
    for shift in SHIFTS:
        place_N = position_N + shift
        inside_N = (place_N >= 0) & (place_N < holds_BS.shape[1])
        inside_N &= holds_BS[clip_N, place_N.clamp(0, holds_BS.shape[1] - 1)]
        if not inside_N.any():
            continue
        for column in sorted(columns, key=lambda other: other != stream):
            equal_N = batch.tokens(column)[clip_N[inside_N], place_N[inside_N]] == target_N[inside_N]
            if (equal_frac := float(equal_N.float().mean())) > best_frac:
                best, best_frac = (shift, column), equal_frac
    return best


def _traced(seen: "_Seen", stream: Stream, clip: int, position: int) -> tuple[Stream, int, int] | None:
    """(stream, clip, position) that the loss scores one label on, by its gradient; None if the label is not scored at
    all, or by an output layer of zeros, which lets no gradient through."""
    batch = seen.batch
    alone = replace(
        batch,
        text_targets_BS=torch.full_like(batch.text_targets_BS, IGNORE),
        audio_targets_BSC=torch.full_like(batch.audio_targets_BSC, IGNORE),
    )
    alone.targets(stream)[clip, position] = batch.targets(stream)[clip, position]
    leaves = {id(states_PD): states_PD.clone().requires_grad_() for states_PD in _distinct(seen.outputs)}
    outputs = {name: Output(leaves[id(output.states_PD)], output.head) for name, output in seen.outputs.items()}
    loss, sums = score(outputs, alone, {stream: 1.0})
    if not sums:
        return None
    scored = next(iter(sums))
    (slope_PD,) = torch.autograd.grad(loss, outputs[scored].states_PD)
    if not slope_PD.any():
        return None
    row = int(slope_PD.abs().sum(-1).argmax())
    place: list[int] = seen.positions_P2[row].tolist()
    return scored, place[0], place[1]


def _distinct(outputs: Mapping[Stream, Output]) -> list[Tensor]:
    return list({id(output.states_PD): output.states_PD for output in outputs.values()}.values())


def _moves(moved_S: Tensor, position: int) -> bool:
    return bool(moved_S[position] > 1e-6 * moved_S.max())


class _Seen:
    """Which inputs of a clip move a state; every changed input costs one forward pass of that clip, once."""

    def __init__(self, model: System, batch: Batch):
        self.model, self.batch = model, batch
        with torch.no_grad():
            self.outputs = model.outputs(batch)
        self.positions_P2 = batch.exists_BS.nonzero()
        self.alone: dict[int, tuple[Batch, Mapping[Stream, Output]]] = {}
        self.moved: dict[tuple[int, int, int], dict[Stream, Tensor]] = {}

    def last_input(self, stream: Stream, clip: int, position: int) -> int | None:
        """The last position, of those near, whose input moves the stream's state at `position`."""
        for place in range(position + 3, position - 3, -1):
            inside = 0 <= place < self.batch.exists_BS.shape[1] and self.batch.exists_BS[clip, place]
            if inside and _moves(self.moved_by(clip, place)[stream], position):
                return place
        return None

    def sees_label(self, stream: Stream, clip: int, position: int, label: int) -> bool:
        """Whether the state at `position` moves with the label or the codebooks above it at the label's position."""
        assert isinstance(stream, Codebook)
        return _moves(self.moved_by(clip, label, from_codebook=stream.index)[stream], position)

    @torch.no_grad()
    def moved_by(self, clip: int, place: int, from_codebook: int = 0) -> dict[Stream, Tensor]:
        """How far each state of a clip moves if the input at `place` is changed, or only some of its codebooks."""
        if clip not in self.alone:
            columns = {field.name: getattr(self.batch, field.name) for field in fields(self.batch)}
            only = Batch(**{name: tensor[clip : clip + 1] for name, tensor in columns.items()})
            self.alone[clip] = only, self.model.outputs(only)
        if (clip, place, from_codebook) not in self.moved:
            only, before = self.alone[clip]
            other = replace(only, text_BS=only.text_BS.clone(), tokens_BSC=only.tokens_BSC.clone())
            other.text_BS[:, place] = _other(self.batch.text_BS)[clip, place]
            other.tokens_BSC[:, place, from_codebook:] = _other(self.batch.tokens_BSC)[clip, place, from_codebook:]
            self.moved[clip, place, from_codebook] = {
                stream: (output.states_PD - before[stream].states_PD).abs().amax(-1)
                for stream, output in self.model.outputs(other).items()
            }
        return self.moved[clip, place, from_codebook]
