"""The training loop of every language model, as a generator."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator

from earnest.data.batch import Batch
from earnest.loops.processes import summed
from earnest.losses.tokens import signal_names
from earnest.run import Step
from earnest.signals import key
from earnest.streams import Stream


def lm_steps(
    objective: torch.nn.Module,
    groups: Iterable[Sequence[Batch]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    max_grad_norm: float,
    accelerator: Accelerator,
    first_step: int = 1,
) -> Iterator[Step]:
    """Yield after every optimizer step, with the gradients still in place.

    A group is this rank's micro-batches of one step. `objective(batch, counted)` returns the batch's share of the
    step's loss and signals: it divides by what counts in the whole step, on all ranks, so accumulation and data
    parallelism give the numbers of one large batch.
    """
    # a model need not score its text
    scored: Mapping[Stream, float] = accelerator.unwrap_model(objective).weights
    for index, group in enumerate(groups, first_step):
        optimizer.zero_grad(set_to_none=True)
        counted, positions = _counts(group, accelerator)
        shares: list[dict[str, float]] = []
        for number, batch in enumerate(group, 1):
            with accelerator.no_sync(objective) if number < len(group) else nullcontext():
                with accelerator.autocast():
                    loss, share = objective(batch.to(accelerator.device), counted)
                # Data-parallel wrappers take the mean of the ranks' gradients; the step's loss is the sum of the ranks'
                # shares.
                accelerator.backward(loss * accelerator.num_processes)
            shares.append(share)
        norm: Any = accelerator.clip_grad_norm_(objective.parameters(), max_grad_norm)
        grad_norm = float(norm)
        learning_rate = schedule.get_last_lr()[0]  # the one this step is made with
        optimizer.step()
        schedule.step()
        measured = {
            key("grad_norm"): grad_norm,
            key("clipped_frac"): float(grad_norm > max_grad_norm),
            key("learning_rate"): learning_rate,
            key("padding_frac"): sum(batch.padding_frac for batch in group) / len(group),
            **{
                key("counted_frac", stream): counted[stream] / max(1, positions.get(stream, 0))
                for stream in counted
                if stream in scored
            },
        }
        yield Step(index, _signals(shares, counted, accelerator) | measured)


def _counts(group: Sequence[Batch], accelerator: Accelerator) -> tuple[dict[Stream, int], dict[Stream, int]]:
    """Targets that count in a step, and positions, per stream, on all ranks."""
    counted, positions = Counter[Stream](), Counter[Stream]()
    for batch in group:
        counts = batch.counted()
        counted.update(counts)
        # A batch in which nothing counts may be there only so that the ranks keep step.
        positions.update(batch.positions() if any(counts.values()) else dict.fromkeys(counts, 0))
    streams = list(counted)
    numbers = [counter[stream] for counter in (counted, positions) for stream in streams]
    total = [round(number) for number in summed(numbers, accelerator.device)]
    return dict(zip(streams, total, strict=False)), dict(zip(streams, total[len(streams) :], strict=True))


def _signals(
    shares: Iterable[Mapping[str, float]], streams: Iterable[Stream], accelerator: Accelerator
) -> dict[str, float]:
    """Signals summed over the micro-batches of a step, on all ranks. A rank has none of a stream without targets."""
    here = Counter[str]()
    for share in shares:
        here.update(share)
    if accelerator.num_processes == 1:
        return dict(here)
    names = signal_names(streams)
    sums = summed([here[name] for name in names] + [name in here for name in names], accelerator.device)
    return {name: value for name, value, ranks in zip(names, sums, sums[len(names) :], strict=False) if ranks}
