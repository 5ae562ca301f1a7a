"""What a language model's run shows beside its steps, made and written by the first process."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from earnest.checkpoints import checkpoint_path
from earnest.codecs import Codec
from earnest.data.corpus import Corpus
from earnest.facts import Facts
from earnest.losses.tokens import TokenObjective
from earnest.models.precision import computed_in
from earnest.models.system import System
from earnest.monitors.demos import Demo, DemoSet
from earnest.monitors.predictions import log_predictions
from earnest.probes.parameters import Frozen
from earnest.probes.results import HeldOut, HeldOutStream, NullInput, Results
from earnest.probes.suite import at_end, at_start
from earnest.run import Step
from earnest.signals import key
from earnest.streams import Stream
from earnest.training.reporter import Reporter, facts_of_run
from earnest.training.tokens.assembly import TokenAssembly
from earnest.training.tokens.card import card
from earnest.training.tokens.config import TokenConfig
from earnest.training.tokens.evaluate import Rungs, clip_sums, gaps, mean_nats
from earnest.training.tokens.lora import CARD
from earnest.training.tokens.preparation import Corpora
from earnest.training.tokens.sharding import on_device

MEASURED_CLIPS = 20_000  # evenly spaced clips that unigram and bigram are fitted on: minutes of one core (assumed)


class TokenReporter(Reporter[TokenConfig]):
    """Looks at `model`, the one that is evaluated, played and saved."""

    def __init__(
        self,
        config: TokenConfig,
        run_dir: Path,
        assembly: TokenAssembly,
        model: System,
        codec: Codec,
        corpora: Corpora,
        device: torch.device,
    ):
        """device: where the model is evaluated and played, in the run's precision."""
        super().__init__(config, run_dir)
        self.device, self.autocast = device, computed_in(device, config.mixed_precision)
        self.assembly, self.model, self.codec, self.corpora = assembly, model, codec, corpora
        self.train, self.held_out = corpora.train, corpora.held_out
        self.demo_set = self._demo_set()
        self.written, self.placed, self.latest = Facts(), dict[Stream, HeldOutStream](), 0
        self.rungs = Rungs(
            self.train.batches(MEASURED_CLIPS), self.held_out.batches(), len(self.held_out), model.vocabulary
        )

    def _demo_set(self) -> DemoSet | None:
        wanted = self.config.demos
        if not wanted.every_steps:
            return None
        speaker = wanted.speaker or min(row.speaker for row in self.train.rows)
        demos = [
            Demo(text, speaker, temperature, wanted.seed, wanted.guidance)
            for text in wanted.texts
            for temperature in wanted.temperatures
        ]
        return DemoSet(self.model, self.codec, demos, wanted.max_duration_s, self.train.rows, self.autocast)

    def facts(self) -> Facts:
        config, model, codec = self.config, self.model, self.codec
        targets = sum(sum(counts.values()) for counts in self.rungs.label_counts.values())
        self.written = self.corpora.facts.updated(
            {
                **facts_of_run(config, model, ("earnest", "torch", "transformers")),
                "system": model.name,
                "text_vocab": model.text_vocab,
                "audio_vocab": model.audio_vocab,
                "codebooks": model.codebooks,
                "delays": model.delays,
                "eos_id": model.eos_id,
                "codec": codec.name,
                "sample_rate_hz": codec.sample_rate_hz,
                "frame_rate_hz": codec.frame_rate_hz,
                "pretrained": self.assembly.pretrained,
                "label_counts": self.rungs.label_counts,
                "repeat_frac": self.rungs.repeat_frac,
                "train_targets": targets,
                "accumulation_steps": config.optimizer.accumulation_steps,
                "loss_weights": self.assembly.weights,
                "guidance": config.demos.guidance,
                "unconditional_frac": self.assembly.variation.unconditional_frac,
            }
        )
        return self.written

    def at_start(self, objective: TokenObjective, optimizer: torch.optim.Optimizer) -> None:
        """Before the first step: what is skipped, the probes of data and wiring, and how a model that has learnt
        nothing scores."""
        self.writer.step(0, {key("skipped_clips"): self.corpora.facts.skipped_clips or 0})
        with on_device(objective, self.device):
            self.writer.probes(at_start(objective, optimizer, self.train, self.held_out))
        self.evaluate(0)
        if self.demo_set:
            self.demo_set.write_originals([self.held_out.rows, self.train.rows], self.writer)
        if self.assembly.pretrained:
            self.demos(0)  # what it says before it is trained on

    def at_end(self, frozen: Frozen, of_ranks: Sequence[Mapping[str, str]], step: int) -> None:
        """After the last checkpoint. of_ranks: fingerprints of the parameters on every process."""
        checkpoint = checkpoint_path(self.run_dir, step)
        with on_device(self.model, self.device), self.autocast():
            probes = at_end(self.model, frozen, of_ranks, self.assembly.load, checkpoint, self.held_out, step)
        self.writer.probes(probes)

    def row(self, step: Step) -> None:
        self.latest = step.index
        self.writer.step(step.index, step.signals)

    def evaluate(self, step: int) -> None:
        with on_device(self.model, self.device), self.autocast():
            self._evaluate(step)

    def _evaluate(self, step: int) -> None:
        sums = clip_sums(self.model, self.held_out.batches(), len(self.held_out))
        signals = {key("ce_nats", stream, "eval"): nats for stream, nats in mean_nats(sums).items()}
        if self.assembly.variation.unconditional_frac:
            null_sums = clip_sums(self.model, without_text(self.held_out).batches(), len(self.held_out))
            signals |= {key("null_ce_nats", stream, "eval"): nats for stream, nats in mean_nats(null_sums).items()}
            self.writer.probes(Results(null_input=NullInput(gaps(sums, null_sums), step)))
        if self.assembly.evaluate:
            signals |= self.assembly.evaluate(self.model)
        self.writer.step(step, signals)
        self.placed = self.rungs.place(sums)
        self.writer.probes(Results(held_out=HeldOut(self.placed, step)))
        self._predict(step)

    def _predict(self, step: int) -> None:
        clips = range(min(self.config.predictions, len(self.held_out)))
        if clips:
            sources = [row.source for row in self.held_out.rows]
            log_predictions(self.model, self.held_out.batch(clips), sources, step, self.writer)

    def weights(self) -> Mapping[Stream, float]:
        return self.assembly.weights

    def demos(self, step: int) -> None:
        if self.demo_set:
            with on_device(self.model, self.device):
                self.demo_set.make(step, self.writer)

    def save_model(self, directory: Path) -> None:
        self.model.save_pretrained(directory)
        text = card(self.model, self.written, self.assembly.base, self.placed, self.latest)
        (directory / CARD).write_text(text, encoding="utf-8")


def without_text(corpus: Corpus) -> Corpus:
    """The same corpus with the null input in place of its texts."""
    vary = corpus.vary
    return Corpus(
        corpus.rows,
        corpus.lay_out,
        corpus.pad_id,
        corpus.positions_per_batch,
        lambda row, random: replace(vary(row, random), text=None),
    )
