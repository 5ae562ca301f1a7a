"""One clip at every stop from disk to loss: name, shape, type, range, share masked.

Documentation, first diagnosis and bug report in one: ``earnest trace higgs-tiny``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from earnest.codecs import Codec, load_codec
from earnest.data.audio import read_wave
from earnest.data.batch import Example, collate
from earnest.data.clip import Clip
from earnest.data.corpus import Corpus, layout_of
from earnest.data.layouts.chatml import Conversation
from earnest.data.masks import IGNORE
from earnest.data.row import Row
from earnest.errors import UserError
from earnest.losses.adversarial import feature_matching
from earnest.losses.distillation import statistics
from earnest.losses.tokens import TokenObjective
from earnest.streams import TEXT
from earnest.training.clips import find_clips
from earnest.training.codec.assembly import AssembleCodec
from earnest.training.codec.clips import batches, read_and_teach
from earnest.training.codec.config import CodecConfig
from earnest.training.codec.gan_steps import random_stretch
from earnest.training.run import silent
from earnest.training.tokens.assembly import AssembleTokens, TokenAssembly
from earnest.training.tokens.config import TokenConfig
from earnest.training.tokens.preparation import encoded, limited

NEIGHBOURS = 50  # clips that are read beside the first; its reference is one of them, if it has one
LABEL_COLUMNS = 8  # positions of the label picture at either end


def trace(assemble: Any, config: Any, console: Console | None = None) -> None:
    """Carry a clip of the data through all that training does with it, and print each stop."""
    console = console or Console()
    torch.manual_seed(config.seed)
    if isinstance(config, CodecConfig):
        trace_codec(assemble, config, console)
    else:
        trace_tokens(assemble, config, console)


class Stops:
    """The table of stops."""

    def __init__(self):
        self.table = Table("stop", "tensor", "shape", "type", "range", "masked", box=None, pad_edge=False)

    def add(self, stop: str, name: str, tensor: Tensor) -> None:
        counted = tensor if tensor.is_floating_point() else tensor[tensor != IGNORE]
        ends = counted.aminmax() if counted.numel() and counted.dtype != torch.bool else ()
        self.table.add_row(
            stop,
            name,
            " × ".join(map(str, tensor.shape)) or "scalar",
            str(tensor.dtype).removeprefix("torch."),
            " … ".join(dict.fromkeys(f"{end.item():.4g}" for end in ends)),
            f"{1 - counted.numel() / tensor.numel():.0%}" if "target" in name else "",
        )


def trace_tokens(assemble: AssembleTokens, config: TokenConfig, console: Console) -> None:
    """The first clip that is not left out: reading, encoding, layout, batching, model, loss."""
    codec = load_codec(config.codec)
    assembly = assemble(config, codec)
    model = assembly.model.eval()
    clips = find_clips(config.data, assembly.variation.described_by)[:NEIGHBOURS]
    corpus = _corpus(config, assembly, codec, clips)
    row = corpus.vary(corpus.rows[0], None)
    clip = _audio_of(row, clips)
    wave_N = torch.as_tensor(read_wave(clip.path, codec.sample_rate_hz, codec.channels, clip.segment))
    stops = Stops()
    with torch.inference_mode():
        example = corpus.example(corpus.rows[0])
        batch = collate([example], [0], model.pad_id)
        audio = [output for stream, output in model.outputs(batch).items() if stream != TEXT]
        is_audio_P = batch.is_audio_BS[batch.exists_BS]
        logits: dict[int, list[Tensor]] = {}  # by size of the vocabulary: only one codebook may have an end
        for output in audio:
            logits_NV = output.head.logits(output.states_PD[is_audio_P])
            logits.setdefault(logits_NV.shape[-1], []).append(logits_NV)
        loss, signals = TokenObjective(model, assembly.weights)(batch, batch.counted())
    stops.add("1 audio", "wave_N", wave_N)
    stops.add("2 codec", "codes_CT", torch.as_tensor(row.codes_CT.astype(np.int64)))
    stops.add("5 text", "text_L", example.text_S[~example.is_audio_S])
    for stop, tensors in (("6 layout", example), ("8 batch", batch)):
        for name, tensor in vars(tensors).items():
            stops.add(stop, name, tensor)
    for states_PD in {id(output.states_PD): output.states_PD for output in audio}.values():
        stops.add("9 model", "states_PD", states_PD)
    for of_one_size in logits.values():
        stops.add("9 model", "audio_logits_NCV", torch.stack(of_one_size, dim=1))
    stops.add("10 loss", "loss", loss)
    console.print(
        f"{clip.path}: {row.text!r}, speaker {row.speaker!r}, {wave_N.shape[-1] / codec.sample_rate_hz:.2f} s"
        f"{'' if row.ends else ', cut'}; of the first {len(clips)} clips {len(corpus.left_out)} left out, "
        f"{corpus.cut} cut",
        highlight=False,
    )
    console.print(stops.table)
    console.print(_label_picture(example, model.delays))
    console.print({name: round(value, 3) for name, value in signals.items() if name.startswith("train/ce_nats")})


def _corpus(config: TokenConfig, assembly: TokenAssembly, codec: Codec, clips: Sequence[Clip | Conversation]) -> Corpus:
    [rows], _ = encoded([clips], codec)
    lay_out = limited(layout_of(assembly.model), config.data, codec.frame_rate_hz)
    vary = assembly.vary(rows) if assembly.vary else assembly.variation
    corpus = Corpus(rows, lay_out, assembly.model.pad_id, 1, vary, config.data.too_long)
    if not corpus.rows:
        raise UserError(
            "; ".join(corpus.left_out[:3]),
            "at least one clip that fits",
            "shorten the clips, or set data.too_long to cut",
        )
    return corpus


def _audio_of(row: Row, clips: Sequence[Clip | Conversation]) -> Clip:
    """The clip whose codes a row holds."""
    for clip in clips:
        if isinstance(clip, Conversation) and clip.name == row.source:
            return clip.clips[-1]
        if isinstance(clip, Clip) and clip.place == row.source:
            return clip
    raise ValueError(f"{row.source} is none of the clips")


def _label_picture(example: Example, delays: Sequence[int]) -> Table:
    """Which audio targets count, first and last positions of each codebook; -100 does not count."""
    table = Table(
        "codebook", "delay", "first targets", "last targets", "counted", box=None, pad_edge=False, title="audio targets"
    )
    audio_SC = example.audio_targets_SC[example.is_audio_S]
    for codebook, delay in enumerate(delays):
        targets_S = audio_SC[:, codebook]
        first, last = (
            " ".join(map(str, part.tolist()))
            for part in (targets_S[: LABEL_COLUMNS + 1], targets_S[-LABEL_COLUMNS - 1 :])
        )
        table.add_row(str(codebook), str(delay), first, last, f"{(targets_S != IGNORE).sum()} of {len(targets_S)}")
    return table


def trace_codec(assemble: AssembleCodec, config: CodecConfig, console: Console) -> None:
    """The first training batch of the first clips: encoder, quantiser, decoder, losses, discriminator."""
    assembly = assemble(config)
    codec, quantiser = assembly.codec.train(), assembly.codec.quantiser
    clips = read_and_teach(config, assembly, codec.device, silent, most=NEIGHBOURS)
    batch = next(batches(clips.train, config, codec, codec.device))
    discriminator = assembly.discriminator()
    objective = assembly.objective({name: statistics(t.sample()) for name, t in clips.train.features.items()})
    samples = round(config.discriminator.stretch_s * codec.sample_rate_hz)
    stops = Stops()
    with torch.no_grad():
        result = codec(batch.wave_BN)
        losses, _ = objective(result, batch)
        losses |= result.quantised.losses
        real_BN, fake_BN = random_stretch([batch.wave_BN, result.wave_BN], samples)
        real, fake = discriminator(real_BN), discriminator(fake_BN)
        loss_d, _ = assembly.adversary.discriminator_loss(real, fake)
        losses["adv_g"], losses["feat"] = assembly.adversary.generator_loss(fake)[0], feature_matching(real, fake)[0]
    stops.add("1 audio", "wave_BN", batch.wave_BN)
    for name, (features_BTF, exists_BT) in batch.features.items():
        stops.add("2 teachers", f"{name} features_BTF", features_BTF)
        stops.add("2 teachers", f"{name} exists_BT", exists_BT)
    stops.add("3 encoder", "latent_BDT", result.latent_BDT)
    stops.add("4 quantiser", "codes_BCT", result.quantised.codes_BCT)
    stops.add("4 quantiser", "latent_BDT", result.quantised.latent_BDT)
    stops.add("5 decoder", "wave_BN", result.wave_BN)
    for name, (logits, maps) in fake.items():
        stops.add("6 discriminator", f"{name} logits", logits)
        stops.add("6 discriminator", f"{name} maps, last of {len(maps)}", maps[-1])
    for name, loss in {**losses, "loss_d": loss_d}.items():
        stops.add("7 losses", name, loss)
    console.print(f"{len(clips.train.clips)} clips of {config.data.path}: {clips.train.clips[0].name}, ...")
    console.print(stops.table)
    weights = assembly.weights(config.discriminator.from_step)
    console.print({name: round(weights[name] * loss.item(), 3) for name, loss in losses.items() if weights[name]})
    if not quantiser.is_ready:
        console.print("The codebooks hold nothing yet, and the codes are zeros: training places the entries first.")
