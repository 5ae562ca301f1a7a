"""What a run shows beside its steps: evaluations, demos, checkpoints and probes, made and written by the first
process."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from earnest.codecs import Codec
from earnest.data.corpus import Corpus
from earnest.facts import Facts
from earnest.losses.tokens import TokenObjective
from earnest.models.system import System
from earnest.monitors.demos import make_demos
from earnest.monitors.draws import Draws
from earnest.monitors.predictions import log_predictions
from earnest.probes.results import HeldOut, NullInput, Results
from earnest.probes.suite import Frozen, at_end, at_start
from earnest.run import RunWriter, checkpoint_path
from earnest.signals import key
from earnest.training.checkpoint import save_checkpoint
from earnest.training.config import LMConfig
from earnest.training.evaluate import Ladder, clip_sums, gaps, mean_nats
from earnest.training.precision import resolve_precision
from earnest.training.session import made_with


class Reporter:
    """Looks at `shown`, the model as it is evaluated, heard and saved, and writes what it sees into the run."""

    def __init__(
        self,
        config: LMConfig,
        run_dir: Path,
        shown: System,
        codec: Codec,
        train: Corpus,
        held_out: Corpus,
        draws: Draws,
        data_facts: Mapping[str, Any],
    ):
        self.config, self.run_dir, self.shown, self.codec = config, run_dir, shown, codec
        self.train, self.held_out, self.draws, self.data_facts = train, held_out, draws, data_facts
        self.unconditional_frac = config.data.variation(codec.frame_rate_hz).unconditional_frac
        self.ladder = Ladder(train.batches(), held_out.batches(), len(held_out), shown.vocabulary)
        self.writer = RunWriter(run_dir)

    def begin(self, facts: Mapping[str, Any], step: int, resumed: bool) -> None:
        self.writer.event(step, "resumed" if resumed else "started")
        self.writer.facts(Facts().updated({**self.data_facts, **self._facts(), **facts}))

    def at_start(self, objective: TokenObjective, optimizer: torch.optim.Optimizer) -> None:
        """Before the first step: what is skipped, the probes of data and wiring, and how a model that has learnt
        nothing scores."""
        self.writer.step(0, {key("skipped_clips"): self.data_facts["skipped_clips"]})
        self.writer.probes(at_start(objective, optimizer, self.train, self.held_out))
        self.evaluate(0)

    def report(self, step: int, due: Collection[str], training_state: dict[str, Any]) -> None:
        """Make what is due at this step. The checkpoint comes last: its random numbers are those that the next step
        begins with."""
        if "evaluation" in due:
            self.evaluate(step)
        if "demos" in due:
            self.demos(step)
        if "checkpoint" in due:
            state = {**training_state, "step": step, "torch_rng": torch.get_rng_state()}
            save_checkpoint(self.run_dir, step, self.shown.save_pretrained, state, {"config": asdict(self.config)})

    def at_end(self, frozen: Frozen, of_ranks: Sequence[Mapping[str, str]], step: int) -> None:
        checkpoint = checkpoint_path(self.run_dir, step)
        self.writer.probes(at_end(self.shown, frozen, of_ranks, self.config.load, checkpoint, self.held_out, step))

    def end(self, step: int, how: str) -> None:
        self.writer.event(step, how)
        self.writer.close()

    def evaluate(self, step: int) -> None:
        sums = clip_sums(self.shown, self.held_out.batches(), len(self.held_out))
        signals = {key("ce_nats", str(stream), "eval"): nats for stream, nats in mean_nats(sums).items()}
        if self.unconditional_frac:
            null_sums = clip_sums(self.shown, without_text(self.held_out).batches(), len(self.held_out))
            signals |= {key("null_ce_nats", stream, "eval"): nats for stream, nats in mean_nats(null_sums).items()}
            self.writer.probes(Results(null_input=NullInput(gaps(sums, null_sums), step)))
        self.writer.step(step, signals | self.config.measured(self.shown))
        self.writer.probes(Results(held_out=HeldOut(self.ladder.place(sums), step)))
        self.writer.probes(self.draws.probes())
        logged = range(min(self.config.predictions, len(self.held_out)))
        if logged:
            log_predictions(
                self.shown,
                self.held_out.batch(logged),
                [row.source for row in self.held_out.rows],
                step,
                self.writer,
            )

    def demos(self, step: int) -> None:
        wanted = self.config.demos
        speaker = wanted.speaker or self.data_facts["speakers"][0]
        requests = [(text, temperature) for text in wanted.texts for temperature in wanted.temperatures]
        options = (speaker, wanted.guidance, wanted.seed, wanted.max_duration_s)
        make_demos(self.shown, self.codec, requests, *options, self.train.rows, step, self.writer)

    def _facts(self) -> dict[str, Any]:
        config, model, codec = self.config, self.shown, self.codec
        return {
            "system": model.name,
            "text_vocab": model.text_vocab,
            "audio_vocab": model.audio_vocab,
            "config": asdict(config),
            "codebooks": model.codebooks,
            "delays": model.delays,
            "eos_id": model.eos_id,
            "codec": codec.name,
            "sample_rate_hz": codec.sample_rate_hz,
            "frame_rate_hz": codec.frame_rate_hz,
            "pretrained": bool(getattr(config, "model", "")),
            "label_counts": self.ladder.label_counts,
            "repeat_frac": self.ladder.repeat_frac,
            "train_targets": sum(sum(counts.values()) for counts in self.ladder.label_counts.values()),
            "max_grad_norm": config.optimizer.max_grad_norm,
            "accumulation_steps": config.optimizer.accumulation_steps,
            "warmup_steps": config.optimizer.warmup_steps,
            "loss_weights": config.weights(model.codebooks),
            "guidance": config.demos.guidance,
            "unconditional_frac": self.unconditional_frac,
            "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "parameters": sum(p.numel() for p in model.parameters()),
            "mixed_precision": resolve_precision(config.mixed_precision),
            **made_with("earnest", "torch", "transformers"),
        }


def without_text(corpus: Corpus) -> Corpus:
    """The same clips with the null input in place of their texts."""
    vary = corpus.vary
    return Corpus(
        corpus.rows,
        corpus.lay_out,
        corpus.pad_id,
        corpus.positions_per_batch,
        lambda row, random: replace(vary(row, random), text=None),
    )
