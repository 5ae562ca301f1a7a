"""Words of the command line -> a call. What does not fit a command ends in three lines (`UserError`).

tyro parses. What it refuses it says in typed events (`tyro._errors`; this and `tyro._resolver` are private: tyro's
version is pinned), and each kind of event has its three lines here.
"""

import contextlib
import dataclasses
import difflib
import functools
import inspect
import io
import re
import sys
import textwrap
from argparse import ArgumentError, ArgumentParser
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

import tyro
from tyro import _errors as refusals
from tyro import _resolver as resolver
from tyro._arguments import ArgumentDefinition

from earnest.bounds import check_bounds
from earnest.commands import settings
from earnest.errors import UserError
from earnest.facts import FACTS, checked
from earnest.records import loads, plain

T = TypeVar("T")
NONE_OR = re.compile(r"\{None\}\|(\w+)(?=  )")  # "{None}|INT  the help": what follows must stay in its column
NO_DEFAULT = re.compile(r"\s+\(default:\s+None\)")  # "(default: None)", which may be wrapped
METAVARS = {"INT": "a whole number", "FLOAT": "a number", "PATH": "a path", "STR": "a text", "{None}": "None"}


def parse(target: Callable[..., T], args: Sequence[str], prog: str, flag_pairs: bool = False) -> Callable[[], T]:
    """Read `args` by the signature of `target`; returns the call, not yet made. Raises UserError for what does not
    fit.

    flag_pairs: a flag can be set and unset (--x, --no-x), whatever its default; else it can only be changed."""

    @functools.wraps(target, updated=())
    def later(*values: Any, **named: Any) -> Callable[[], T]:
        return lambda: target(*values, **named)

    def refuse(event: refusals.ParseErrorEvent, /) -> None:
        raise refusal(event, list(options(target)), args)

    args = _together(args, target)
    _refuse_valueless(args, target, prog)
    with refusals.on_parse_error(refuse), _narrow_help(args):
        return tyro.cli(later, args=args, prog=prog, config=() if flag_pairs else (tyro.conf.FlagCreatePairsOff,))


def _together(args: Sequence[str], target: Callable[..., Any]) -> list[str]:
    """``--text A --text B`` as ``--text A B``: of an option that takes several values none is lost."""
    words = list(args)
    for parameter in inspect.signature(target).parameters.values():
        option = "--" + parameter.name.replace("_", "-")
        if get_origin(parameter.annotation) is not tuple or words.count(option) < 2:
            continue
        values: list[str] = []
        while option in words:
            place = words.index(option)
            given = list(_until_option(words[place + 1 :]))
            values += given
            del words[place : place + 1 + len(given)]
        words = [*words, option, *values]
    return words


def _refuse_valueless(args: Sequence[str], target: Callable[..., Any], prog: str) -> None:
    """Raises UserError for an option of several values that has none, and has none by default either: tyro takes
    ``--tracker`` alone as an empty tuple, and the tracker that was meant would be missed."""
    words = [word.replace("_", "-") for word in args]
    for option, default in _with_defaults(target):
        if default == () and option in words and not list(_until_option(args[words.index(option) + 1 :])):
            raise UserError(f"{option} without a value", "one value or more behind it", f"{prog} --help says which")


@contextmanager
def _narrow_help(args: Sequence[str]) -> Generator[None, None, None]:
    """Help in 80 columns: tyro puts the description of a command in one line, whatever its length. Options without a
    default are shown without "None": the usage line already says that they may be left out."""
    if not {"-h", "--help"} & set(args):
        yield
        return
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            yield
    finally:
        plain_text = NONE_OR.sub(r"\1       ", text.getvalue()).replace("{None}|", "")
        plain_text = NO_DEFAULT.sub("", plain_text)
        for line in plain_text.splitlines():
            print("\n".join(textwrap.wrap(line, 80, break_on_hyphens=False)) if len(line) > 80 else line)


_by_typeguard = resolver.is_instance


def _is_instance(hint: Any, value: Any) -> bool:
    """Whether a default fits its type, which tyro asks typeguard: that takes longer to import than most logs to
    judge. No default, None and an empty tuple are answered here."""
    if value is None or value == () or isinstance(value, type(tyro.MISSING)):
        return True
    return _by_typeguard(hint, value)


resolver.is_instance = _is_instance


def before_recipe(args: Sequence[str]) -> tuple[Path | None, bool]:
    """The values of --out and --resume, which decide where the configuration comes from."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", action="store_true")
    try:
        known, _ = parser.parse_known_args(args)
    except ArgumentError:  # --out without a value: the whole parser says so
        return None, False
    return known.out, known.resume


def recipe_names() -> list[str]:
    """The recipes that can be asked for: those of the source, and once `earnest.recipes` is imported, also those that
    a program has added to it."""
    from earnest.explain import recipes

    imported = sys.modules.get("earnest.recipes")
    return list(imported.RECIPES) if imported else list(recipes())


def _no_recipe(name: str, names: Sequence[str], command: str) -> UserError:
    seen = f"recipe {name!r}" if name and not name.startswith("-") else "no recipe"
    fix = f"earnest {command} {next(iter(difflib.get_close_matches(name, names, 1)), names[0])}"
    path = Path(name)
    if path.is_file() or (path / "run.json").is_file():
        seen, fix = f"{name}, which is no recipe", f"if it is a log of a training: earnest diagnose {name}"
    elif path.is_dir() and name:
        seen = f"{name}, a directory and no recipe"
        logs = f"earnest diagnose {name} if it holds logs"
        fix = f"earnest train {names[0]} --data.path {name}" if command == "train" else logs
    elif path.suffix and path.name not in names:
        seen = f"{name}, which is no recipe, and no file"
    script = ", or a script: SCRIPT.py [ARGS]" if command == "check" else ""
    return UserError(seen, f"one of {', '.join(names)}{script}", fix)


def configured(
    name: str, args: Sequence[str], command: str, options: list[tuple[str, Any, Any]], stored: Any = None
) -> tuple[Any, Any]:
    """A recipe by name, and the call with its configuration as `config`: every field an option, beside `options`.

    stored: the configuration that an option changes, if not the recipe's own.
    """
    names = recipe_names()
    file = settings.asked(args)
    if file.recipe and name not in (file.recipe, ""):
        raise UserError(
            f"{name}, and a configuration of {file.recipe}", "one recipe", f"earnest {command} {file.recipe}"
        )
    name = name or file.recipe
    if name in ("-h", "--help"):
        listed = textwrap.fill(f"recipes: {', '.join(names)}", 80, subsequent_indent=" " * 9, break_on_hyphens=False)
        print(f"usage: earnest {command} RECIPE ...\n\n{listed}\n")
        print(f"earnest {command} RECIPE --help lists the options of a recipe")
        raise SystemExit(0)
    if name not in names:  # a mistake is told before torch is imported
        raise _no_recipe(name, names, command)
    from transformers.utils import logging

    from earnest.recipes import RECIPES

    logging.disable_progress_bar()  # one bar a stage is enough
    config = RECIPES[name].configure() if stored is None else stored
    unnamed = Annotated[type(config), tyro.conf.arg(name="")]  # --steps rather than --config.steps
    call = dataclasses.make_dataclass(command.title(), [("config", unnamed, config), *options], frozen=True)
    call.__doc__ = RECIPES[name].configure.__doc__
    words = [*settings.as_words(file.values, config), *file.words]
    called = parse(call, words, f"earnest {command} {name}", flag_pairs=stored is not None)()
    check_bounds(called.config)
    if file.prints:
        print(settings.as_yaml(name, called.config), end="")
        raise SystemExit(0)
    return RECIPES[name], called


def refusal(event: refusals.ParseErrorEvent, known: Sequence[str], args: Sequence[str]) -> UserError:
    """The three lines for what tyro refuses. known: the options of the command · args: the words that were given."""
    fix = f"{event.prog} --help lists the options"
    match event:
        case refusals.UnrecognizedArgs(tokens=tokens):
            return _unknown(tokens, known, fix)
        case refusals.MissingArgs(missing_arguments=missing, unrecognized_tokens=tokens):
            if any(token.startswith("-") for token in tokens):
                return _unknown(tokens, known, fix)
            arguments = [argument.arg for argument in missing]
            names = " and no ".join(map(_name, arguments))
            return UserError(
                f"no {names}", "; ".join(f"{_name(argument)}: {_meaning(argument)}" for argument in arguments), fix
            )
        case refusals.InvalidChoice(argument=argument, value=value, choices=choices):
            near = difflib.get_close_matches(value, choices, 1)
            near = near or [each for each in choices if _abbreviates(value, each)]
            seen = f"{_name(argument)} {value}"
            return UserError(seen, f"one of {', '.join(choices)}", f"did you mean {near[0]}?" if near else fix)
        case refusals.BadValue(argument=argument, offending_value=None):
            return UserError(f"{_name(argument)} without a value", _expected(argument), _meaning(argument))
        case refusals.BadValue(argument=argument, offending_value=value):
            return UserError(f"{_name(argument)} {value}", "no value: it is fixed", fix)
        case refusals.InstantiationFailure(argument=ArgumentDefinition() as argument):
            return UserError(f"{_name(argument)} {_given(argument, args)}", _expected(argument), _meaning(argument))
        case _:
            return UserError(" ".join(args), f"options that `{event.prog}` has", fix)


def _abbreviates(word: str, name: str) -> bool:
    """Whether a word is some of a name's letters in their order: md of markdown."""
    letters = iter(name)
    return all(letter in letters for letter in word.lower())


def options(target: Callable[..., Any]) -> Iterator[str]:
    """The options of a command: its parameters by name, and the fields of a configuration among them."""
    return (name for name, _ in _with_defaults(target))


def _with_defaults(target: Callable[..., Any]) -> Iterator[tuple[str, object]]:
    for parameter in inspect.signature(target).parameters.values():
        if dataclasses.is_dataclass(parameter.default):
            yield from _fields(parameter.default, "--")
        elif tyro.conf.Positional not in getattr(parameter.annotation, "__metadata__", ()):
            yield "--" + parameter.name.replace("_", "-"), parameter.default


def _fields(record: Any, prefix: str) -> Iterator[tuple[str, object]]:
    for field in dataclasses.fields(record):
        name, value = prefix + field.name.replace("_", "-"), getattr(record, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, name + ".")
        else:
            yield name, value


ELSEWHERE = {  # what other trainers call an option
    **dict.fromkeys(("--batch-size", "--per-device-train-batch-size", "--batch"), "--data.positions-per-batch"),
    **dict.fromkeys(("--output-dir", "--save-dir", "--exp-dir", "--name"), "--out"),
    **dict.fromkeys(("--num-train-epochs", "--num-epochs"), "--epochs"),
    **dict.fromkeys(("--max-train-steps", "--iterations", "--iters"), "--steps"),
    **dict.fromkeys(("--dataset", "--train-data", "--data-dir", "--metadata"), "--data.path"),
    **dict.fromkeys(("--fp16", "--bf16", "--amp"), "--mixed-precision"),
    **dict.fromkeys(("--report-to", "--logger", "--wandb"), "--tracker"),
    **dict.fromkeys(("--save-steps", "--save-interval"), "--save-every-steps"),
    **dict.fromkeys(("--eval-steps", "--eval-interval"), "--evaluate-every-steps"),
    **dict.fromkeys(("--max-audio-len", "--max-duration"), "--data.max-duration-s"),
}


def _unknown(tokens: Sequence[str], known: Sequence[str], fix: str) -> UserError:
    """Words that are no option: the names that are spelled nearly so, by their initials (`--lr`), or within a group
    (`--data`)."""
    word = next((token for token in tokens if token.startswith("-")), None)
    if word is None:
        return UserError(f"{tokens[0]!r}", "no further word, or an option before it", fix)
    name = word.partition("=")[0].replace("_", "-")
    last = {option: "--" + option.rpartition(".")[2].lstrip("-") for option in known}
    near = difflib.get_close_matches(name, known, 3, 0.7)
    near += [option for option in known if last[option] in difflib.get_close_matches(name, last.values(), 3, 0.7)]
    near += [option for option in known if option.startswith(name + ".") or name == "--" + _initials(last[option])]
    near += [option for option in known if option == ELSEWHERE.get(name)]
    listed = list(dict.fromkeys(near))[:4] or (known if len(known) <= 12 else [])
    return UserError(f"option {word}", " or ".join(listed) or "an option of this command", fix)


def _initials(name: str) -> str:
    return "".join(word[0] for word in name.split("-") if word)


def _name(argument: ArgumentDefinition) -> str:
    return argument.display_name().upper() if argument.is_positional() else argument.display_name()


def _expected(argument: ArgumentDefinition) -> str:
    metavar = argument.lowered.metavar or "a value"
    return " or ".join(METAVARS.get(word, word) for word in reversed(metavar.split("|")))


def _meaning(argument: ArgumentDefinition) -> str:
    """What the argument's documentation says, in one line."""
    text = argument.field.helptext
    return " ".join(((text() if callable(text) else text) or _expected(argument)).split())


def _given(argument: ArgumentDefinition, args: Sequence[str]) -> str:
    """The words that were given for an argument, as far as they can be told."""
    for place, word in enumerate(args):
        name, _, value = word.partition("=")
        if name.replace("_", "-") in argument.lowered.name_or_flags:
            return value or " ".join(_until_option(args[place + 1 :]))
    return ""


def _until_option(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if word.startswith("--"):
            return
        yield word


def columns(words: Sequence[str]) -> dict[str, str]:
    """``COLUMN=SIGNAL`` words of ``--map`` by column, whose name may hold a "=" itself."""
    return dict(_pair(word, "--map COLUMN=SIGNAL", word.rpartition("=")) for word in words)


def facts(words: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` words of ``--fact``, checked. Raises UserError if there is no such fact, or not with this value.

    A value is read as JSON if it is JSON (8, 0.15, true, [0, 1]) and the fact is no text.
    """
    given = dict(_pair(word, "--fact NAME=VALUE", word.partition("=")) for word in words)
    return {name: plain(checked(name, _value(name, text))) for name, text in given.items()}


def _pair(word: str, form: str, parts: tuple[str, str, str]) -> tuple[str, str]:
    if not parts[0] or not parts[1]:
        option, _, pair = form.partition(" ")
        raise UserError(f"{option} {word}", pair, "put = between the two, and quotes around names with spaces")
    return parts[0], parts[2]


def _value(name: str, text: str) -> Any:
    if name in FACTS and FACTS[name].type is str:
        return text
    try:
        return loads(text)
    except ValueError:
        return text
