"""The command line: ``earnest COMMAND ...``. A command is one function below, and its signature is its options.

What a command needs it imports when it is called, so that ``earnest diagnose`` starts without torch.
"""

# ruff: noqa: E402

import atexit
import difflib
import errno
import gc
import io
import logging
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

# What is imported stays. Looking through it for garbage, again and again and once more at the end, is a quarter of a
# short command.
gc.set_threshold(100_000)
atexit.register(gc.freeze)

import tyro

from earnest import stops, threads
from earnest.commands import arguments, front
from earnest.commands.data import check_data, data
from earnest.commands.exits import EXIT_FAULT, EXIT_FOUND, EXIT_MISTAKE
from earnest.commands.generate import generate
from earnest.commands.runs import compare, diagnose_all, explain, mcp, recipes, rules, runs, skill, watch
from earnest.commands.train import report, train
from earnest.errors import UserError, clean, of_disk

Positional = tyro.conf.Positional
COUNTS_ONLY = Annotated[
    bool, tyro.conf.arg(help="Count on the meta device: no weights are made, no gradient is asked for.")
]
CHECKPOINT = Annotated[
    str | None, tyro.conf.arg(help='A step, "best" (the lowest held-out loss), or a directory; the newest by default.')
]


def trace(recipe: str, args: list[str]) -> int:
    """Show one clip at every stop from disk to loss: earnest trace RECIPE [--any.field VALUE ...]."""
    chosen, call = arguments.configured(recipe, args, "trace", [])
    from earnest.commands.trace import trace as trace_config

    trace_config(chosen.assemble, call.config)
    return 0


def check(recipe: str, args: list[str]) -> int:
    """Look before training: earnest check RECIPE [--any.field VALUE ...], what is trained; or earnest check
    [--config FILE] [--seconds S] [--end-id ID] SCRIPT [ARGS], what anybody's training script does to its first step."""
    words = [recipe, *args] if recipe else args  # --config may come first
    script = next((place for place, word in enumerate(words) if word.endswith(".py")), None)
    if script is not None:
        from earnest.loops.script import Options, report_script

        options = arguments.parse(Options, words[:script], "earnest check")()
        return EXIT_FOUND if report_script(Path(words[script]), words[script + 1 :], options) else 0
    from earnest.commands.accounting import check_recipe

    chosen, call = arguments.configured(recipe, args, "check", [("counts_only", COUNTS_ONLY, False)])
    check_recipe(chosen.assemble, call.config, call.counts_only)
    return 0


def merge(run: Positional[Path], out: Positional[Path], checkpoint: CHECKPOINT = None) -> int:
    """Add a LoRA run's adapters into the weights of the model they were trained on: a plain model again, for
    transformers.

    Args:
        run: The run directory.
        out: The directory of the model, which is made.
    """
    from earnest.checkpoints import chosen
    from earnest.training.tokens.lora import merge as merge_adapters

    merge_adapters(chosen(run, checkpoint), out)
    print(out)
    return 0


def export(run: Positional[Path], out: Positional[Path], checkpoint: CHECKPOINT = None) -> int:
    """Write a codec of an amy-tiny run in half precision, without what only training needs.

    Args:
        run: The run directory.
        out: The directory of the codec, which is made: --codec of a training takes it.
    """
    from earnest.checkpoints import chosen
    from earnest.codecs import load_codec
    from earnest.codecs.amy import Amy

    path = chosen(run, checkpoint)
    codec = load_codec(str(path))
    if not isinstance(codec, Amy):
        raise UserError(
            f"{path} holds a {type(codec).__name__} codec, which export does not shrink",
            "a run of amy-tiny",
            "use the checkpoint itself: --codec takes it as it is",
        )
    codec.export(out)
    print(out)
    return 0


def encode(
    audio: Positional[Path],
    out: Positional[Path],
    codec: str = "amy-tiny",
    device: str = "auto",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> int:
    """Audio file -> codes (C, T) in a safetensors file that names its codec.

    Args:
        audio: The file, of any rate.
        out: The safetensors file that is written.
        codec: amy-tiny, a directory of a codec, or a checkpoint on the Hub (owner/name).
        device: Where the codec is: auto (a GPU if there is one), cpu, cuda, cuda:1, mps.
        dtype: What it computes in; bfloat16 is faster, and some codes differ.
    """
    import torch

    from earnest.codecs import load_codec
    from earnest.codecs.rounded import computing_in
    from earnest.codecs.stored import Stored
    from earnest.commands.devices import device as named_device
    from earnest.data.audio import ClipError
    from earnest.data.store import codes_of_file

    loaded = load_codec(codec, named_device(device))
    try:
        with computing_in(dtype, loaded):
            codes_CT, samples = codes_of_file(Path(audio), loaded)
    except ClipError as error:
        raise UserError(str(error), "a readable audio file with at least one sample", "check the file") from error
    Stored(torch.as_tensor(codes_CT), codec, samples).write(out)
    kbit_s = loaded.codebooks * (loaded.codebook_size - 1).bit_length() * loaded.frame_rate_hz / 1000
    print(f"{out}: {codes_CT.shape[0]} codebooks × {codes_CT.shape[1]} frames, {kbit_s:g} kbit/s")
    return 0


def decode(
    codes: Positional[Path],
    out: Positional[Path],
    device: str = "auto",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> int:
    """Codes that `earnest encode` wrote -> audio file.

    Args:
        codes: The safetensors file.
        out: The audio file that is written; its end names the format.
        device: Where the codec is: auto (a GPU if there is one), cpu, cuda, cuda:1, mps.
        dtype: What it computes in; bfloat16 is faster, and adds a little noise.
    """
    import torch

    from earnest.codecs import load_codec
    from earnest.codecs.rounded import computing_in
    from earnest.codecs.stored import read_codes
    from earnest.commands.devices import device as named_device
    from earnest.data.audio import write_wave

    stored = read_codes(codes)
    codec = load_codec(stored.codec, named_device(device))
    stored.check(codes, codec)
    with torch.inference_mode(), computing_in(dtype, codec):
        wave_N = codec.decode(stored.codes_CT[None].to(codec.device))[0].float().cpu().numpy().T
    write_wave(out, wave_N[: stored.samples], codec.sample_rate_hz)
    print(f"{out}: {len(wave_N) / codec.sample_rate_hz:.2f} s")
    return 0


def diagnose(
    path: Positional[Path],
    format: Literal["text", "markdown", "json", "html"] = "text",
    out: Path | None = None,
    fail_on: Literal["critical", "warning", "note"] = "critical",
    map: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    fact: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    trainer: str | None = None,
    model: str | None = None,
    config: Path | None = None,
    run: str | None = None,
    full: bool = False,
) -> int:
    """Diagnose a run from its log, ours or anybody's, or all runs of a directory: exit 0 if nothing is found, 1 if
    something is, 2 if it cannot be read.

    Args:
        path: A log, or a directory with one: TensorBoard, W&B, CSV, text, ours, ...; "-" is standard input.
        format: How the answer is written.
        out: Where to; standard output if not given (html: report.html; of several runs the directory reports/).
        fail_on: The mildest severity that counts as found.
        map: COLUMN=SIGNAL, if a column was taken for something else: --map "loss 2=train/ce_nats/text". Repeatable.
        fact: NAME=VALUE for what the log does not hold: --fact audio_vocab=1026 --fact codebooks=8. Repeatable;
            `earnest explain facts` lists the names.
        trainer: The public trainer that wrote it, if nothing in the log tells; "none" if what is told is wrong.
        model: A known model, in place of facts: --model higgs-audio-v2; `earnest explain models` lists them.
        config: A model's config.json or a trainer's YAML, in place of facts.
        run: Which one, if the log holds several.
        full: JSON with all evidence, all facts and what was not checked, in place of the small answer.
    """
    from earnest import logs, report
    from earnest.rules import diagnose as judge
    from earnest.rules.finding import SEVERITIES

    if path.suffix == ".py":
        fix = f"earnest check {path} looks before its first step, earnest watch {path} while it trains"
        raise UserError(f"{path}, a program", "a log that a training wrote", fix)
    facts = arguments.facts(fact) | ({} if trainer is None else {"trainer": trainer})
    reading = partial(logs.read, overrides=arguments.columns(map), facts=facts, model=model, config=config)
    try:
        read = reading(path, run=run)
        found = judge(read)
        report.present(read, found, format, out, full)
        findings, faults = found.findings, found.faults
    except logs.SeveralRuns as several:
        findings, faults = diagnose_all(several.paths, reading, format, out), []
    counts = SEVERITIES[: SEVERITIES.index(fail_on) + 1]
    if any(finding.severity in counts for finding in findings):
        return EXIT_FOUND
    return EXIT_FAULT if faults else 0


COMMANDS: dict[str, Callable[..., int]] = {
    command.__name__: command
    for command in (
        *(train, diagnose, watch, report, runs, compare, rules, explain, trace, check),
        *(recipes, data, generate, merge, export, encode, decode, mcp, skill),
    )
}
TAKE_A_RECIPE = (train, trace, check, watch)  # or a script: their words are their own
FRONT = {"-h": front.page, "--help": front.page, "-V": front.version, "--version": front.version}


TRAIN_PACKAGES = {
    "torch", "transformers", "accelerate", "peft", "datasets", "safetensors", "soundfile", "soxr", "tokenizers",
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run one command, and return its exit code.

    A mistake that a user can mend ends in three lines and 2; a fault of earnest's own in three lines and 3, with the
    traceback in a file (under ``python -X dev`` it is raised). Neither is 1, which says that something was found.
    """
    try:
        _show_safely()
        with stops.raised():
            return _run(*((sys.argv[1:] if argv is None else argv) or ["--help"]))
    except UserError as error:
        return _refused(error)
    except ModuleNotFoundError as error:
        if error.name not in TRAIN_PACKAGES:
            return _fault(error)
        needed = "earnest with its training part"
        return _refused(UserError(f"no package {error.name}", needed, 'pip install "earnest[train]"'))
    except BrokenPipeError:  # the reader of the output has gone, so a message would reach nobody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except SystemExit as end:  # rich ends a program that prints into a pipe without a reader, with 1
        if isinstance(end.__context__, BrokenPipeError):
            return 128 + signal.SIGPIPE
        raise
    except OSError as error:
        return _refused(of_disk(error))
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        return 128 + (error.signum if isinstance(error, stops.Stopped) else signal.SIGINT)
    except Exception as error:
        if _is_of_memory(error):
            return _refused(_out_of_memory(error))
        if type(error).__module__ == "huggingface_hub.errors" and "Strict" in type(error).__name__:
            return _refused(_no_such_model(error))
        return _refused(of_disk(error)) if _is_of_disk(error) else _fault(error)


class _Clean(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record))


def _show_safely() -> None:
    """Names of strangers steer no terminal in warnings either, and one that is not UTF-8 can be printed. A stream that
    was closed before the start leads nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for as long as it runs
    if logging.lastResort:
        logging.lastResort.setFormatter(_Clean())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(word: str, *args: str) -> int:
    if word in ("-h", "--help", "-V", "--version", "--completion"):
        completes = word == "--completion"
        print(front.completion("".join(args[:1]), COMMANDS, TAKE_A_RECIPE) if completes else FRONT[word]())
        return 0
    if word not in COMMANDS:
        near = difflib.get_close_matches(word, [*COMMANDS, *FRONT], 1)
        fix = f"did you mean earnest {near[0]}? earnest --help lists all" if near else "earnest --help"
        raise UserError(f"command {word!r}", f"one of {', '.join(COMMANDS)}", fix)
    if word == "data" and args[:1] == ("check",):
        return arguments.parse(check_data, args[1:], "earnest data check")()
    command = COMMANDS[word]
    if command is not watch and "torch" not in sys.modules:  # watch runs a program of somebody else's
        threads.choose(os.environ)
    if command is train and args[:1] in (("-h",), ("--help",)):
        print(front.train_help())
        raise SystemExit(0)
    if command in TAKE_A_RECIPE:
        names_recipe = bool(args) and not args[0].startswith("--config")
        return command(args[0] if names_recipe else "", list(args[names_recipe:]))
    return arguments.parse(command, args, f"earnest {word}")()


DISK = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.ESTALE, errno.ENODEV)


def _is_of_disk(error: BaseException | None) -> bool:
    """Whether a library's error is really one of the disk: by its cause, or by its words (safetensors, libsndfile and
    torch raise exceptions of their own for it)."""
    while error is not None:
        if isinstance(error, OSError) or any(os.strerror(number) in str(error) for number in DISK):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, a GPU's (torch.OutOfMemoryError), or torch's on a processor, which has words
    for it alone."""
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error)


def _out_of_memory(error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"memory ran out: {reason or type(error).__name__}",
        "room for the weights, their gradients, AdamW's two means, and the activations of a batch",
        "lower --data.positions-per-batch and the --shape options, or train adapters (--lora.rank); --resume goes on",
    )


def _refused(error: UserError) -> int:
    lines = str(error).splitlines()
    if sys.stderr.isatty():  # a file and a pipe get three lines; a terminal breaks no word
        width = shutil.get_terminal_size().columns
        wrapper = textwrap.TextWrapper(width, "", " " * 10, break_long_words=False, break_on_hyphens=False)
        lines = [part for line in lines for part in wrapper.wrap(line)]
    with suppress(OSError):  # the exit code says it, if this place is full too
        print(*lines, sep="\n", file=sys.stderr)
    return EXIT_MISTAKE


def _no_such_model(error: Exception) -> UserError:
    """transformers refuses a configuration: of a checkpoint, or of --shape options that have no check of their own."""
    reason = " ".join(str(error).split()).rpartition("ValueError: ")[2]
    return UserError(reason[:300], "sizes that fit together", "change the --shape options, or check config.json")


def _fault(error: Exception) -> int:
    if sys.flags.dev_mode:
        raise error
    with tempfile.NamedTemporaryFile("w", prefix="earnest-", suffix=".txt", delete=False, encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    seen = f"a fault of earnest itself: {type(error).__name__} {' '.join(str(error).split())[:200]}"
    fix = f"please report it as a bug; the traceback is in {file.name}"
    with suppress(OSError):
        print(UserError(seen, "a result, or a message about the input", fix), file=sys.stderr)
    return EXIT_FAULT


if __name__ == "__main__":
    raise SystemExit(main())
