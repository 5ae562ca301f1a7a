"""``earnest generate``: texts -> audio files, with any checkpoint of a run."""

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from earnest.bounds import check_number
from earnest.errors import UserError
from earnest.sampling import Sampling

if TYPE_CHECKING:
    from earnest.codecs import Codec
    from earnest.data.batch import Prompt
    from earnest.models.system import System

Positional = tyro.conf.Positional
PLAYERS = (("aplay", "-q"), ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"), ("afplay",), ("paplay",))


def generate(
    run: Positional[Path],
    text: tuple[str, ...],
    out: Path,
    checkpoint: str | None = None,
    play: bool = False,
    speaker: str | None = None,
    reference: Path | None = None,
    reference_text: str | None = None,
    temperature: float = 0.0,
    top_k: int = Sampling.top_k,
    top_p: float = Sampling.top_p,
    guidance: float = 1.0,
    filter_by_guidance: bool = Sampling.filter_by_guidance,
    seed: int = 0,
    max_duration_s: float = 10.0,
) -> int:
    """Say texts with a trained run.

    Args:
        run: A run directory that `earnest train` wrote.
        text: What is said; of several texts each is a file of its own: x.wav becomes x-1.wav, x-2.wav, ...
        out: The wav to write, which can be played while it grows. "-" is standard output, as .au: `| aplay`.
        checkpoint: A step whose checkpoint is there, "best" (the lowest held-out loss), or a directory; the newest one
            if not given.
        play: Play each file when it is written.
        speaker: A speaker of the training data; the first one if not given.
        reference: Audio of a voice to clone, in place of a speaker; needs a run trained with references (higgs).
        reference_text: What is said in it.
        temperature: 0 takes the likeliest token each time.
        top_k: How many of the likeliest tokens are drawn from.
        top_p: Of these, the smallest set that holds this much probability.
        guidance: null + guidance * (conditional - null), as in MusicGen; needs a trained unconditional branch (dia).
            Dia's own scale is one less.
        filter_by_guidance: Let guidance choose the likeliest tokens, and draw from these without it, as Dia does.
        seed: Of the random numbers.
        max_duration_s: Where the audio is cut if the model does not end it.
    """
    from earnest.data.audio import check_output
    from earnest.generate import check_guidance, cloning_prompt, load_run

    if (reference is None) != (reference_text is None):
        raise UserError(
            "one of --reference and --reference-text", "both: the audio, and what is said in it", "add the other"
        )
    numbers = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "guidance": guidance, "seed": seed}
    _check(text, out, {**numbers, "max_duration_s": max_duration_s})
    check_output(out)
    player = _player() if play else None
    model, codec, facts = load_run(run, _checkpoint(run, checkpoint))
    check_guidance(guidance, facts.unconditional_frac or 0)
    speakers = list(facts.speakers or ())
    if speaker is not None and speaker not in speakers:
        raise UserError(
            f"speaker {speaker!r}", f"one of {', '.join(speakers)}", "leave --speaker out for the first of these"
        )
    sampling = Sampling(top_k, top_p, filter_by_guidance)
    for number, each in enumerate(text, 1):
        if reference is not None and reference_text is not None:
            prompt = cloning_prompt(model, codec, each, reference, reference_text)
        else:
            prompt = model.prompt(each, speakers[0] if speaker is None else speaker)
        path = out if len(text) == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
        _write(model, codec, prompt, path, sampling, numbers, max_duration_s)
        if player:
            subprocess.run([*player, str(path)], check=False)
    return 0


def _check(texts: tuple[str, ...], out: Path, numbers: Mapping[str, float]) -> None:
    if not texts or not all(each.strip() for each in texts):
        raise UserError("an empty --text", "the words to say", "write them between quotes: --text 'seven'")
    if len(texts) > 1 and str(out) == "-":
        raise UserError(f"{len(texts)} texts to standard output", "one text, or a file", "name a file with --out")
    for name, value in numbers.items():
        check_number(name, "--" + name.replace("_", "-"), value)


def _write(
    model: "System",
    codec: "Codec",
    prompt: "Prompt",
    out: Path,
    sampling: Sampling,
    numbers: Mapping[str, float],
    max_duration_s: float,
) -> None:
    """Generate one text into a file, and say how long it is and how long it took."""
    from earnest.data.audio import write_pieces
    from earnest.generate import Request, decoded, generate_pieces

    guidance = numbers["guidance"]
    null_prompt = None if guidance == 1 else model.prompt(None)
    request = Request(prompt, numbers["temperature"], int(numbers["seed"]), guidance, null_prompt)
    frames = max(1, round(max_duration_s * codec.frame_rate_hz))
    start_s = time.perf_counter()
    codes = generate_pieces(model, request, max_frames=frames, sampling=sampling)
    waves = (wave_N.numpy().T for wave_N in decoded(codec, codes))
    written = [(samples, time.perf_counter() - start_s) for samples in write_pieces(out, waves, codec.sample_rate_hz)]
    samples, took_s = written[-1]
    ended = (
        "ended by the model" if samples < frames * codec.hop_samples else f"cut at --max-duration-s {max_duration_s:g}"
    )
    duration_s = samples / codec.sample_rate_hz
    told = f"{out}: {duration_s:.2f} s, {ended}; first sound after {written[0][1]:.2f} s, all after {took_s:.2f} s"
    print(told, file=sys.stderr if str(out) == "-" else sys.stdout)


def _checkpoint(run: Path, wanted: str | None) -> Path | None:
    """The checkpoint that a word means; None for the newest."""
    from earnest.checkpoints import chosen

    return None if wanted is None or not (run / "run.json").is_file() else chosen(run, wanted)


def _player() -> tuple[str, ...]:
    player = next((words for words in PLAYERS if shutil.which(words[0])), None)
    if player is None:
        raise UserError(
            "--play, and no program that plays audio",
            f"one of {', '.join(words[0] for words in PLAYERS)}",
            "install one, or open the file",
        )
    return player
