"""One clip shown at every stop from disk to loss: name, shape, type, range, share masked.

Documentation, first diagnosis and bug report in one: ``earnest trace higgs-tiny``.
"""

from collections import defaultdict

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from earnest.codecs import load_codec
from earnest.data.audio import read_wave
from earnest.data.batch import Example, collate
from earnest.data.chatml import Conversation
from earnest.data.corpus import Corpus
from earnest.data.masks import IGNORE
from earnest.errors import UserError
from earnest.losses.tokens import TokenObjective
from earnest.streams import TEXT
from earnest.training.config import LMConfig
from earnest.training.preparation import encoded, find_clips

NEIGHBOURS = 50  # clips read beside the first, among which its reference is found where it has one
LABEL_COLUMNS = 8  # positions of the label picture at either end


def trace_clip(config: LMConfig, console: Console | None = None) -> None:
    """Carry the first clip of the data that is not left out through reading, encoding, layout, batching, the model and
    the loss; print each stop."""
    console = console or Console()
    table = Table("stop", "tensor", "shape", "type", "range", "masked", box=None, pad_edge=False)

    def stop(number: str, name: str, tensor: Tensor) -> None:
        counted = tensor[tensor != IGNORE] if not tensor.is_floating_point() else tensor
        span = (
            f"{counted.min().item():.4g} … {counted.max().item():.4g}"
            if counted.numel() and counted.dtype != torch.bool
            else ""
        )
        masked = f"{1 - counted.numel() / tensor.numel():.0%}" if "target" in name else ""
        table.add_row(
            number,
            name,
            " × ".join(map(str, tensor.shape)) or "scalar",
            str(tensor.dtype).removeprefix("torch."),
            span,
            masked,
        )

    torch.manual_seed(config.seed)
    codec = load_codec(config.codec)
    model = config.build(codec).eval()
    found = find_clips(config.data.path, config.data.variation(codec.frame_rate_hz).described_by)[:NEIGHBOURS]
    rows, _ = encoded(found, codec)
    lay_out, vary = config.data.limited(model, codec.frame_rate_hz), config.variation(rows, model, codec.frame_rate_hz)
    corpus = Corpus(rows, lay_out, model.pad_id, 1, vary, config.data.too_long)
    if not corpus.rows:
        raise UserError(
            "; ".join(corpus.left_out[:3]),
            "a clip that is not left out",
            "shorten the clips, or set data.too_long to cut",
        )
    row = corpus.vary(corpus.rows[0], None)
    shown = next(one for one in found if row.source == (one.name if isinstance(one, Conversation) else str(one.path)))
    clip = shown.clips[-1] if isinstance(shown, Conversation) else shown
    wave_N = torch.from_numpy(read_wave(clip.path, codec.sample_rate_hz, getattr(codec, "channels", 1)))
    with torch.inference_mode():
        example = corpus.example(corpus.rows[0])
        batch = collate([example], [0], model.pad_id)
        audio = {stream: output for stream, output in model.outputs(batch).items() if stream != TEXT}
        is_audio_P = batch.is_audio_BS[batch.exists_BS]
        logits: dict[int, list[Tensor]] = defaultdict(
            list
        )  # by size of the vocabulary: only one codebook may have an end
        for output in audio.values():
            logits_NV = output.head.logits(output.states_PD[is_audio_P])
            logits[logits_NV.shape[-1]].append(logits_NV)
        loss, signals = TokenObjective(model, config.weights(model.codebooks))(batch, batch.counted())
    stop("1 audio", "wave_N", wave_N)
    stop("2 codec", "codes_CT", torch.as_tensor(row.codes_CT))
    stop("5 text", "text_L", example.text_S[~example.is_audio_S])
    for name, tensor in vars(example).items():
        stop("6 layout", name, tensor)
    for name, tensor in vars(batch).items():
        stop("8 batch", name, tensor)
    for states_PD in {id(output.states_PD): output.states_PD for output in audio.values()}.values():
        stop("9 model", "states_PD", states_PD)
    for alike in logits.values():
        stop("9 model", "audio_logits_NCV", torch.stack(alike, dim=1))
    stop("10 loss", "loss", loss)
    console.print(
        f"{clip.path}: {row.text!r}, speaker {row.speaker!r}, {wave_N.shape[-1] / codec.sample_rate_hz:.2f} s"
        f"{'' if row.ends else ', cut'}; of the first {len(rows)} clips {len(corpus.left_out)} left out, {corpus.cut} cut",
        highlight=False,
    )
    console.print(table)
    console.print(_label_picture(example, model.delays))
    console.print({name: round(value, 3) for name, value in signals.items() if name.startswith("train/ce_nats")})


def _label_picture(example: Example, delays: list[int]) -> Table:
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
