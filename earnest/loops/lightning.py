"""`earnest.LightningCallback`: a training with Lightning, watched."""

import sys
from typing import TYPE_CHECKING, Any

from earnest.errors import UserError
from earnest.loops.callback import Callback

if TYPE_CHECKING:
    Base: Any = object
else:  # the package that the training itself has imported; the two do not mix
    try:
        if "pytorch_lightning" in sys.modules and "lightning" not in sys.modules:
            from pytorch_lightning import Callback as Base
        else:
            try:
                from lightning.pytorch import Callback as Base
            except ImportError:
                from pytorch_lightning import Callback as Base
    except ImportError as error:
        raise UserError(
            "no package lightning", "Lightning, which this callback is for", "pip install lightning"
        ) from error


class LightningCallback(Callback, Base):
    """``Trainer(callbacks=[earnest.LightningCallback(stop_on="critical")])``: see `earnest.watch` for the arguments.

    out: earnest/ in the trainer's log directory if not given. With stop_on the training ends after the batch.
    """

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        folder = trainer.log_dir or trainer.default_root_dir  # which all processes ask for together
        if not trainer.is_global_zero:
            return  # it has a part in `on_train_batch_end` alone
        facts: dict[str, Any] = {"trainer": "lightning", "accumulation_steps": trainer.accumulate_grad_batches}
        if trainer.gradient_clip_val:
            facts["max_grad_norm"] = float(trainer.gradient_clip_val)
        self._begin(pl_module, list(trainer.optimizers), folder, facts, trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._asks(trainer.global_step) and trainer.strategy.reduce_boolean_decision(self._should_stop, all=False):
            trainer.should_stop = True

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        watch = self.watch
        if watch is None or trainer.sanity_checking:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if str(name).startswith("val")}
        watch.guard.call("metrics", lambda: watch.log(None, **values), None)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.watch is not None:
            self.watch.close("interrupted")
