"""A codec's training run, from its configuration: data, teachers, the game against the discriminator, what is measured beside it."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from earnest.codecs.amy import Reconstruction, TrainableCodec
from earnest.codecs.discriminators import MultiScaleSTFTDiscriminator
from earnest.data.audio import ClipError, write_wave
from earnest.data.folder import Clip, load_clips, read_clips, split_clips
from earnest.data.store import cache_dir, fingerprint
from earnest.data.teachers import FeatureTable, load_teacher, teach, word_times
from earnest.errors import UserError
from earnest.losses.balancer import Balancer
from earnest.losses.distillation import Distillation, statistics
from earnest.losses.waveform import MultiScaleMelLoss, MultiScaleSpectrogramLoss
from earnest.monitors.codes import probe, spoken, voice
from earnest.run import Artifact, RunWriter
from earnest.signals import key
from earnest.training.checkpoint import load_training_state, save_checkpoint
from earnest.training.gan_steps import CodecBatch, Player, gan_steps
from earnest.training.optim import warmup_cosine
from earnest.training.session import OnProgress, interruptible, made_with, silent, starting_point

TAUGHT = {"llm": 0, "wavlm": 1}  # teacher -> the last codebook that its features are predicted from: 0 alone, 0 and 1 together
MEL_LOSSES = (MultiScaleMelLoss, MultiScaleSpectrogramLoss)


@dataclass(frozen=True)
class CodecData:
    path: str = ""
    """A folder of audio files, at any depth, any rate; or a dataset on the Hub. Texts are needed by a language model as teacher only;
    a column `words` ([["hello", 0.12, 0.48], ...]) says when each is spoken."""
    held_out_frac: float = 0.05
    """Share of the clips kept for evaluation, unless the folder has a validation split."""
    window_s: float = 1.0
    """Length of the random stretch of a clip that a step sees; shorter clips are followed by silence."""
    clips_per_batch: int = 16
    """Stretches in one step, drawn in proportion to the clips' durations."""


@dataclass(frozen=True)
class LossWeights:
    """Of the losses' streams; 0 for a loss that is not wanted. The defaults are Amy-LM's."""

    adv_g: float = 1.0
    """Of the hinge loss against the discriminator."""
    feat: float = 4.0
    """Of the difference of the discriminator's maps, relative to the real ones."""
    msspec: float = 15.0
    """Of the multi-scale mel spectrogram loss: magnitudes and their logarithms, five windows of 64 to 1024 samples."""
    mel: float = 0.0
    """Of the multi-scale log mel loss: the mean difference of log10 magnitudes, four windows of 128 to 2048 samples."""
    wavlm: float = 1.0
    """Of the distance between codebooks 0 and 1 and the audio teacher; counts where there is one."""
    llm: float = 1.0
    """Of the distance between codebook 0 and the language model; counts where there is one."""
    commitment: float = 0.25
    """Of the distance between the latents and their codebook entries."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    window_samples: tuple[int, ...] = (1024, 512, 256)
    """Windows of the STFTs, one sub-discriminator each."""
    channels: int = 24
    """Maps of the first layer; the later ones have twice as many."""
    from_step: int = 1501
    """The first step with a discriminator; before it, the codec learns from the spectral losses alone, which is three times as fast."""
    stretch_s: float = 0.5
    """How much of every clip the discriminator hears."""


@dataclass(frozen=True)
class CodecOptimizer:
    learning_rate: float = 1e-3
    """Peak learning rate of the codec."""
    discriminator_learning_rate: float = 5e-4
    """Peak learning rate of the discriminator."""
    warmup_steps: int = 100
    """Linear warm-up of each, from its own first step; then a cosine to a tenth of the peak."""
    max_grad_norm: float = 100.0
    """Gradients of the codec are clipped to this norm; how often is measured."""
    discriminator_max_grad_norm: float = 10.0
    """The same for the discriminator."""


@dataclass(frozen=True)
class CodecConfig(ABC):
    """What every codec recipe is made of; a recipe's own class says how its codec is built."""

    name: str = "amy"
    """What the codec calls itself."""
    data: CodecData = field(default_factory=CodecData)
    llm: str = ""
    """Teacher of codebook 0: a language model that reads the transcript, by directory or Hub name; empty for none."""
    wavlm: str = ""
    """Teacher of codebooks 0 and 1 together: WavLM, HuBERT, wav2vec 2.0 or Whisper, by directory or Hub name; empty for none."""
    llm_layer: int = -2
    """Which of the language model's hidden states: 0 the input, -1 the last."""
    wavlm_layer: int = -1
    """Which of the audio teacher's hidden states."""
    steps: int = 3400
    """Optimizer steps of the codec; the schedules end with them."""
    adversarial_only_from_step: int = 0
    """First step of a second phase in which the spectral losses leave the sum, as in Mimi's training; 0 for never."""
    adversarial_only_spectral_frac: float = 0.0
    """What is left of the weights of mel and msspec in that phase; a small share keeps a small fine-tune from drifting."""
    balancer: bool = False
    """Make the weights of adv_g, feat, msspec and mel shares of the gradient at the waveform (EnCodec's balancer)."""
    quantiser_dropout_frac: float = 0.5
    """Share of the clips that train with a random number of codebooks."""
    quantiser_bypass_frac: float = 0.0
    """Share of the clips that train unquantised."""
    init_frames: int = 20_480
    """Frames collected, and passed through unquantised, before k-means places the codebooks."""
    loss_weights: LossWeights = field(default_factory=LossWeights)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optimizer: CodecOptimizer = field(default_factory=CodecOptimizer)
    log_every_steps: int = 10
    """How often a row of signals is written: the means over the steps since the last one."""
    monitor_every_steps: int = 100
    """How often the gradient of each loss is measured where all meet, at the latent; 0 for never."""
    evaluate_every_steps: int = 250
    """How often the held-out clips are scored and the codebooks are probed."""
    probe_s: float = 240.0
    """Seconds of training audio that the tables of the probes are filled with; 0 for no probes."""
    demo_every_steps: int = 1000
    """How often held-out clips are reconstructed as wavs; 0 for never. A last set is made at the end."""
    demo_clips: int = 4
    """How many clips are reconstructed."""
    save_every_steps: int = 250
    """How often a checkpoint is written."""
    mixed_precision: str = "bf16"
    """"no" or "bf16": autocast of the networks; spectra, quantiser and losses stay in fp32."""
    seed: int = 0
    """Of weights, windows and everything else that is random."""

    @abstractmethod
    def build(self) -> TrainableCodec:
        """A codec to start from. Raises UserError where that is something that cannot be had."""

    @abstractmethod
    def load(self, directory: Path) -> TrainableCodec:
        """The codec of a checkpoint of this run."""

    def weights_at(self, step: int, teachers: Sequence[str]) -> dict[str, float]:
        """The weights in force at a step, of the losses that there are."""
        weights = {name: weight for name, weight in asdict(self.loss_weights).items() if name not in TAUGHT or name in teachers}
        if self.adversarial_only_from_step and step >= self.adversarial_only_from_step:
            weights |= {loss.stream: weights[loss.stream] * self.adversarial_only_spectral_frac for loss in MEL_LOSSES}
        return weights


@dataclass(frozen=True)
class Heard:
    """The clips of one side. Training waves are int16 (115 MB an hour, kept in memory), held-out ones float32 and cut at ten
    seconds: their scores are means over clips, and a long one would take the time of many."""

    clips: list[Clip]
    waves: list[np.ndarray]
    features: dict[str, FeatureTable] = field(default_factory=dict)

    def taught(self, clip: int, first_frame: int, frames: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Per teacher (features_TF, exists_T) of a stretch of a clip."""
        return {name: table.rows(self.clips[clip].name, first_frame, frames) for name, table in self.features.items()}


def train_codec(config: CodecConfig, run_dir: Path, resume: bool = False, on_progress: OnProgress = silent) -> None:
    """Train into `run_dir`; with `resume`, continue what stands there, bit-identically on a CPU.

    Ctrl-C ends the step under way, writes a checkpoint and returns. Raises UserError on anything a user can mend.
    """
    start = starting_point(config, run_dir, resume)
    set_seed(config.seed)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=not torch.cuda.is_available())
    device = accelerator.device
    codec = config.load(start) if start else config.build()
    quantiser = codec.quantiser
    quantiser.init_frames = config.init_frames
    quantiser.dropout_frac, quantiser.bypass_frac = config.quantiser_dropout_frac, config.quantiser_bypass_frac
    train, held_out, facts = listen(config, codec, device, on_progress)
    discriminator = MultiScaleSTFTDiscriminator(config.discriminator.window_samples, config.discriminator.channels)
    weights = config.weights_at(1, list(train.features))
    mel_losses = [kind(codec.sample_rate_hz).to(device) for kind in MEL_LOSSES if weights[kind.stream]]
    of_teachers = {name: statistics(table.sample()) for name, table in train.features.items()}
    heads = nn.ModuleDict({name: Distillation(name, quantiser.latent_dim, one) for name, one in of_teachers.items()}).to(device)

    def player(model: nn.Module, learning_rate: float, max_grad_norm: float, steps: int, *others: nn.Module) -> Player:
        parameters = [parameter for one in (model, *others) for parameter in one.parameters() if parameter.requires_grad]
        # betas: DAC's; a short memory of the gradient follows an opponent that moves
        optimizer = torch.optim.AdamW(parameters, learning_rate, betas=(0.8, 0.99), weight_decay=0.01, fused=True)
        model, optimizer = accelerator.prepare(model.train(), optimizer)
        return Player(model, optimizer, warmup_cosine(optimizer, config.optimizer.warmup_steps, steps), max_grad_norm)

    settings = config.optimizer
    ours = player(codec, settings.learning_rate, settings.max_grad_norm, config.steps, heads)
    game_steps = max(1, config.steps - config.discriminator.from_step + 1)
    theirs = player(discriminator, settings.discriminator_learning_rate, settings.discriminator_max_grad_norm, game_steps)
    balancer = Balancer() if config.balancer else None
    stateful = {"discriminator": discriminator, "heads": heads}
    for side, name in ((ours, "codec"), (theirs, "discriminator")):
        stateful |= {f"{name}_optimizer": side.optimizer, f"{name}_schedule": side.schedule}
    stateful |= {"balancer": balancer} if balancer else {}
    done = 0
    if start:
        state = load_training_state(start)
        for name, part in stateful.items():
            part.load_state_dict(state[name])
        quantiser.collected_ND = state["collected_ND"].to(device)
        torch.set_rng_state(state["torch_rng"])
        done = state["step"]

    writer = RunWriter(run_dir)
    writer.event(done, "resumed" if resume else "started")
    frames = config.data.clips_per_batch * math.ceil(config.data.window_s * codec.frame_rate_hz)
    writer.facts(facts | _facts(config, codec, discriminator, frames) | {"loss_weights": _declared(config, weights, done + 1)})
    held_waves = [torch.from_numpy(wave_N).to(device) for wave_N in held_out.waves]
    baselines: dict[str, dict[str, float]] = {loss.stream: loss.baselines(held_waves[:50]) for loss in mel_losses}
    baselines |= {name: {"constant mean": one.constant} for name, one in of_teachers.items()}
    writer.probe("baselines", baselines)
    writer.probe("even_codebook", even_codebook(codec.codebook_size, frames))
    writer.probe("constant_mean_raw", {name: one.constant_raw for name, one in of_teachers.items()})
    frozen = {name: tensor for name, tensor in codec.state_dict(keep_vars=True).items() if name.startswith(codec.frozen)}
    hashes = {name: fingerprint({name: tensor}) for name, tensor in frozen.items()}
    probes = Probes(config, codec, train, held_out) if config.probe_s else None

    def codec_losses(reconstruction: Reconstruction, batch: CodecBatch) -> tuple[dict[str, Tensor], dict[str, float]]:
        losses, signals = {}, {}
        for loss in mel_losses:
            losses[loss.stream], found = loss(reconstruction.wave_BN, batch.wave_BN)
            signals |= found
        for name, head in heads.items():
            losses[name], found = head(reconstruction.quantised.prefixes_CBDT[TAUGHT[name]], *batch.features[name])
            signals |= found
        return losses, signals

    @torch.no_grad()
    def evaluate(step: int) -> None:
        codec.eval()
        scores = []
        for index, wave_N in enumerate(held_waves):
            result = codec(wave_N[None])
            bypass_BN = codec.synthesise(quantiser.unquantised(result.latent_BDT))[:, : len(wave_N)]
            score = {name: value for name, value in result.quantised.signals.items() if "/residual_frac/" in name}
            for loss in mel_losses:
                score[key("loss", loss.stream, "eval")] = loss(result.wave_BN, wave_N[None])[0].item()
                score[key("loss", f"{loss.stream}_bypass", "eval")] = loss(bypass_BN, wave_N[None])[0].item()
            for name, (features_TF, exists_T) in held_out.taught(index, 0, result.latent_BDT.shape[2]).items():
                given = torch.from_numpy(features_TF)[None].to(device), torch.from_numpy(exists_T)[None].to(device)
                score |= heads[name](result.quantised.prefixes_CBDT[TAUGHT[name]], *given, split="eval")[1]
            scores.append(score)
        row = _means(scores) | (probes.score(codec) if probes else {})
        writer.step(step, row)
        changed = [name for name, tensor in frozen.items() if fingerprint({name: tensor}) != hashes[name]]
        writer.probe("frozen", {"tensors": len(hashes), "changed": changed, "step": step})
        codec.train()

    def demos(step: int) -> None:
        folder = writer.path / "demos" / f"step_{step:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        codec.eval()
        for index, wave_N in enumerate(held_waves[: config.demo_clips]):
            decoded_BN = codec.decode(codec.encode(wave_N[None]))[:, : len(wave_N)]
            for kind, sound_BN in (("reference", wave_N[None]), ("demo", decoded_BN)):
                path = folder / f"clip_{index}_{kind}.wav"
                write_wave(path, sound_BN[0].cpu().numpy(), codec.sample_rate_hz)
                of_clip = {"clip": held_out.clips[index].name}
                writer.artifact(Artifact(kind, path.relative_to(writer.path).as_posix(), step, of_clip))
        codec.train()

    def save(step: int) -> None:
        state = {name: part.state_dict() for name, part in stateful.items()}
        state |= {"step": step, "torch_rng": torch.get_rng_state(), "collected_ND": quantiser.collected_ND}
        save_checkpoint(run_dir, step, codec.save_pretrained, state, {"config": asdict(config)})

    steps = gan_steps(
        ours,
        theirs,
        batches(train, config, codec, device, done),
        codec_losses,
        lambda step: config.weights_at(step, list(heads)),
        accelerator,
        config.discriminator.from_step,
        round(config.discriminator.stretch_s * codec.sample_rate_hz),
        done + 1,
        balancer,
        config.monitor_every_steps,
    )
    rows: list[dict[str, float]] = []
    with interruptible() as interrupted:
        before = time.perf_counter()
        for step in steps:
            rows.append({**step.signals, key("step_s"): time.perf_counter() - before})
            for side in ("discriminator", "codec"):
                if step.signals.get(key("skipped_frac", side)):
                    where = [name for name, value in step.signals.items() if "/loss/" in name and not math.isfinite(value)]
                    writer.event(step.index, f"{side}'s step skipped, not finite: {', '.join(where) or 'its gradient'}")
            if step.index == config.discriminator.from_step:
                writer.facts({"loss_weights": _declared(config, weights, step.index)})
            if step.index == config.adversarial_only_from_step:
                writer.event(step.index, f"adversarial only: mel and msspec at {config.adversarial_only_spectral_frac:g} of their weights")
            last = step.index >= config.steps or interrupted()
            saving = last or step.index % config.save_every_steps == 0
            if saving or step.index % config.log_every_steps == 0:  # saving: a resumed run averages over the same steps
                writer.step(step.index, _means(rows))
                rows.clear()
            if quantiser.ready and (last or step.index % config.evaluate_every_steps == 0):
                evaluate(step.index)
            if quantiser.ready and config.demo_every_steps and (last or step.index % config.demo_every_steps == 0):
                demos(step.index)
            if saving:
                save(step.index)
            on_progress("train", step.index, config.steps, f"loss {step.signals[key('loss')]:.3f}")
            if last:
                break
            before = time.perf_counter()
        writer.event(step.index, "interrupted" if interrupted() else "finished")
    writer.close()


def listen(config: CodecConfig, codec: TrainableCodec, device: torch.device, on_progress: OnProgress) -> tuple[Heard, Heard, dict]:
    """Read all clips, let the teachers see them -> (training, held out, facts)."""
    rate_hz = codec.sample_rate_hz
    sides = split_clips(load_clips(config.data.path, needed=()), config.data.held_out_frac, config.seed)
    skipped: list[ClipError] = []
    train, held_out = [list(read_clips(side, rate_hz, skipped)) for side in sides]
    facts = {
        "train_clips": len(train),
        "train_s": sum(len(wave_N) for _, wave_N in train) / rate_hz,
        "held_out_clips": len(held_out),
        "held_out_names": [clip.name for clip, _ in held_out],
        "left_out_clips": [str(error) for error in skipped],
        "teachers": {},
    }
    heard = [Heard([clip for clip, _ in pairs], [wave_N for _, wave_N in pairs]) for pairs in (train, held_out)]
    for stream, (name, layer) in {"llm": (config.llm, config.llm_layer), "wavlm": (config.wavlm, config.wavlm_layer)}.items():
        if not name or not getattr(config.loss_weights, stream):
            continue
        if TAUGHT[stream] >= codec.codebooks:
            raise UserError(f"a codec of {codec.codebooks} codebook and --{stream}", "codebooks 0 and 1", "give the codec more codebooks")
        teacher = load_teacher(name, layer, device)
        for side, what in zip(heard, ("clips", "held-out clips"), strict=True):
            note = lambda done, total, what=what: on_progress(f"teacher {stream}", done, total, what)  # noqa: B023, E731
            cache = cache_dir() / "teachers"
            side.features[stream] = teach(teacher, side.clips, side.waves, rate_hz, codec.hop_samples, cache, note)
        if not heard[0].features[stream].exists_frac:
            raise UserError(
                f"--{stream} {name}, which says nothing of any clip of {config.data.path}",
                "transcripts that a language model can read: a column text in metadata.csv or metadata.jsonl",
                f"add them, or leave --{stream} out",
            )
        facts["teachers"][stream] = {
            "name": name,
            "layer": layer,
            "alignment": teacher.alignment,
            "clips_with_words_timed": sum(bool(clip.words) for clip in heard[0].clips),
            "frames_taught_frac": heard[0].features[stream].exists_frac,
        }
    quantise = lambda wave_N: np.rint(wave_N.clip(-1, 1) * 32767).astype(np.int16)  # noqa: E731
    return (
        Heard(heard[0].clips, [quantise(wave_N) for wave_N in heard[0].waves], heard[0].features),
        Heard(heard[1].clips, [wave_N[: 10 * rate_hz] for wave_N in heard[1].waves], heard[1].features),
        facts,
    )


def batches(train: Heard, config: CodecConfig, codec: TrainableCodec, device: torch.device, skip: int = 0) -> Iterator[CodecBatch]:
    """Random windows and what the teachers say of them; with teachers a window begins with a frame, else anywhere."""
    hop = codec.hop_samples
    window = math.ceil(config.data.window_s * codec.sample_rate_hz / hop) * hop
    every = hop if train.features else 1
    for wave_BN, places in random_windows(train.waves, window, config.data.clips_per_batch, config.seed, every, skip):
        taught = [train.taught(clip, start // hop, window // hop) for clip, start in places]
        features = {}
        for name in train.features:
            stacked = (np.stack([one[name][part] for one in taught]) for part in (0, 1))
            features[name] = tuple(torch.from_numpy(array).to(device) for array in stacked)
        yield CodecBatch(wave_BN.to(device), features)


def random_windows(
    waves: Sequence[np.ndarray], window: int, clips: int, seed: int, every: int = 1, skip: int = 0
) -> Iterator[tuple[Tensor, list[tuple[int, int]]]]:
    """Yield wave_BN and (clip, first sample) of each row, without end: windows at random places of clips drawn in proportion to
    their durations, beginning at a multiple of `every` samples.

    A function of (seed, step): `skip` steps are left out without being drawn, as a resumed run needs.
    """
    share = np.array([len(wave_N) for wave_N in waves], dtype=np.float64)
    share /= share.sum()
    for step in range(skip, 2**62):
        random = np.random.default_rng([seed, step])
        wave_BN, places = np.zeros((clips, window), dtype=np.float32), []
        for row_N, clip in zip(wave_BN, random.choice(len(waves), clips, p=share), strict=True):
            start = every * int(random.integers(max(len(waves[clip]) - window, 0) // every + 1))
            piece_N = waves[clip][start : start + window]
            row_N[: len(piece_N)] = piece_N / 32767
            places.append((int(clip), start))
        yield torch.from_numpy(wave_BN), places


class Probes:
    """The probes of `monitors.codes` on clips chosen once: training ones, up to `probe_s`, fill the tables; held-out ones are asked."""

    def __init__(self, config: CodecConfig, codec: TrainableCodec, train: Heard, held_out: Heard):
        order = np.random.default_rng(config.seed).permutation(len(train.waves))
        seconds = np.cumsum([len(train.waves[index]) / codec.sample_rate_hz for index in order])
        chosen = order[: int(np.searchsorted(seconds, config.probe_s)) + 1]
        self.fit = [self._labelled(codec, train.clips[index], train.waves[index] / np.float32(32767)) for index in chosen]
        pairs = zip(held_out.clips, held_out.waves, strict=True)
        self.test = [self._labelled(codec, clip, wave_N) for clip, wave_N in pairs]

    @staticmethod
    def _labelled(codec: TrainableCodec, clip: Clip, wave_N: np.ndarray) -> tuple[Tensor, dict[str, np.ndarray]]:
        labels = voice(wave_N, codec.sample_rate_hz, codec.hop_samples)
        words = word_times(clip, wave_N, codec.sample_rate_hz)
        labels["word_accuracy_frac"] = spoken(words, len(labels["f0_r2"]), codec.frame_rate_hz)
        return torch.from_numpy(wave_N), labels

    def score(self, codec: TrainableCodec) -> dict[str, float]:
        device = next(codec.parameters()).device
        encode = lambda pairs: [(codec.encode(wave_N[None].to(device))[0].cpu().numpy(), labels) for wave_N, labels in pairs]  # noqa: E731
        return probe(encode(self.fit), encode(self.test), codec.codebook_size)


def even_codebook(size: int, frames: int) -> dict[str, float]:
    """used_frac and perplexity that a step of `frames` frames shows of a codebook whose entries are all equally likely: its baseline."""
    random = np.random.default_rng(0)
    counts = np.stack([np.bincount(random.integers(0, size, frames), minlength=size) for _ in range(20)])
    share = counts / frames
    entropy = -(share * np.log(np.where(share, share, 1.0))).sum(1)
    return {"frames": frames, "used_frac": float((counts > 0).mean()), "perplexity": float(np.exp(entropy).mean())}


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Per signal, the mean of its finite values; NaN where it has none."""
    names = {name: None for row in rows for name in row}
    values = {name: [row[name] for row in rows if name in row] for name in names}
    finite = {name: [one for one in found if math.isfinite(one)] for name, found in values.items()}
    return {name: float(np.mean(found)) if found else math.nan for name, found in finite.items()}


def _declared(config: CodecConfig, weights: dict[str, float], step: int) -> dict[str, float]:
    """The weights of the losses that a log holds from this step on: those of the discriminator from its first step."""
    absent = () if step >= config.discriminator.from_step else ("adv_g", "feat")
    return {name: weight for name, weight in weights.items() if weight and name not in absent}


def _facts(config: CodecConfig, codec: TrainableCodec, discriminator: nn.Module, frames: int) -> dict:
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
        **made_with("earnest", "torch", "accelerate"),
    }
