"""Demos: the same texts, temperatures and seeds again and again, so that only the model differs."""

from collections.abc import Sequence

import torch

from earnest.data.audio import write_wave
from earnest.generate import Request, generate
from earnest.run import Artifact, RunWriter


def make_demos(
    model,
    codec,
    texts: Sequence[str],
    speaker: str,
    temperatures: Sequence[float],
    seed: int,
    max_duration_s: float,
    step: int,
    writer: RunWriter,
) -> None:
    """Generate every text at every temperature in one batch, write the wavs and name them as artifacts of the run."""
    requests = [(text, temperature) for text in texts for temperature in temperatures]
    generated = generate(
        model,
        [Request(model.prompt(text, speaker), temperature, seed) for text, temperature in requests],
        max_frames=round(max_duration_s * codec.frame_rate_hz),
    )
    folder = writer.path / "demos" / f"step_{step:07d}"
    folder.mkdir(parents=True, exist_ok=True)
    for (text, temperature), result in zip(requests, generated, strict=True):
        name = "".join(letter if letter.isalnum() else "_" for letter in text)[:40]
        path = folder / f"{name}_t{temperature:g}.wav"
        with torch.inference_mode():
            wave_N = codec.decode(result.codes_CT[None].cpu())[0]
        write_wave(path, wave_N.numpy(), codec.sample_rate_hz)
        facts = {
            "text": text,
            "speaker": speaker,
            "temperature": temperature,
            "seed": seed,
            "frames": result.codes_CT.shape[1],
            "stopped": result.stopped,
        }
        writer.artifact(Artifact("demo", path.relative_to(writer.path).as_posix(), step, facts))
