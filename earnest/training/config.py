"""What the configurations of language models and of codecs have in common."""

from dataclasses import Field
from typing import Any, ClassVar, Protocol

from earnest.models.precision import Precision


class Optimizer(Protocol):
    """What both say of the optimizer's steps."""

    @property
    def warmup_steps(self) -> int: ...
    @property
    def max_grad_norm(self) -> float: ...


class Config(Protocol):
    """A dataclass of fields, each documented and an option of the command line."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def seed(self) -> int: ...
    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def mixed_precision(self) -> Precision: ...
    @property
    def keep_checkpoints(self) -> int: ...
    @property
    def tracker(self) -> tuple[str, ...]: ...
