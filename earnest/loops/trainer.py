"""`earnest.TrainerCallback`: a training with transformers' Trainer, or with what is built on it, watched."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import transformers
from torch import nn

from earnest.facts import Facts
from earnest.loops.callback import Callback
from earnest.loops.processes import anybody


class TrainerCallback(Callback, transformers.TrainerCallback):
    """``Trainer(..., callbacks=[earnest.TrainerCallback(stop_on="critical")])``: see `earnest.watch` for the arguments.

    out: OUTPUT_DIR/earnest if not given. With stop_on the training ends after the step, as with early stopping.
    """

    def on_train_begin(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **others: Any,
    ) -> None:
        if not state.is_world_process_zero:
            return  # it has a part in `on_step_end` alone
        facts = facts_of(args, state).known()
        watch = self._begin(model, optimizer, args.output_dir or ".", facts, state.global_step)
        if watch.out is not None and watch.seen.first is not None:
            watch.seen.first.columns = watch.guard.call("columns", columns, ())

    def on_step_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> transformers.TrainerControl:
        if self._asks(state.global_step) and anybody(self._should_stop, args.device):
            control.should_training_stop = True
        return control

    def on_evaluate(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **others: Any,
    ) -> None:
        if self.watch is not None and metrics:
            numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
            watch = self.watch
            watch.guard.call("metrics", lambda: watch.log(state.global_step, **numbers), None)

    def on_train_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        self._end()


def facts_of(args: transformers.TrainingArguments, state: transformers.TrainerState) -> Facts:
    """What the arguments say."""
    steps = state.max_steps if state.max_steps and state.max_steps > 0 else None
    said: dict[str, Any] = {
        "trainer": "transformers",
        "accumulation_steps": args.gradient_accumulation_steps,
        "schedule_steps": steps,
        "max_grad_norm": args.max_grad_norm or None,
        "warmup_steps": args.get_warmup_steps(steps) if steps else None,
        "mixed_precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "no",
    }
    return Facts().updated({name: value for name, value in said.items() if value is not None})


def columns() -> tuple[str, ...]:
    """Columns that the model should be given, of the data set of the Trainer that is calling, before it removed any."""
    frame = sys._getframe(1)
    while frame is not None:
        trainer = frame.f_locals.get("self")
        if isinstance(trainer, transformers.Trainer):
            return _for_the_model(cast(Any, trainer), _columns(trainer.train_dataset))
        frame = frame.f_back
    return ()


def _columns(data: Any) -> Sequence[str]:
    known = getattr(data, "column_names", None)
    if known is None and hasattr(data, "__getitem__") and len(data):
        row = data[0]
        known = list(cast(Mapping[str, Any], row)) if isinstance(row, Mapping) else None
    return known or ()


def _for_the_model(trainer: Any, known: Sequence[str]) -> tuple[str, ...]:
    """Without what a loss of the user's own takes: such a compute_loss may take any column that Trainer leaves in the
    batch; a compute_loss_func and label smoothing take the labels."""
    if type(trainer).compute_loss is not transformers.Trainer.compute_loss:
        left = trainer._signature_columns if trainer.args.remove_unused_columns else known
        return tuple(name for name in known if name not in (left or known))
    taken = trainer.label_names if trainer.compute_loss_func or trainer.label_smoother else ()
    return tuple(name for name in known if name not in taken)
