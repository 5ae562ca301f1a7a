"""What a codec's run shows beside its steps: rows of signals, evaluations, reconstructions."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from earnest.codecs.trainable import numbers
from earnest.data.audio import write_wave
from earnest.data.waves import FULL_SCALE
from earnest.facts import Facts
from earnest.losses.adversarial import STREAMS as ADVERSARIAL
from earnest.losses.codec import CodecBatch, CodecObjective
from earnest.monitors.codes import CodeProbes
from earnest.probes.parameters import Frozen
from earnest.probes.results import Results
from earnest.run import Artifact, Step
from earnest.signals import key
from earnest.streams import Stream, parse
from earnest.training.codec.assembly import CodecAssembly
from earnest.training.codec.clips import CodecClips
from earnest.training.codec.config import CodecConfig
from earnest.training.reporter import Reporter, facts_of_run

BASELINE_CLIPS = 50  # held-out clips that the baselines of the losses are measured on


class CodecReporter(Reporter[CodecConfig]):
    """Looks at the codec."""

    def __init__(
        self,
        config: CodecConfig,
        run_dir: Path,
        assembly: CodecAssembly,
        discriminator: nn.Module,
        objective: CodecObjective,
        clips: CodecClips,
    ):
        super().__init__(config, run_dir)
        self.assembly, self.codec, self.objective, self.clips = assembly, assembly.codec, objective, clips
        self.discriminator = discriminator
        self.held_out = clips.held_out
        tensors = self.codec.state_dict(keep_vars=True)
        self.frozen = Frozen({name: tensors[name] for name in tensors if name.startswith(self.codec.frozen)})
        self.probes = _code_probes(config, assembly, clips) if config.probe_s else None
        self.rows: list[Mapping[str, float]] = []

    def facts(self) -> Facts:
        config, codec, assembly = self.config, self.codec, self.assembly
        window_frames = math.ceil(config.data.window_s * codec.frame_rate_hz)
        return self.clips.facts.updated(
            {
                **facts_of_run(config, codec, ("earnest", "torch", "accelerate")),
                "system": assembly.system,
                "codebooks": codec.codebooks,
                "codebook_groups": codec.quantiser.groups,
                "codebook_size": codec.codebook_size,
                "sample_rate_hz": codec.sample_rate_hz,
                "frame_rate_hz": codec.frame_rate_hz,
                "pretrained": assembly.pretrained,
                "usage_window_frames": config.data.clips_per_batch * window_frames,
                "gan_loss": assembly.adversary.kind,
                "schedule_steps": config.steps,
                "discriminator_parameters": sum(p.numel() for p in self.discriminator.parameters()),
            }
        )

    def begin(self, facts: Facts, step: int, resumed: bool) -> None:
        super().begin(facts, step, resumed)
        self.declare_weights(step + 1)
        baselines = self.objective.baselines(list(self._waves(BASELINE_CLIPS)))
        self.writer.probes(Results(baselines={parse(name): scores for name, scores in baselines.items()}))

    def declare_weights(self, step: int) -> None:
        """Write the weights of the losses that the log holds from this step on: those of the discriminator from its
        first step."""
        absent = () if step >= self.config.discriminator.from_step else ADVERSARIAL
        weights = {name: weight for name, weight in self.assembly.weights(1).items() if weight and name not in absent}
        self.writer.facts(Facts().updated({"loss_weights": weights}))

    def report(self, step: Step, due: Collection[str], state: Mapping[str, Any]) -> None:
        """Every step's signals are kept for the next row; a side that did not move and a phase that begins are
        told."""
        self.rows.append(step.signals)
        for side in ("discriminator", "codec"):
            if step.signals.get(key("skipped_frac", side)):
                where = [name for name, value in step.signals.items() if "/loss/" in name and not math.isfinite(value)]
                self.writer.event(
                    step.index, f"{side}'s step skipped, not finite: {', '.join(where) or 'its gradient'}"
                )
        if step.index == self.config.discriminator.from_step:
            self.declare_weights(step.index)
        if step.index in self.assembly.phases:
            self.writer.event(step.index, self.assembly.phases[step.index])
        super().report(step, due, state)

    def row(self, step: Step) -> None:
        self.writer.step(step.index, means(self.rows))
        self.rows.clear()

    def weights(self) -> Mapping[Stream, float]:
        return {parse(name): weight for name, weight in self.assembly.weights(1).items()}

    @torch.no_grad()
    def evaluate(self, step: int) -> None:
        self.codec.eval()
        signals = means([self._score(index, wave_N) for index, wave_N in enumerate(self._waves())])
        self.writer.step(step, signals | (self.probes.score(self.codec) if self.probes else {}))
        self.writer.probes(Results(frozen=self.frozen.changed(step)))

    def _waves(self, most: int | None = None) -> Iterator[torch.Tensor]:
        """Of the held-out clips, or the first of them."""
        return (torch.as_tensor(wave[:]).to(self.codec.device) for wave in self.held_out.waves[:most])

    def _score(self, clip: int, wave_N: torch.Tensor) -> dict[str, float]:
        """The losses of one held-out clip; those on the wave also without quantisation (`_bypass`)."""
        result = self.codec(wave_N[None])
        features = {
            name: (
                torch.as_tensor(features_TF)[None].to(wave_N.device),
                torch.as_tensor(exists_T)[None].to(wave_N.device),
            )
            for name, (features_TF, exists_T) in self.held_out.target_features(
                clip, 0, result.latent_BDT.shape[2]
            ).items()
        }
        _, signals = self.objective(result, CodecBatch(wave_N[None], features), "eval")
        bypass_BN = self.codec.synthesise(self.codec.quantiser.unquantised(result.latent_BDT))[:, : len(wave_N)]
        losses, _ = self.objective.compare_waves(bypass_BN, wave_N[None], "eval")
        signals |= {key("loss", f"{stream}_bypass", "eval"): loss for stream, loss in losses.items()}
        of_codebooks = result.quantised.signals
        return numbers(signals | {name: value for name, value in of_codebooks.items() if "/residual_frac/" in name})

    def demos(self, step: int) -> None:
        self.codec.eval()
        folder = self.writer.path / "demos" / f"step_{step:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        for index, wave_N in enumerate(self._waves(self.config.demo_clips)):
            decoded_BN = self.codec.decode(self.codec.encode(wave_N[None]))[:, : len(wave_N)]
            for kind, sound_BN in (("reference", wave_N[None]), ("demo", decoded_BN)):
                path = folder / f"clip_{index}_{kind}.wav"
                write_wave(path, sound_BN[0].cpu().numpy(), self.codec.sample_rate_hz)
                of_clip = {"clip": self.held_out.clips[index].name}
                self.writer.artifact(Artifact(kind, path.relative_to(self.writer.path).as_posix(), step, of_clip))

    def save_model(self, directory: Path) -> None:
        self.codec.save_pretrained(directory)


def _code_probes(config: CodecConfig, assembly: CodecAssembly, clips: CodecClips) -> CodeProbes:
    """Training clips, chosen once, up to `probe_s`, fill the tables; held-out ones are looked up."""
    train, codec = clips.train, assembly.codec
    most = round(config.probe_s * codec.sample_rate_hz)
    order = np.random.default_rng(config.seed).permutation(len(train.waves))
    seconds = np.cumsum([len(train.waves[index]) / codec.sample_rate_hz for index in order])
    chosen = order[: int(np.searchsorted(seconds, config.probe_s)) + 1]
    return CodeProbes(
        codec,
        [(train.clips[index], train.waves[index][:most] / FULL_SCALE) for index in chosen],
        list(zip(clips.held_out.clips, clips.held_out.waves, strict=True)),
    )


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Per signal, the mean of its finite values; NaN if it has none."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    finite = {name: [value for value in column if math.isfinite(value)] for name, column in values.items()}
    return {name: float(np.mean(column)) if column else math.nan for name, column in finite.items()}
