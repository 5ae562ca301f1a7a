"""What `earnest` says of itself without torch: its commands, its version, help on training, completion for shells."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from earnest import __version__
from earnest.commands.exits import EXIT_CODES
from earnest.errors import UserError

WIDTH = 80
COMMANDS = {  # one line of 80 columns each
    "Any run": {
        "diagnose": "what is wrong with a run, from its log, ours or anybody's",
        "watch": "a script, or a log that grows: findings as they are believed",
        "runs": "list the runs below a directory, with their verdicts",
        "compare": "which of several runs is better, and what differs",
        "explain": "a rule, a word of a report, a signal, fact, recipe or trainer",
        "rules": "list every rule",
    },
    "Before training": {
        "data": "make a folder to train on; data check FOLDER: what is wrong with one",
        "check": "what of a model is trained; or any training script to its first step",
        "trace": "one clip at every stop from disk to loss",
    },
    "Training": {
        "recipes": "what can be trained",
        "train": "train a recipe, then diagnose the run",
        "report": "diagnose a run of ours, and write its page",
        "generate": "say texts with a trained run",
        "merge": "add a LoRA run's adapters into the model they were trained on",
    },
    "For agents": {
        "mcp": "serve diagnoses over the Model Context Protocol",
        "skill": "instructions for agents that run trainings",
    },
    "Codec": {
        "encode": "audio file -> codes",
        "decode": "codes -> audio file",
        "export": "a codec of a run, in half precision",
    },
}
FIRST_OPTIONS = {  # those of `earnest train` that matter first
    "--data.path": "a folder, a list of clips, or a data set on the Hub (owner/name)",
    "--out": "directory of the run; a new one under runs/ if not given",
    "--steps": "optimizer steps, in place of --epochs",
    "--epochs": "passes over the data",
    "--optimizer.learning-rate": "the peak; a cosine follows",
    "--data.positions-per-batch": "size of a micro-batch: lower it if memory runs out",
    "--evaluate-every-steps": "how often the held-out clips are scored",
    "--demos.texts": "what is said at every set of demos",
    "--mixed-precision": "auto, bf16 or no",
    "--seed": "of weights, order of clips and everything else that is random",
}
SHELLS = ("bash", "zsh")


def page() -> str:
    """What `earnest --help` prints: every command in a line, and the exit codes."""
    lines = ["usage: earnest COMMAND ...   (earnest COMMAND --help lists its options)"]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:", *(f"  {name:<9} {purpose}" for name, purpose in commands.items())]
    lines += ["", "Exit codes:", *(f"  {code:<9} {meaning}" for code, meaning in EXIT_CODES.items())]
    lines += ["", "earnest --version; earnest --completion bash|zsh"]
    return "\n".join(lines)


def version() -> str:
    """The version, with what else a bug report needs: Python and platform."""
    import platform

    return f"earnest {__version__} (Python {platform.python_version()}, {platform.system()} {platform.machine()})"


def train_help() -> str:
    """Help without a recipe, and so without torch."""
    from earnest.explain import recipes

    width = max(map(len, FIRST_OPTIONS)) + 2
    lines = ["usage: earnest train RECIPE [--config FILE] [--print-config] [--resume] [...]"]
    lines += ["", "options that matter first:"]
    for name, purpose in FIRST_OPTIONS.items():
        lines += _wrapped(purpose, f"  {name:<{width}}", " " * (width + 2))
    lines += ["", "recipes:", *(f"  {name}" for name in recipes())]
    lines += ["", "earnest recipes describes them; earnest train RECIPE --help lists every option"]
    return "\n".join(lines)


def recipe_list() -> str:
    """What `earnest recipes` prints: each recipe, and the first paragraph of its text."""
    from earnest.explain import recipes

    width = max(map(len, recipes())) + 4
    lines: list[str] = []
    for name, text in recipes().items():
        lines += _wrapped(" ".join(text.partition("\n\n")[0].split()), f"  {name:<{width - 2}}", " " * width)
    return "\n".join([*lines, "", "earnest train RECIPE begins; earnest train --help lists the first options"])


def _wrapped(text: str, first: str, later: str) -> list[str]:
    from textwrap import wrap

    return wrap(text, WIDTH, initial_indent=first, subsequent_indent=later)


def completion(shell: str, commands: Mapping[str, Callable[..., Any]], take_a_recipe: tuple[Any, ...]) -> str:
    """The script that completes commands, recipes and options in a shell, by tyro's own means."""
    import contextlib
    import io

    import tyro

    from earnest.explain import recipes

    if shell not in SHELLS:
        raise UserError(f"--completion {shell}".strip(), f"one of {', '.join(SHELLS)}", "earnest --completion bash")
    names = Literal[tuple(recipes())]  # type: ignore[valid-type]

    def with_recipe(recipe: names, out: Path | None = None, resume: bool = False) -> None:  # type: ignore[valid-type]
        """Arguments of a command that takes a recipe, as far as the shell completes them."""

    known = {name: with_recipe if command in take_a_recipe else command for name, command in commands.items()}
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(
            dict(known), prog="earnest", args=["--tyro-print-completion", shell], sort_subcommands=False
        )
    return output.getvalue()
