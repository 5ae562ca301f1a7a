"""The training loop of every language model, as a generator."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from earnest.data.batch import Batch
from earnest.run import Step
from earnest.signals import key

LossFn = Callable[[torch.nn.Module, Batch, Mapping[str, int]], tuple[Tensor, dict[str, float]]]


def lm_steps(
    model: torch.nn.Module,
    groups: Iterable[Sequence[Batch]],
    loss_fn: LossFn,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    max_grad_norm: float,
    accelerator,
    first_step: int = 1,
) -> Iterator[Step]:
    """Yield after every optimizer step, with the gradients still in place.

    A group is the micro-batches of one step. `loss_fn(model, batch, counted)` returns the batch's share of the step's loss:
    it divides by what counts in the whole group, so accumulation gives the numbers of one large batch.
    """
    for index, group in enumerate(groups, first_step):
        optimizer.zero_grad(set_to_none=True)
        counted = _summed(batch.counted() for batch in group)
        signals: dict[str, float] = {}
        for batch in group:
            with accelerator.autocast():
                loss, shares = loss_fn(model, batch, counted)
            accelerator.backward(loss)
            for name, share in shares.items():
                signals[name] = signals.get(name, 0.0) + share
        grad_norm = float(accelerator.clip_grad_norm_(model.parameters(), max_grad_norm))
        learning_rate = schedule.get_last_lr()[0]  # the one this step is made with
        optimizer.step()
        schedule.step()
        positions = _summed(batch.positions() for batch in group)
        measured = {
            key("grad_norm"): grad_norm,
            key("clipped_frac"): float(grad_norm > max_grad_norm),
            key("learning_rate"): learning_rate,
            key("padding_frac"): sum(batch.padding_frac for batch in group) / len(group),
            **{key("counted_frac", stream): counted[stream] / max(1, positions[stream]) for stream in counted},
        }
        yield Step(index, signals | measured, group[-1], model)


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Targets or positions per stream over the micro-batches of a step."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)
