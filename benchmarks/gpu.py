"""What real sizes take on a GPU: steps of Higgs (adapters, and whole), Dia and MoT, generation and codecs, with random
weights.

    python -m benchmarks.gpu [--only NAME ...] [--toy] [--out TABLE.json]

Installs and downloads nothing: shapes are those of the released checkpoints (`earnest.models.shapes`), weights are
random, tokens are random. A step: forward, backward, clipping, AdamW, under bf16 autocast. MFU counts 6 operations a
trained and 4 a frozen weight that a position passes, attention left out, against --peak-tflops. `syncs`: times that the
host waited for the device in one step, by torch's profiler. --toy: the same at sizes that a laptop's CPU takes seconds
for."""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import DacConfig, DacModel

from earnest.codecs.pretrained import FAMILIES, PretrainedCodec
from earnest.data.batch import Batch, collate
from earnest.generate import Request, generate
from earnest.losses.tokens import TokenObjective, stream_weights
from earnest.models.dia import DiaShape
from earnest.models.higgs import Higgs, HiggsShape
from earnest.models.mot import MoT, MoTDesign, MoTShape
from earnest.models.precision import train_in_float32
from earnest.models.shapes import DIA, HIGGS, MOT, released
from earnest.models.system import System
from earnest.training.optim import adamw
from earnest.training.tokens.lora import Lora, add_lora

SYNCS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")
STEPS, WARM = 5, 2


@dataclass(frozen=True)
class Measured:
    """One line of the table; None where it does not apply, or there is no GPU to ask."""

    name: str
    seconds: float
    positions_per_s: float | None = None
    mfu: float | None = None
    peak_gb: float | None = None
    syncs: int | None = None
    realtime_factor: float | None = None


def higgs(device: torch.device, toy: bool, adapters: bool) -> System:
    with torch.device(device):
        model = HiggsShape(width=32, layers=2, heads=2, ffn=64).build(8, 1024) if toy else released(HIGGS)
    assert isinstance(model, Higgs)
    if adapters:
        model.to(torch.bfloat16)
        add_lora(model.lm, Lora(rank=4 if toy else 16))
    train_in_float32(model)
    return model


def dia(device: torch.device, toy: bool) -> System:
    with torch.device(device):
        return DiaShape(width=32, layers=2, encoder_width=16).build(9, 1024, range(9), "eos") if toy else released(DIA)


def mot(device: torch.device, toy: bool) -> System:
    groups = ("adapters", "output", "embeddings", "experts", "attention")
    design = MoTDesign(groups, "new", "audio", rows_per_codebook=True, text_window=64, max_positions=2048)
    small = MoTShape(width=32, layers=2, heads=4, kv_heads=2, ffn=48, expert_width=16, expert_ffn=24)
    with torch.device(device):
        return MoT.assemble(4, 64 if toy else 2048, design, small if toy else MOT)


def batch_of(model: System, positions: int, frames: int, device: torch.device) -> Batch:
    random = torch.Generator().manual_seed(0)

    def clip() -> Tensor:
        return torch.randint(0, model.codes, (model.codebooks, frames), generator=random)

    example = model.lay_out(clip(), "a slow piano")
    count = max(1, positions // len(example))
    return collate([model.lay_out(clip(), "a slow piano") for _ in range(count)], range(count), model.pad_id).to(device)


def step_of(model: System, batch: Batch) -> Callable[[], None]:
    objective = TokenObjective(model, stream_weights(model.codebooks, 0.1, 1.0)).train()
    optimizer, counted = adamw(model, 1e-5, 0.01), batch.counted()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(model.device.type, torch.bfloat16):
            loss, _ = objective(batch, counted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()

    return step


def timed(run: Callable[[], object], device: torch.device, times: int = STEPS, warm: int = WARM) -> float:
    """Seconds of one run, the mean of `times` after `warm`."""
    for _ in range(warm):
        run()
    wait(device)
    start = time.perf_counter()
    for _ in range(times):
        run()
    wait(device)
    return (time.perf_counter() - start) / times


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def syncs(run: Callable[[], object], device: torch.device) -> int:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiled:
        run()
    return sum(event.count for event in profiled.key_averages() if event.key in SYNCS)


def training(name: str, model: System, positions: int, frames: int, peak_tflops: float) -> Measured:
    device = model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    batch = batch_of(model, positions, frames, device)
    step = step_of(model, batch)
    seconds = timed(step, device)
    count = int(batch.exists_BS.sum())
    operations = count * sum(
        (6 if p.requires_grad else 4) * p.numel()
        for n, p in model.named_parameters()
        if p.ndim == 2 and "embed" not in n
    )
    return Measured(
        name,
        seconds,
        positions_per_s=count / seconds,
        mfu=operations / seconds / (peak_tflops * 1e12),
        peak_gb=torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None,
        syncs=syncs(step, device),
    )


def speaking(name: str, model: System, clips: int, frames: int, frame_rate_hz: float) -> Measured:
    requests = [Request(model.prompt("a slow piano"), 1.0, seed) for seed in range(clips)]

    def speak() -> None:
        with torch.autocast(model.device.type, torch.bfloat16):
            generate(model, requests, max_frames=frames)

    seconds = timed(speak, model.device, 1, 1)
    return Measured(name, seconds, clips * frames / seconds, realtime_factor=seconds / (clips * frames / frame_rate_hz))


def codec(device: torch.device, toy: bool) -> Iterator[Measured]:
    config = DacConfig(n_codebooks=9, sampling_rate=44_100)
    if toy:
        config.encoder_hidden_size, config.decoder_hidden_size, config.hidden_size = 2, 16, 32
    model = cast(torch.nn.Module, DacModel(config))
    dac = PretrainedCodec("dac", model.to(device).eval(), FAMILIES["dac"])
    clips, duration_s = (1, 1) if toy else (8, 10)
    wave_BN = torch.randn(clips, duration_s * dac.sample_rate_hz, device=device)
    codes_BCT = dac.encode(wave_BN)
    for name, run in (("encode", lambda: dac.encode(wave_BN)), ("decode", lambda: dac.decode(codes_BCT))):
        seconds = timed(run, device, 2, 1)
        yield Measured(f"dac {name}", seconds, realtime_factor=seconds / (clips * duration_s))


def measure(only: list[str], toy: bool, peak_tflops: float) -> Iterator[Measured]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    makes: dict[str, tuple[Callable[[], System], int, int, float]] = {
        "higgs-lora": (lambda: higgs(device, toy, True), 8192, 250, 25),
        "higgs": (lambda: higgs(device, toy, False), 2048, 250, 25),
        "dia": (lambda: dia(device, toy), 8192, 860, 86),
        "mot": (lambda: mot(device, toy), 8192, 245, 50),
    }
    for name, (make, positions, frames, rate_hz) in makes.items():
        if not only or name in only:
            model = make()
            yield training(name, model, 200 if toy else positions, 12 if toy else frames, peak_tflops)
            for clips in (1, 8):
                yield speaking(f"{name} speaks, {clips} clips", model, clips, 4 if toy else 100, rate_hz)
            del model
            if device.type == "cuda":
                torch.cuda.empty_cache()
    if not only or "codec" in only:
        yield from codec(device, toy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="dense bf16 of the GPU; H100 and H200: 989")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU: a CPU"
    print(f"{name}, torch {torch.__version__}")
    table = []
    for measured in measure(given.only, given.toy, given.peak_tflops):
        table.append(asdict(measured))
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in table[-1].items()})
        if given.out:
            given.out.write_text(json.dumps({"device": name, "table": table}, indent=1))


if __name__ == "__main__":
    main()
