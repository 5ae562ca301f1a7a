"""A language model as it learns: its objective, optimizer and schedule, and the copy of it that is evaluated."""

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from earnest.errors import UserError
from earnest.losses.tokens import TokenObjective
from earnest.models.system import System
from earnest.streams import Stream
from earnest.training.optim import adamw, running_average, warmup_cosine
from earnest.training.tokens.config import Optimizer, TokenConfig
from earnest.training.tokens.sharding import (
    buffers_set_aside,
    gather_weights,
    load_optimizer_state,
    optimizer_state,
)


class Learner:
    """`model` is trained; `evaluated` is what is evaluated, used for demos and saved: the running average of `model`, a
    whole copy of its shards on the first process, or `model` itself."""

    def __init__(
        self,
        model: System,
        weights: Mapping[Stream, float],
        settings: Optimizer,
        learning_rate: float,
        steps: int,
        accelerator: Accelerator,
    ):
        """learning_rate: the peak, if the settings name none."""
        self.model, self.accelerator = model, accelerator
        peak = learning_rate if settings.learning_rate is None else settings.learning_rate
        self.optimizer: Any = adamw(model, peak, settings.weight_decay, settings.states)
        self.schedule = warmup_cosine(self.optimizer, settings.warmup_steps, steps)
        self.objective: Any = TokenObjective(model, weights)
        self.average = running_average(model, settings.ema_decay) if settings.ema_decay else None
        self.sharded = accelerator.is_fsdp2
        self.evaluated = self._evaluated()

    def _evaluated(self) -> System:
        if self.average:
            return cast(System, self.average.module)
        return copy.deepcopy(self.model) if self.sharded and self.accelerator.is_main_process else self.model

    def distribute(self) -> None:
        """Give objective and optimizer to accelerate, which wraps them for several processes."""
        with buffers_set_aside(self.objective) if self.sharded else nullcontext():
            self.objective, self.optimizer = self.accelerator.prepare(self.objective, self.optimizer)

    def stepped(self) -> None:
        """Update the running average, if there is one; called after every optimizer step."""
        if self.average:
            self.average.update_parameters(self.model)

    def gather(self) -> None:
        """Bring `evaluated` up to date if the trained model lies in shards. All processes call it together."""
        if self.sharded:
            gather_weights(self.objective, self.evaluated)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the evaluated model. All processes call it together."""
        state = {"optimizer": optimizer_state(self.objective, self.optimizer), "schedule": self.schedule.state_dict()}
        if self.average:
            state["trained"] = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, with the evaluated model of its checkpoint loaded already."""
        if self.average:
            self.average.n_averaged.fill_(state["step"])
            self._load_trained(state.get("trained", {}))
        load_optimizer_state(self.objective, self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])

    def _load_trained(self, stored: Mapping[str, torch.Tensor]) -> None:
        """The trained weights; the model was loaded with their average. Frozen weights are the same in both."""
        wanted = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        if stored.keys() != wanted:
            raise UserError(
                f"a checkpoint with {len(stored.keys() & wanted)} of {len(wanted)} trained tensors beside the average",
                "all of them, and no others",
                "continue with the version of earnest that wrote it, or start anew",
            )
        self.model.load_state_dict(stored, strict=False)


def check_parallel(accelerator: Accelerator, config: TokenConfig) -> None:
    """Raises UserError if accelerate is set to a way of several processes that is not supported."""
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM) or (
        kind == DistributedType.FSDP and not accelerator.is_fsdp2
    ):
        raise UserError(
            f"accelerate set to {kind.value}",
            "one process, data parallel, or FSDP2",
            "accelerate launch --multi_gpu, or --use_fsdp --fsdp_version 2",
        )
    if accelerator.is_fsdp2 and config.compile:
        raise UserError(
            "--compile of a model in shards", "one of the two", "accelerate launch --multi_gpu, or no --compile"
        )
    if accelerator.is_fsdp2 and config.optimizer.ema_decay:
        raise UserError(
            f"a running average (optimizer.ema_decay {config.optimizer.ema_decay:g}) of a model in shards",
            "one of the two",
            "--optimizer.ema-decay 0, or accelerate launch --multi_gpu",
        )
