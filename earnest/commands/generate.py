"""``earnest generate``: texts -> audio files, with any checkpoint of a run."""

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from earnest.bounds import check_number
from earnest.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from earnest.codecs import Codec

Positional = tyro.conf.Positional
PLAYERS = (("aplay", "-q"), ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"), ("afplay",), ("paplay",))


def generate(
    run: Positional[Path],
    text: tuple[str, ...],
    out: Path,
    checkpoint: str | None = None,
    codec: str | None = None,
    device: str = "auto",
    play: bool = False,
    speaker: str | None = None,
    reference: Path | None = None,
    reference_text: str | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float | None = None,
    filter_by_guidance: Literal["published", "yes", "no"] = "published",
    seed: int = 0,
    dtype: Literal["exact", "bfloat16", "int8"] = "exact",
    compile: bool = False,
    max_duration_s: float = 10.0,
    piece_words: int = 0,
) -> int:
    """Say texts with a trained run, or with any checkpoint. How tokens are drawn is as the model was published, if it
    is not given.

    Args:
        run: A run directory that `earnest train` wrote; or a checkpoint of Higgs, Dia or MoT: a directory (merged ones
            and adapters too), or a name on the Hub.
        text: What is said; of several texts each is a file of its own: x.wav becomes x-1.wav, x-2.wav, ...
        out: The wav to write, which can be played while it grows. "-" is standard output, as .au: `| aplay`.
        checkpoint: A step whose checkpoint is there, "best" (the lowest held-out loss), or a directory; the newest one
            if not given.
        codec: What makes sound of the codes; that of the run, or the one the released model has, if not given.
        device: Where model and codec are: auto (a GPU if there is one), cpu, cuda, cuda:1, mps.
        play: Play each file when it is written.
        speaker: A speaker of the training data; the first one if not given.
        reference: Audio of a voice to clone, in place of a speaker: for Higgs and Dia.
        reference_text: What is said in it.
        temperature: 0 takes the likeliest token each time.
        top_k: How many of the likeliest tokens are drawn from.
        top_p: Of these, the smallest set that holds this much probability.
        guidance: null + guidance * (conditional - null), as in MusicGen; needs a trained unconditional branch (dia).
            Dia's own scale is one less.
        filter_by_guidance: Let guidance choose the likeliest tokens, and draw from these without it, as Dia does;
            published: as the model was.
        seed: Of the random numbers.
        dtype: The weights: exact, as the checkpoint has them; bfloat16 and int8 round them, are faster, and change some
            of the codes (docs/performance.md).
        compile: Compile the step of a frame, and let a GPU replay it as one graph: for long audio, as it takes a minute
            before the first sound. On a CPU it gains nothing.
        max_duration_s: Where the audio is cut if the model does not end it.
        piece_words: Say a long text in pieces of at most this many words, each after the two before it (higgs);
            --max-duration-s is then that of a piece. 0: the whole text at once.
    """
    from transformers.utils import logging

    from earnest.commands.devices import device as named_device
    from earnest.data.audio import check_output
    from earnest.speech import Speech, Wish, check_speaker, load_run, precision_of, resolved

    if (reference is None) != (reference_text is None):
        raise UserError(
            "one of --reference and --reference-text", "both: the audio, and what is said in it", "add the other"
        )
    numbers = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "guidance": guidance}
    numbers |= {"seed": seed, "max_duration_s": max_duration_s, "piece_words": piece_words}
    _check(text, out, {name: value for name, value in numbers.items() if value is not None})
    check_output(out)
    player = _player() if play else None
    logging.disable_progress_bar()  # of transformers, for half a second
    model, loaded, facts = load_run(run, codec, _checkpoint(run, checkpoint), named_device(device))
    filtered = {"published": None, "yes": True, "no": False}[filter_by_guidance]
    wish = Wish(temperature, guidance, top_k, top_p, filtered, seed, dtype, compile)
    voice = None if reference is None or reference_text is None else (reference, reference_text)
    frames = max(1, round(max_duration_s * loaded.frame_rate_hz))
    said_by, precision = check_speaker(speaker, facts), precision_of(facts, model.device)
    speech = Speech(model, loaded, *resolved(model, facts, wish), frames, said_by, voice, piece_words, precision)
    for number, each in enumerate(text, 1):
        path = out if len(text) == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
        _write(speech.pieces(each), loaded, path, max_duration_s, speech.most_frames(each))
        if player:
            import subprocess

            subprocess.run([*player, str(path)], check=False)
    return 0


def _check(texts: tuple[str, ...], out: Path, numbers: Mapping[str, float]) -> None:
    if not texts or not all(each.strip() for each in texts):
        raise UserError("an empty --text", "the words to say", "write them between quotes: --text 'seven'")
    if len(texts) > 1 and str(out) == "-":
        raise UserError(f"{len(texts)} texts to standard output", "one text, or a file", "name a file with --out")
    for name, value in numbers.items():
        check_number(name, "--" + name.replace("_", "-"), value)


def _write(pieces: "Iterator[Tensor]", codec: "Codec", out: Path, max_duration_s: float, most_frames: int) -> None:
    """Generate one text into a file, and say how long it is and how long it took."""
    from earnest.data.audio import write_pieces
    from earnest.generate import decoded

    start_s = time.perf_counter()
    waves = (wave_N.cpu().numpy().T for wave_N in decoded(codec, pieces))
    written = [(samples, time.perf_counter() - start_s) for samples in write_pieces(out, waves, codec.sample_rate_hz)]
    samples, took_s = written[-1]
    ended = (
        "ended by the model"
        if samples < most_frames * codec.hop_samples
        else f"cut at --max-duration-s {max_duration_s:g}"
    )
    duration_s = samples / codec.sample_rate_hz
    message = f"{out}: {duration_s:.2f} s, {ended}\n  first sound after {written[0][1]:.2f} s, all after {took_s:.2f} s"
    print(message, file=sys.stderr if str(out) == "-" else sys.stdout)


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
