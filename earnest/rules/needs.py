"""What a rule may ask for: the annotations of its parameters, and how each is looked up in a run.

A parameter is named as what it asks for is named in its vocabulary, if the annotation does not name it; ``| None``
behind an annotation says that it may be missing.

- ``grad_norm: Signal``: a series of the training split. The rule is called once for every stream that has the first
  signal it asks for; the others are taken from the same stream, or from the whole run if they have none.
- ``series: Loss``, ``evaluated: EvaluatedLoss``, ``loss: LossInBothSplits``: a cross-entropy, else a plain loss.
- ``residual_frac: PerStream``, ``losses: PlainLosses``: a signal of every stream at once.
- ``codebook_size: Fact[int]``, ``crops: Probe[Crops]``: a field of `Facts`, of `Results`, and of its type.
- ``tokens: Tokens``: a stream of tokens and its verdict; the rule is called once for each.
- ``judged: AllJudged``, ``gan: GanSides``, ``last_step: LastStep``, ``series: AllSeries``, ``messages: Messages``: of
  the whole run.
- ``demos: Annotated[Demos, WithFact("stopped")]``: demos that carry a fact, in order of their steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Literal, TypeVar

from earnest.facts import FACTS
from earnest.messages import Message
from earnest.probes.results import Results
from earnest.rules.gan import Gan
from earnest.rules.verdicts import Judged, judge
from earnest.run import Artifact, Run, Series
from earnest.signals import SIGNALS, Key
from earnest.streams import TEXT, Stream

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """A run and its verdicts, as rules ask about it."""

    run: Run

    @cached_property
    def judged(self) -> list[Judged]:
        return judge(self.run)

    @cached_property
    def gan(self) -> Gan:
        return Gan(self.run)


class Need(ABC):
    """One thing that a rule asks for."""

    @abstractmethod
    def words(self) -> str:
        """How a user provides what is missing: a fact to pass, a signal to log, a probe to run."""

    @abstractmethod
    def find(self, case: Case, stream: Stream | None) -> object:
        """What is asked for, or None if the run does not have it."""

    def named(self, parameter: str) -> "Need":
        """This need under the name of its parameter. Raises TypeError if nothing has this name."""
        return self

    def streams(self, case: Case) -> Sequence[Stream | None]:
        """For which streams a rule is called that asks for this first; (None,): once, for the whole run."""
        return (None,)


@dataclass(frozen=True)
class OneOf(Need):
    """The first of some signals that a stream has; without names, the signal that the parameter is named after."""

    names: tuple[str, ...] = ()
    split: str = "train"

    def words(self) -> str:
        return " or ".join(f"{self.split}/{name}" for name in self.names)

    def named(self, parameter: str) -> "OneOf":
        result = self if self.names else replace(self, names=(parameter,))
        if unknown := [name for name in result.names if name not in SIGNALS]:
            raise TypeError(f"{unknown[0]} is no signal")
        return result

    def streams(self, case: Case) -> Sequence[Stream | None]:
        keys = [key for key in case.run.series if key.split == self.split and key.name in self.names]
        return list(dict.fromkeys(key.stream for key in keys))

    def find(self, case: Case, stream: Stream | None) -> object:
        return self.series(case.run, stream)

    def series(self, run: Run, stream: Stream | None) -> Series | None:
        places = [(name, one) for name in self.names for one in dict.fromkeys((stream, None))]
        return next((found for name, one in places if (found := run.get(self.split, name, one)) is not None), None)


class OfAudio(OneOf):
    """A signal of an audio stream."""

    def words(self) -> str:
        return f"{super().words()} of an audio stream"

    def streams(self, case: Case) -> Sequence[Stream | None]:
        return [stream for stream in super().streams(case) if stream and stream.is_audio]


class OfWholeRun(OneOf):
    """A signal of the whole run, not that of a discriminator or of a group of parameters."""

    def streams(self, case: Case) -> Sequence[Stream | None]:
        return [stream for stream in super().streams(case) if stream is None]


class OfEveryStream(OneOf):
    """A signal of every stream: stream -> series."""

    def streams(self, case: Case) -> Sequence[Stream | None]:
        return (None,)

    def find(self, case: Case, stream: Stream | None) -> object:
        found: dict[Stream | None, Series] = {}
        for name in self.names:
            for key, series in case.run.series.items():
                if key[:2] == (self.split, name):
                    found.setdefault(key.stream, series)
        return found or None


@dataclass(frozen=True)
class BothSplits:
    """A loss of evaluation and, under the same key, of training."""

    evaluated: Series
    train: Series | None


class EvaluatedAndTrained(OneOf):
    """`BothSplits` of a loss that is evaluated."""

    def find(self, case: Case, stream: Stream | None) -> object:
        evaluated = self.series(case.run, stream)
        if evaluated is None:
            return None
        return BothSplits(evaluated, case.run.get("train", evaluated.key.name, evaluated.stream))


@dataclass(frozen=True)
class OfFacts(Need):
    """The fact that the parameter is named after."""

    name: str = ""

    def words(self) -> str:
        return f"--fact {self.name}=..."

    def named(self, parameter: str) -> "OfFacts":
        if parameter not in FACTS:
            raise TypeError(f"{parameter} is no fact")
        return OfFacts(parameter)

    def find(self, case: Case, stream: Stream | None) -> object:
        return getattr(case.run.facts, self.name)


@dataclass(frozen=True)
class OfProbes(Need):
    """The result of the probe that the parameter is named after."""

    name: str = ""

    def words(self) -> str:
        return f"the probe {self.name}"

    def named(self, parameter: str) -> "OfProbes":
        if parameter not in Results.__struct_fields__:
            raise TypeError(f"{parameter} is no probe")
        return OfProbes(parameter)

    def find(self, case: Case, stream: Stream | None) -> object:
        return getattr(case.run.probes, self.name)


@dataclass(frozen=True)
class JudgedStreams(Need):
    """A stream of tokens and its verdict: of any, of audio, or of text."""

    kind: Literal["tokens", "audio", "text"]

    def words(self) -> str:
        kinds = {"tokens": "text or audio, or of the whole run", "audio": "an audio stream", "text": "text"}
        return f"train/ce_nats or train/loss of {kinds[self.kind]}"

    def streams(self, case: Case) -> Sequence[Stream | None]:
        return [one.stream for one in case.judged if self._asks_for(one)]

    def find(self, case: Case, stream: Stream | None) -> object:
        return next((one for one in case.judged if self._asks_for(one) and one.stream == stream), None)

    def _asks_for(self, one: Judged) -> bool:
        fits = {"tokens": True, "audio": one.stream.is_audio, "text": one.stream == TEXT}
        return one.is_tokens and fits[self.kind]


@dataclass(frozen=True)
class OfRun(Need):
    """What is looked up in the whole run; an empty answer is none."""

    called: str
    look: Callable[[Case], object]

    def words(self) -> str:
        return self.called

    def find(self, case: Case, stream: Stream | None) -> object:
        return self.look(case) or None


@dataclass(frozen=True)
class WithFact(Need):
    """Demos that carry a fact, in order of their steps."""

    fact: str

    def words(self) -> str:
        return f"demos with the fact {self.fact}"

    def find(self, case: Case, stream: Stream | None) -> Sequence[Artifact] | None:
        carry = [one for one in case.run.artifacts if one.kind == "demo" and one.facts.get(self.fact) is not None]
        return sorted(carry, key=lambda one: one.step) or None


GAN = "train/d_real and train/d_fake, or train/loss/loss_d, train/loss/adv_g, train/loss/feat"
LOSSES = ("ce_nats", "loss")
Signal = Annotated[Series, OneOf()]
AudioSignal = Annotated[Series, OfAudio()]
PerStream = Annotated[Mapping[Stream | None, Series], OfEveryStream()]
Loss = Annotated[Series, OneOf(LOSSES)]
EvaluatedLoss = Annotated[Series, OneOf(LOSSES, "eval")]
LossInBothSplits = Annotated[BothSplits, EvaluatedAndTrained(LOSSES, "eval")]
Losses = Annotated[Mapping[Stream | None, Series], OfEveryStream(LOSSES)]
EvaluatedLosses = Annotated[Mapping[Stream | None, Series], OfEveryStream(LOSSES, "eval")]
PlainLosses = Annotated[Mapping[Stream | None, Series], OfEveryStream(("loss",))]
# What is trained is the cross-entropy over all rows of an output layer, of which a stream's own ids may be a part.
WeightedLosses = Annotated[Mapping[Stream | None, Series], OfEveryStream(("loss", "ce_full_nats", "ce_nats"))]
Fact = Annotated[T, OfFacts()]
Probe = Annotated[T, OfProbes()]
Tokens = Annotated[Judged, JudgedStreams("tokens")]
AudioTokens = Annotated[Judged, JudgedStreams("audio")]
TextTokens = Annotated[Judged, JudgedStreams("text")]
AllJudged = Annotated[Sequence[Judged], OfRun("a loss", lambda case: case.judged)]
GanSides = Annotated[Gan, OfRun(GAN, lambda case: case.gan if case.gan.exists else None)]
LastStep = Annotated[int, OfRun("a signal over steps", lambda case: case.run.last_step)]
AllSeries = Annotated[Mapping[Key, Series], OfRun("a signal over steps", lambda case: case.run.series)]
Messages = Annotated[
    Sequence[Message],
    OfRun("a log with words beside its numbers, which say what went wrong", lambda case: case.run.messages),
]
Demos = Sequence[Artifact]
LabelCounts = Mapping[Stream, Mapping[int, int]]
