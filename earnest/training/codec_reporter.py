"""What a codec's run shows beside its steps: rows of signals, evaluations, reconstructions, checkpoints."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earnest.codecs.amy import TrainableCodec
from earnest.data.audio import write_wave
from earnest.data.folder import Clip
from earnest.data.pitch import pitch_and_level
from earnest.data.teachers import word_times
from earnest.facts import Facts
from earnest.files import fingerprint
from earnest.losses.codec import CodecBatch, CodecObjective
from earnest.monitors.codes import probe, spoken
from earnest.probes.results import FrozenTensors, Results
from earnest.run import Artifact, RunWriter
from earnest.signals import key
from earnest.streams import parse
from earnest.training.checkpoint import save_checkpoint
from earnest.training.codec_clips import Heard
from earnest.training.codec_config import CodecConfig
from earnest.training.precision import resolve_precision
from earnest.training.session import made_with


class CodecReporter:
    """Looks at the codec, and writes what it sees into the run."""

    def __init__(
        self,
        config: CodecConfig,
        run_dir: Path,
        codec: TrainableCodec,
        objective: CodecObjective,
        train: Heard,
        held_out: Heard,
        data_facts: Mapping[str, Any],
    ):
        self.config, self.run_dir, self.codec, self.objective = config, run_dir, codec, objective
        self.held_out, self.data_facts = held_out, data_facts
        self.waves = [torch.from_numpy(wave_N).to(next(codec.parameters()).device) for wave_N in held_out.waves]
        self.frozen = {
            name: tensor for name, tensor in codec.state_dict(keep_vars=True).items() if name.startswith(codec.frozen)
        }
        self.prints = {name: fingerprint({name: tensor}) for name, tensor in self.frozen.items()}
        self.probes = Probes(config, codec, train, held_out) if config.probe_s else None
        self.writer = RunWriter(run_dir)
        self.rows: list[dict[str, float]] = []

    def begin(self, discriminator: nn.Module, step: int, resumed: bool) -> None:
        """What the run is made of, and what who has learnt nothing would score."""
        frames = self.config.data.clips_per_batch * math.ceil(self.config.data.window_s * self.codec.frame_rate_hz)
        self.writer.event(step, "resumed" if resumed else "started")
        self.writer.facts(Facts().updated({**self.data_facts, **self._facts(discriminator, frames)}))
        self.weigh(step + 1)
        baselines = {loss.stream: loss.baselines(self.waves[:50]) for loss in self.objective.mel_losses}
        heads = self.objective.heads.items()
        baselines |= {name: {"constant mean": head.constant} for name, head in heads}
        self.writer.probes(Results(baselines={parse(name): rungs for name, rungs in baselines.items()}))

    def weigh(self, step: int) -> None:
        """Declare the weights of the losses that the log holds from this step on."""
        weights = self.config.logged_weights(step, list(self.objective.heads))
        self.writer.facts(Facts().updated({"loss_weights": weights}))

    def watch(self, step: int, signals: dict[str, float]) -> None:
        """What every step is looked at for: its signals, for the next row; a side that did not move; a phase that
        begins."""
        self.rows.append(signals)
        for side in ("discriminator", "codec"):
            if signals.get(key("skipped_frac", side)):
                where = [name for name, value in signals.items() if "/loss/" in name and not math.isfinite(value)]
                self.writer.event(step, f"{side}'s step skipped, not finite: {', '.join(where) or 'its gradient'}")
        if step == self.config.discriminator.from_step:
            self.weigh(step)
        if step == self.config.adversarial_only_from_step:
            left = self.config.adversarial_only_spectral_frac
            self.writer.event(step, f"adversarial only: mel and msspec at {left:g} of their weights")

    def report(self, step: int, due: Collection[str], training_state: dict[str, Any]) -> None:
        """Make what is due at this step. The checkpoint comes last: its random numbers are those that the next step
        begins with."""
        if "row" in due:
            self.writer.step(step, _means(self.rows))
            self.rows.clear()
        self.codec.eval()
        if "evaluation" in due:
            self.evaluate(step)
        if "demos" in due:
            self.demos(step)
        self.codec.train()
        if "checkpoint" in due:
            state = {**training_state, "step": step, "torch_rng": torch.get_rng_state()}
            save_checkpoint(self.run_dir, step, self.codec.save_pretrained, state, {"config": asdict(self.config)})

    def end(self, step: int, how: str) -> None:
        self.writer.event(step, how)
        self.writer.close()

    @torch.no_grad()
    def evaluate(self, step: int) -> None:
        scores = []
        for index, wave_N in enumerate(self.waves):
            result = self.codec(wave_N[None])
            taught = self.held_out.taught(index, 0, result.latent_BDT.shape[2])
            on_device = lambda one: torch.from_numpy(one)[None].to(wave_N.device)  # noqa: B023, E731
            features = {
                name: (on_device(features_TF), on_device(exists_T)) for name, (features_TF, exists_T) in taught.items()
            }
            _, score = self.objective(result, CodecBatch(wave_N[None], features), "eval")
            bypass_BN = self.codec.synthesise(self.codec.quantiser.unquantised(result.latent_BDT))[:, : len(wave_N)]
            for loss in self.objective.mel_losses:
                score[key("loss", f"{loss.stream}_bypass", "eval")] = loss(bypass_BN, wave_N[None])[0].item()
            scores.append(
                score | {name: value for name, value in result.quantised.signals.items() if "/residual_frac/" in name}
            )
        self.writer.step(step, _means(scores) | (self.probes.score(self.codec) if self.probes else {}))
        changed = [name for name, tensor in self.frozen.items() if fingerprint({name: tensor}) != self.prints[name]]
        self.writer.probes(Results(frozen=FrozenTensors(tuple(changed), len(self.prints), step)))

    def demos(self, step: int) -> None:
        folder = self.writer.path / "demos" / f"step_{step:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        for index, wave_N in enumerate(self.waves[: self.config.demo_clips]):
            decoded_BN = self.codec.decode(self.codec.encode(wave_N[None]))[:, : len(wave_N)]
            for kind, sound_BN in (("reference", wave_N[None]), ("demo", decoded_BN)):
                path = folder / f"clip_{index}_{kind}.wav"
                write_wave(path, sound_BN[0].cpu().numpy(), self.codec.sample_rate_hz)
                of_clip = {"clip": self.held_out.clips[index].name}
                self.writer.artifact(Artifact(kind, path.relative_to(self.writer.path).as_posix(), step, of_clip))

    def _facts(self, discriminator: nn.Module, frames: int) -> dict[str, Any]:
        config, codec = self.config, self.codec
        return {
            "system": "amy",
            "config": asdict(config),
            "codebooks": codec.codebooks,
            "codebook_groups": list(codec.quantiser.groups),
            "codebook_size": codec.codebook_size,
            "sample_rate_hz": codec.sample_rate_hz,
            "frame_rate_hz": codec.frame_rate_hz,
            "pretrained": False,
            "usage_window_frames": frames,
            "gan_loss": "hinge",
            "max_grad_norm": config.optimizer.max_grad_norm,
            "warmup_steps": config.optimizer.warmup_steps,
            "schedule_steps": config.steps,
            "trainable_parameters": sum(p.numel() for p in codec.parameters() if p.requires_grad),
            "discriminator_parameters": sum(p.numel() for p in discriminator.parameters()),
            "mixed_precision": resolve_precision(config.mixed_precision),
            **made_with("earnest", "torch", "accelerate"),
        }


class Probes:
    """The probes of `monitors.codes` on clips chosen once: training ones, up to `probe_s`, fill the tables; held-out
    ones are asked."""

    def __init__(self, config: CodecConfig, codec: TrainableCodec, train: Heard, held_out: Heard):
        order = np.random.default_rng(config.seed).permutation(len(train.waves))
        seconds = np.cumsum([len(train.waves[index]) / codec.sample_rate_hz for index in order])
        chosen = order[: int(np.searchsorted(seconds, config.probe_s)) + 1]
        self.fit = [
            self._labelled(codec, train.clips[index], train.waves[index] / np.float32(32767)) for index in chosen
        ]
        pairs = zip(held_out.clips, held_out.waves, strict=True)
        self.test = [self._labelled(codec, clip, wave_N) for clip, wave_N in pairs]

    @staticmethod
    def _labelled(codec: TrainableCodec, clip: Clip, wave_N: np.ndarray) -> tuple[Tensor, dict[str, np.ndarray]]:
        measured = pitch_and_level(wave_N, codec.sample_rate_hz, codec.hop_samples)
        words = word_times(clip, wave_N, codec.sample_rate_hz)
        labels = {
            "f0_r2": measured.pitch_log2_hz_T,
            "energy_r2": measured.level_db_T,
            "word_accuracy_frac": spoken(words, len(measured.level_db_T), codec.frame_rate_hz),
        }
        return torch.from_numpy(wave_N), labels

    def score(self, codec: TrainableCodec) -> dict[str, float]:
        device = next(codec.parameters()).device
        fit, test = (
            [(codec.encode(wave_N[None].to(device))[0].cpu().numpy(), labels) for wave_N, labels in pairs]
            for pairs in (self.fit, self.test)
        )
        return probe(fit, test, codec.codebook_size)


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Per signal, the mean of its finite values; NaN where it has none."""
    names = {name: None for row in rows for name in row}
    values = {name: [row[name] for row in rows if name in row] for name in names}
    finite = {name: [one for one in found if math.isfinite(one)] for name, found in values.items()}
    return {name: float(np.mean(found)) if found else math.nan for name, found in finite.items()}
