"""The streams of a run, each looked up once: `StreamView`."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from earnest.facts import Facts, Unit
from earnest.probes.results import Alignment, HeldOutStream
from earnest.rules.finding import Baseline
from earnest.rules.measure import HIGHEST_CHANCE, Course, Measure, course, degenerate, end_of, last_of, order_of_clips
from earnest.rules.statistics import miller_madow
from earnest.run import Run, Series
from earnest.streams import TEXT, TOTAL, Stream, in_order

# Audio codes are never this predictable on unseen data, as a share of ln V: 0.35 nats of 6.93. Lowest believable report
# known: 0.96 nats, on silence-heavy sound effects (audiocraft#447).
TOO_GOOD = 0.05
# The same for text without audio beside it, in nats (assumed: supervised answers reach 0.1, constant ones 0.01).
TOO_GOOD_TEXT = 0.02
# The same for text that began above 4 nats (assumed): no model from scratch predicts unseen text so well.
TOO_GOOD_FROM_SCRATCH, FROM_SCRATCH = 0.05, 4.0


# Units of a loss that no vocabulary gives a level of chance
NO_MEAN: dict[Unit | None, str] = {
    "sum": "a sum over tokens, frames or clips: it grows with the batch and has no level of chance",
    "other": "no mean over targets: no vocabulary gives its level of chance",
}
HIGHEST = 14.0  # nats: chance of 1.2 million ids, more than any vocabulary in use (assumed)
SHOWN = "always above 14 nats, which is chance of 1.2 million ids: a sum over targets, or no cross-entropy of tokens"
KNOWING = 20  # times the accuracy of a uniform guess: whoever has that is not above chance (assumed)
# In a joint vocabulary: levels of a model that knows which ids may follow
AUDIO_IDS, ONE_CODEBOOK = "audio ids", "one codebook's ids"


@dataclass(frozen=True)
class StreamView:
    """One stream of a run: its series, what was measured on held-out clips, and the baselines that are known.

    The loss without a stream is the stream `TOTAL`. beside: every stream of tokens in the run.
    """

    run: Run
    stream: Stream
    beside: tuple[Stream, ...]

    @property
    def facts(self) -> Facts:
        return self.run.facts

    @cached_property
    def train(self) -> Series | None:
        return self._loss("train")

    @cached_property
    def evaluated(self) -> Series | None:
        return self._loss("eval")

    def _loss(self, split: str) -> Series | None:
        """Its cross-entropy; a plain loss of that stream is taken for it."""
        stream = None if self.stream == TOTAL else self.stream
        return self.run.get(split, "ce_nats", stream) or self.run.get(split, "loss", stream)

    @cached_property
    def course(self) -> Course | None:
        """How its training went, or its evaluation if that is what gets worse or is all there is."""
        train, evaluated = course(self._whole_epochs), course(self.evaluated)
        return evaluated if train is None or (evaluated is not None and evaluated.gets_worse) else train

    @property
    def _whole_epochs(self) -> Series | None:
        """Training without an epoch that has just begun, and is higher only as its first clips are."""
        begins = order_of_clips(self.train, self.facts.steps_per_epoch)
        return self.train if self.train is None or begins is None else self.train.where(self.train.step < begins)

    @cached_property
    def start(self) -> float | None:
        """The highest of the first three values of training."""
        return float(self.train.head(3).value.max()) if self.train is not None and len(self.train.finite) else None

    @cached_property
    def has_evaluation(self) -> bool:
        """Whether it was evaluated, and that gave numbers to the end."""
        return self.evaluated is not None and len(self.evaluated.finite) > 0 and degenerate(self.evaluated) is None

    @cached_property
    def rows_are_epochs(self) -> bool:
        """Whether each row is a pass over the data: it is numbered so, or evaluated at every step at which training is
        logged."""
        if self.run.counts_epochs:
            return True
        if self.train is None or self.evaluated is None or len(self.train) < 5:
            return False
        return bool(np.isin(self.train.step, self.evaluated.step).mean() > 0.9)

    @property
    def went(self) -> str:
        """How it went, in words, and in which split if both are logged."""
        if self.course is None:
            return ""
        evaluated = course(self.evaluated)
        if self.train is None or evaluated is None:
            return self.course.in_words
        split = "evaluation" if evaluated.gets_worse or course(self.train) is None else "training"
        return f"{split}: {self.course.in_words}"

    @property
    def any(self) -> Series | None:
        """Training, or evaluation if training is not logged."""
        return self.train or self.evaluated

    @cached_property
    def held_out(self) -> HeldOutStream:
        """What the probe ``held_out`` measured of this stream."""
        probe = self.run.probes.held_out
        return (probe.streams.get(self.stream) if probe else None) or HeldOutStream()

    @property
    def alignment(self) -> Alignment | None:
        return (self.run.probes.alignment or {}).get(self.stream)

    @property
    def is_audio(self) -> bool:
        """Whether its targets are audio codes; a total that stands alone is taken for audio if that vocabulary is
        known."""
        return self.stream.is_audio or (self.stream == TOTAL and bool(self.facts.audio_vocab))

    @property
    def unit(self) -> Unit | None:
        """What its printed loss is, if it is known."""
        return (self.facts.units or {}).get(self.stream)

    @property
    def no_mean(self) -> str | None:
        """Why no vocabulary gives its level of chance, or None: its unit is known, or shown."""
        return NO_MEAN.get(self.unit) or (SHOWN if self.unit is None and self._is_a_sum else None)

    @cached_property
    def _is_a_sum(self) -> bool:
        """A total too high for a mean from its start to its end, and no known vocabulary speaks against that: none is
        known, or the accuracy beside it says that the targets are predicted."""
        values = self.any.finite.value if self.stream == TOTAL and self.any is not None else ()
        if not len(values) or min(values) < HIGHEST:
            return False
        size = vocabulary(self.stream, self.facts.text_vocab, self.facts.audio_vocab)
        accuracy = self.run.get("train", "accuracy_frac") or self.run.get("eval", "accuracy_frac")
        right = float(accuracy.finite.value[-1]) if accuracy is not None and len(accuracy.finite) else 0.0
        return size is None or right > KNOWING / size

    @property
    def stated(self) -> float | None:
        """The level of a predictor that has learnt nothing, as the user or the trainer's page states it."""
        return (self.facts.baselines or {}).get(self.stream)

    @property
    def vocabulary(self) -> int | None:
        """How many ids can occur as a target of a mean cross-entropy."""
        if self.no_mean:
            return None
        measured = (self.facts.classes or {}).get(self.stream)
        size = measured or vocabulary(self.stream, self.facts.text_vocab, self.facts.audio_vocab)
        return size or (self.facts.joint_vocab if self.stream == TOTAL else None)

    @property
    def vocabulary_fact(self) -> str:
        """How to say the vocabulary on the command line."""
        if self.stream.is_audio:
            return "--fact audio_vocab=..."
        return "--fact text_vocab=..." if self.stream == TEXT else "--fact audio_vocab=... or text_vocab=..."

    @cached_property
    def rungs(self) -> list[Baseline]:
        """The baselines of a token stream that are known, highest first."""
        held, counts, size = self.held_out, (self.facts.label_counts or {}).get(self.stream), self.vocabulary
        rungs: list[Baseline] = []
        if held.uniform_nats is not None:
            rungs.append(Baseline("uniform", held.uniform_nats))
        elif self.stated is not None:
            rungs.append(Baseline("uniform", self.stated))
        elif size:
            rungs += self._by_vocabulary(size)
        if held.unigram_nats is not None:
            rungs.append(Baseline("unigram", held.unigram_nats))
        elif counts and sum(counts.values()):
            rungs.append(Baseline("unigram", miller_madow(counts)))
        if held.bigram_nats is not None:
            rungs.append(Baseline("bigram", held.bigram_nats))
        return rungs

    def _by_vocabulary(self, size: int) -> list[Baseline]:
        """A uniform guess; in a vocabulary of text and audio ids: over all ids, over those of audio, over those of one
        codebook."""
        joint, text, codes = self.facts.joint_vocab, self.facts.text_vocab or 0, self.facts.audio_vocab
        if self.stream != TOTAL or not joint or joint <= size:
            return [Baseline("uniform", math.log(size))]
        rungs = [Baseline("uniform", math.log(joint))]
        if 0 < text < joint - 1:
            rungs.append(Baseline(AUDIO_IDS, math.log(joint - text)))
        if codes and codes < joint - text:
            rungs.append(Baseline(ONE_CODEBOOK, math.log(codes)))
        return rungs

    @property
    def audio_part(self) -> Baseline | None:
        """In a joint vocabulary: the lowest level that a model reaches by knowing only which ids may follow."""
        return self.rung(ONE_CODEBOOK) or self.rung(AUDIO_IDS)

    def rung(self, name: str) -> Baseline | None:
        return next((rung for rung in self.rungs if rung.name == name), None)

    @property
    def chance(self) -> Baseline | None:
        """The highest baseline that is known."""
        return self.rungs[0] if self.rungs else None

    @cached_property
    def now(self) -> Measure | None:
        """Its value now: of the held-out probe, else of the last evaluation, else of the end of training."""
        if self.held_out.ce_nats is not None and math.isfinite(self.held_out.ce_nats):
            return Measure(self.held_out.ce_nats, self.held_out.interval, "held out", self.evaluated or self.train)
        if self.evaluated is not None and self.has_evaluation:
            return last_of(self.evaluated, "evaluation")
        if self.train is not None and len(self.train.finite):
            return end_of(self.train)
        return None

    @property
    def is_printed_divided(self) -> bool:
        """Whether its value now is one of training, printed divided by accumulation steps that are not known."""
        return self.unit == "divided" and self.now is not None and self.now.source == "training"

    def is_below(self, rung: Baseline) -> bool:
        """Below a rung by more than the interval: the paired one if clips were compared, else that of the series."""
        gap = self.held_out.gaps.get(rung.name)
        if self.now is None:
            return False
        return gap[2] < 0 if gap and self.now.source == "held out" else self.now.is_below(rung)

    @cached_property
    def too_good(self) -> float | None:
        """The level in nats below which a loss of this stream is not believed, or None if every level is.

        Text beside audio is not judged: for plain speech synthesis its targets are constants (4e-7 nats in
        higgs-audio#94). If nearly all targets are one id, their unigram entropy is as low by itself, so half of that
        (assumed) bounds the level. So does the bigram's if the alignment probe has seen that labels are shifted; labels
        that are not make it 0.
        """
        if self.no_mean and self.stated is None:
            return None
        if self.is_audio:
            aligned = self.alignment is not None and self.alignment.offset == self.alignment.expected
            trusted = ("unigram", "bigram") if aligned else ("unigram",)
            known = [0.5 * rung.value for rung in self.rungs if rung.name in trusted]
            return min([TOO_GOOD * math.log(self.vocabulary or 1024), *known])
        if self.has_audio_beside or self.start is None or self.no_mean:
            return None
        if self.vocabulary:
            return TOO_GOOD_FROM_SCRATCH if self.start > FROM_SCRATCH else TOO_GOOD_TEXT
        # no vocabulary: what fell from where a cross-entropy starts, and is as low on held-out data
        looks_like_one = FROM_SCRATCH < self.start < HIGHEST_CHANCE
        return TOO_GOOD_FROM_SCRATCH if looks_like_one and self.has_evaluation else None

    @property
    def has_audio_beside(self) -> bool:
        return any(stream.is_audio for stream in self.beside)

    def only_in_training(self, level: float) -> bool:
        """Whether held-out clips score far above this level: memorised, as a target that is among the inputs is so in
        held-out clips too."""
        return bool(
            self.evaluated is not None and len(self.evaluated.finite) and self.evaluated.finite.value[-1] > 3 * level
        )


def vocabulary(stream: Stream, text_vocab: int | None, audio_vocab: int | None) -> int | None:
    """How many ids can occur as a target; a total that stands alone is taken for audio, or for text if only that
    vocabulary is known."""
    if stream == TOTAL:
        return audio_vocab or text_vocab
    return text_vocab if stream == TEXT else audio_vocab if stream.is_audio else None


def token_streams(run: Run) -> list[Stream]:
    """Streams of tokens: those with a cross-entropy, and text and audio if only a loss is logged, text first; else a
    total that stands alone."""
    found = set(run.probes.held_out.streams if run.probes.held_out else ())
    for _, name, stream in run.series:
        if stream and (name == "ce_nats" or (name == "loss" and (stream == TEXT or stream.is_audio))):
            found.add(stream)
    whole = StreamView(run, TOTAL, ())
    split = "eval" if whole.train is None and whole.evaluated is not None else "train"
    has_parts = any(key.stream for key in run.series if key[:2] == (split, "loss"))
    if not found and not has_parts and whole.any:
        return [TOTAL]
    return in_order(found)
