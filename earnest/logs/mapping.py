"""`to_run`: columns under foreign names -> a `Run`, with a record of what was taken for what.

A column that is not understood stays unmapped, with the reason.
"""

import difflib
import re

import numpy as np

from earnest.errors import UserError
from earnest.facts import Facts
from earnest.logs.log import Log
from earnest.logs.names import Guess, guess, split_of
from earnest.logs.steps import Rows, stitch
from earnest.logs.trainer import NOTHING, Known
from earnest.logs.units import logarithms, settle_perplexities, settle_stated
from earnest.logs.unused import UNKNOWN, unused
from earnest.logs.words import BARE_LOSSES, BOOKKEEPING, CLOCKS, SPLITS, axis_of, words
from earnest.quantiles import median
from earnest.run import Run, Series
from earnest.signals import SIGNALS, Key, parse
from earnest.streams import AUDIO, TEXT, Codebook, Part

GENERATOR = Part("loss_g")
# words that name a part of a loss, or the whole, only beside other parts
BARE_PARTS = {
    "disc", "discriminator", "d", "gen", "generator", "g", "fm", "fmap", "kl", "kld", "recon", "reconstruction", "rec",
    "spec", "vq", "l1", "l2", "mse", "cyc", "cycle", "idt", "identity",
}  # fmt: skip
# of the two players of a translation between images or voices, as CycleGAN's and pix2pix's programs print them: `D_A`,
# `G_GAN`, `cycle_B`
PLAYERS = re.compile(
    r"(?P<player>[dg])_(?P<what>[ab]|gan|adv|l1|l2|real|fake|vgg|feat|rec|cyc|cycle|idt|tv|cls)(?P<of>_\w+)?"
)
BESIDE_PLAYERS = re.compile(r"(?:cycle|cyc|idt|identity|z|kl)(?:_(?:a|b|l1|l2))?|fake|[dg]")
BARE_TOTALS = {"total", "sum", "all", "overall"}
FRACTIONS = {"accuracy_frac", "clipped_frac", "used_frac", "padding_frac", "counted_frac", "copy_frac"}

TIMES = ("_runtime", "_timestamp", "timestamp", "wall_time")  # W&B, Trackio, tables of TensorBoard: seconds
MILLISECONDS = 1e11  # of a time since 1970 that is larger


def choose_beside(log: Log, run: str | None) -> str | None:
    """Keep the columns of one run, if a log holds several side by side. Returns the run that is still to be chosen, or
    None. Raises UserError if `run` is none of them."""
    if not log.runs:
        return run
    log.columns = {name: log.columns[column] for name, column in _beside(log, run).items()}
    return None


def to_run(log: Log, overrides: dict[str, str], run: str | None, known: Known = NOTHING) -> Run:
    """The log as a `Run`: keys, steps, and in its facts what was taken for what. The user's choice wins over what is
    `known` of the trainer's columns, and that over a guess."""
    chosen = _checked(log, overrides)
    told = {name: key for name, key in known.keys.items() if name not in chosen}
    ignored = {name: why for name, why in known.ignored.items() if name not in chosen and not _ends_in_nan(log, name)}
    guesses = {name: guess(name) for name in log.columns if name not in chosen and name not in ignored}
    guesses |= {name: Guess(key) for name, key in told.items()}
    _splits_for_losses(guesses)
    _count_codebooks_from_0(log, guesses)
    _language_model_beside_codebooks(guesses)
    _parts_beside_losses(guesses)
    _players(guesses)
    _total_of_a_model(guesses)
    _error_for_a_loss(log, guesses)
    ambiguous = _of_several_folders(guesses)
    keys = {name: known.key for name, known in guesses.items() if known and name not in ambiguous}
    keys.update({name: key for name, key in chosen.items() if isinstance(key, Key)})
    axes = {name: "step" for name in known.steps if name not in chosen}
    axes |= {name: axis for name, axis in chosen.items() if axis in ("step", "epoch")}
    rows = stitch(log, axes, run, list(keys) or list(log.columns))
    for name in rows.axes:
        keys.pop(name, None)
    unmapped = {
        name: _reason(name) for name in log.columns if name not in keys and name not in rows.axes and name not in chosen
    }
    unmapped |= ambiguous | ignored
    settle_perplexities(log, keys, unmapped)
    settle_stated(log, keys, known.in_bits)
    series, mapping = _series(log, rows, keys, unmapped, dict.fromkeys(told, 1) | dict.fromkeys(chosen, 0))
    logarithms(log, rows, series, mapping, unmapped)
    facts = {
        "format": log.format,
        "mapping": {name: mapping[name] for name in log.columns if name in mapping},
        "unmapped": unmapped,
    }
    facts |= log.facts | _steps_per_epoch(log, rows)
    if any("avg" in words(name) or "average" in words(name) for name in mapping):
        log.notes.append("a column is called an average: a mean since the start always looks like a plateau")
    log.notes += unused(log, unmapped, any(key.name in ("loss", "ce_nats") for key in series))
    return Run(
        Facts().updated(facts),
        series,
        notes=log.notes,
        elapsed=_elapsed(log, rows),
        counts_steps=rows.counts_steps,
        counts_epochs=rows.counts_epochs,
    )


def _ends_in_nan(log: Log, name: str) -> bool:
    """Whether a column that the trainer's page leaves out (a running mean of another) is a loss that ends in NaN: then
    it is read, so that the NaN is reported."""
    column, known = log.columns.get(name), guess(name)
    return (
        column is not None
        and known is not None
        and known.key.name == "loss"
        and bool(np.isnan(column.value[-1:]).any())
    )


def _elapsed(log: Log, rows: Rows) -> Series | None:
    """Seconds since the first row, of a log with a column of times."""
    name = next((name for name in TIMES if name in log.columns), None)
    if name is None:
        return None
    step, value = rows.series(log.columns[name])
    keep = np.isfinite(value)
    step, value = step[keep], value[keep]
    if len(step) < 2 or (np.diff(value) < 0).any():
        return None
    return Series(step, (value - value[0]) / (1000 if value[0] > MILLISECONDS else 1), Key("train", "elapsed_s"))


def _series(
    log: Log, rows: Rows, keys: dict[str, Key], unmapped: dict[str, str], rank: dict[str, int]
) -> tuple[dict[Key, Series], dict[str, str]]:
    """The series, and column -> what it was taken for; a column that is not taken enters `unmapped`.

    rank: of columns that are no guesses; of two with one key the lower ranked is taken, then the fuller one, then the
    one that was not a number more often.
    """
    mapping: dict[str, str] = dict(rows.axes)
    series: dict[Key, Series] = {}
    pieces = {name: rows.series(log.columns[name]) for name in keys}
    lost = {name: int((~np.isfinite(value)).sum()) for name, (_, value) in pieces.items()}
    for name in sorted(keys, key=lambda name: (rank.get(name, 2), -len(pieces[name][0]), -lost[name])):
        key, (step, value) = keys[name], pieces[name]
        if not len(step):
            unmapped[name] = "no values in the run that is read"
        elif key in series:
            taken = next(other for other, mapped in mapping.items() if mapped == str(key))
            if (
                key.name in ("loss", "ce_nats") and lost[name] > lost[taken]
            ):  # what is not a number is never passed over
                beside = key._replace(stream=Part("_".join(words(name))))
                if beside not in series:
                    series[beside], mapping[name] = Series(step, _scaled(log, name, beside, value), beside), str(beside)
                    continue
            unmapped[name] = f"also {key}, taken from {taken!r}, which has at least as many values"
        elif key.name == "used_frac" and np.nanmax(value, initial=0) > 100:
            unmapped[name] = "counts entries and is no fraction"
        else:
            series[key] = Series(step, _scaled(log, name, key, value), key)
            mapping[name] = str(key)
    return series, mapping


def _of_several_folders(guesses: dict[str, Guess | None]) -> dict[str, str]:
    """encoder/grad_norm beside decoder/grad_norm is no global norm: columns told apart only by unknown folders are not
    guessed at."""
    alike: dict[Key, dict[str, str]] = {}
    for name, known in guesses.items():
        if known:
            alike.setdefault(known.key, {})[name] = known.folder
    several = [names for names in alike.values() if len(set(names.values())) > 1 and all(names.values())]
    return {
        name: f"one of {len(names)} columns of this name, of different folders; name one with --map"
        for names in several
        for name in names
    }


def _beside(log: Log, run: str | None) -> dict[str, str]:
    if run is None and len(log.runs) == 1:
        return next(iter(log.runs.values()))
    if run not in log.runs:
        raise UserError(
            f"{len(log.runs)} runs side by side" if run is None else f"run {run!r}",
            "one run: " + ", ".join(list(log.runs)[:20]),
            f"choose one, e.g. --run {next(iter(log.runs))!r}",
        )
    return log.runs[run]


def _checked(log: Log, overrides: dict[str, str]) -> dict[str, Key | str]:
    """The user's column=signal pairs: a signal of the vocabulary, "step", "epoch" or "ignore"."""
    chosen: dict[str, Key | str] = {}
    for column, signal in overrides.items():
        if column not in log.columns:
            near = difflib.get_close_matches(column, log.columns, 3) or sorted(log.columns)[:20]
            raise UserError(
                f"--map names column {column!r}, which the log has not",
                "one of " + ", ".join(map(repr, near)),
                "correct the name",
            )
        if signal in ("step", "epoch", "ignore"):
            chosen[column] = signal
            continue
        key = (
            parse(signal)
            if signal.split("/")[0] in ("train", "eval", "test") and "/" in signal
            else parse(f"train/{signal}")
        )
        if key.name not in SIGNALS:
            near = difflib.get_close_matches(key.name, SIGNALS, 3) or sorted(SIGNALS)
            raise UserError(
                f"--map {column}={signal}: {key.name!r} is no signal",
                "[split/]signal[/stream], the signal one of " + ", ".join(near),
                f"e.g. --map {column}=train/ce_nats/text",
            )
        chosen[column] = key
    return chosen


def _count_codebooks_from_0(log: Log, guesses: dict[str, Guess | None]) -> None:
    """audiocraft calls its first codebook ce_q1: if a family of columns has no codebook 0, it counts from 1."""
    families: dict[tuple[str, str], dict[str, int]] = {}
    for name, known in guesses.items():
        if known and known.numbered and isinstance(known.key.stream, Codebook):
            families.setdefault((known.key.split, known.key.name), {})[name] = known.key.stream.index
    if any(signal == "ce_nats" for _, signal in families):
        for name, known in guesses.items():
            if known and known.key[1:] == ("ce_nats", None):  # audiocraft's ce beside ce_q1, ...: their mean
                guesses[name] = Guess(known.key._replace(stream=AUDIO))
    for numbers in families.values():
        if len(numbers) > 1 and min(numbers.values()) == 1:
            log.notes.append(f"codebooks counted from 1 ({', '.join(list(numbers)[:3])}, ...) are counted from 0 here")
            for name, number in numbers.items():
                known = guesses[name]
                assert known
                guesses[name] = Guess(known.key._replace(stream=Codebook(number - 1)))


def _reason(name: str) -> str:
    named = words(name)
    if axis_of(name) or axis_of(" ".join(word for word in named if word not in SPLITS)):
        return "counts steps or epochs"
    if "loss" in named and BOOKKEEPING & set(named):
        return "a setting, or a record of a loss"
    if CLOCKS & set(named) or {"per", "sec"} <= set(named):
        return "a clock, a rate or a resource"
    return UNKNOWN


def _language_model_beside_codebooks(guesses: dict[str, Guess | None]) -> None:
    """A trainer of audio tokens calls the loss of its text tokens that of the LLM; a codec's is a distillation."""
    if any(known and isinstance(known.key.stream, Codebook) and known.key.name == "loss" for known in guesses.values()):
        for name, known in guesses.items():
            if known and known.key[1:] == ("loss", Part("llm")):
                guesses[name] = Guess(known.key._replace(stream=TEXT))


def _parts_beside_losses(guesses: dict[str, Guess | None]) -> None:
    """disc, gen, fm and kl beside mel are losses too, and total is their sum: a bare word is one in such company."""
    parts = [known for known in guesses.values() if known and known.key.name == "loss" and known.key.stream]
    bare = {name: _bare(name) for name, known in guesses.items() if known is None}
    known_parts = [word for word in bare.values() if word in BARE_PARTS]
    if not parts and len(known_parts) < 3:
        return
    for name, word in bare.items():
        if word in BARE_PARTS or (word in BARE_TOTALS and parts):
            guesses[name] = guess(f"{split_of(name)}/{word if word in BARE_PARTS else ''} loss")


def _players(guesses: dict[str, Guess | None]) -> None:
    """`D_A: 0.25 G_A: 0.32 cycle_A: 6.3`, without the word loss: what two players and those beside them score."""
    bare = {name: _bare(name) for name, known in guesses.items() if known is None}
    if sum(PLAYERS.fullmatch(word) is not None for word in bare.values()) < 2:
        return
    for name, word in bare.items():
        player = PLAYERS.fullmatch(word)
        if player is not None:
            what = player["what"] + (player["of"] or "")
            to_fool = player["what"] in ("a", "b", "gan", "adv", "real", "fake")
            part = f"disc_{what}" if player["player"] == "d" else f"adv_{what}" if to_fool else what
            guesses[name] = Guess(Key(split_of(name), "loss", Part(part)))
        elif BESIDE_PLAYERS.fullmatch(word):
            part = {"d": "disc", "g": "adv", "fake": "disc_fake"}.get(word, word)
            guesses[name] = Guess(Key(split_of(name), "loss", Part(part)))


def _bare(column: str) -> str:
    """A column's name without its split."""
    return "_".join(word for word in words(column) if word not in SPLITS)


def _splits_for_losses(guesses: dict[str, Guess | None]) -> None:
    """`train=0.18 valid=0.23`: without any loss, columns that are called by their splits alone are the losses."""
    named = {name: SPLITS[words(name)[0]] for name in guesses if len(words(name)) == 1 and words(name)[0] in SPLITS}
    has_loss = any(known is not None and known.key.name in ("loss", "ce_nats") for known in guesses.values())
    if set(named.values()) >= {"train", "eval"} and not has_loss:
        guesses.update({name: Guess(Key(split, "loss")) for name, split in named.items()})


def _total_of_a_model(guesses: dict[str, Guess | None]) -> None:
    """`soundstream total loss` beside `soundstream recon loss` is the total, and no part called soundstream."""
    losses = {name: known for name, known in guesses.items() if known and known.key.name == "loss"}
    if any(known.key.stream is None for known in losses.values()):
        return
    for name, known in losses.items():
        of_a_model = "total" in words(name) and isinstance(known.key.stream, Part) and known.key.stream != GENERATOR
        if of_a_model and any(str(one.key.stream).startswith(f"{known.key.stream}_") for one in losses.values()):
            guesses[name] = Guess(known.key._replace(stream=None))


def _error_for_a_loss(log: Log, guesses: dict[str, Guess | None]) -> None:
    """`Err 6.91`: where nothing is called a loss, an error or a cost that is no share is the loss."""
    if any(known and known.key.name in ("loss", "ce_nats", "perplexity") for known in guesses.values()):
        return
    for name, known in guesses.items():
        value = log.columns[name].value
        if known is None and _bare(name) in BARE_LOSSES and len(value) > 1 and median(np.abs(value)) > 1:
            guesses[name] = Guess(Key(split_of(name), "loss"))
            log.notes.append(f"{name!r} is taken for the loss, as nothing else is one")


def _scaled(log: Log, name: str, key: Key, value: np.ndarray) -> np.ndarray:
    factor, why = log.scale.get(name, (1.0, ""))
    if factor == 1.0 and (key.name in FRACTIONS or key.name == "error_frac") and _in_percent(key, value):
        factor, why = 0.01, "percent"
    if factor != 1.0:
        log.notes.append(f"{name!r} is in {why} and was multiplied by {factor:.4g}")
    return value * factor if factor != 1.0 else value


def _in_percent(key: Key, value: np.ndarray) -> bool:
    """An error rate above 100 % is possible; one above 150 % in half of all rows is not."""
    finite = value[np.isfinite(value)]
    if not len(finite) or finite.min() < 0:
        return False
    of_a_share = key.name in FRACTIONS and 1.5 < finite.max() <= 100
    return of_a_share or (key.name == "error_frac" and bool(median(finite) > 1.5))


def _steps_per_epoch(log: Log, rows: Rows) -> dict[str, int]:
    """How many steps are one epoch, if the epoch column grows with the steps."""
    if rows.epoch is None or ("step" not in rows.axes.values() and log.step is None):
        return {}
    step, epoch = rows.step[rows.start : rows.stop], rows.epoch[rows.start : rows.stop]
    if len(step) < 3 or not np.isfinite(epoch).all() or (np.diff(epoch) < 0).any() or epoch[-1] == epoch[0]:
        return {}
    if (epoch == np.floor(epoch)).all():
        first = step[np.flatnonzero(np.diff(epoch) > 0) + 1]
        every = int(median(np.diff(step)))
        if len(first) == 1 and 0 <= step[0] <= max(1, every) and epoch[0] in (0, 1):  # the log begins with an epoch
            return {"steps_per_epoch": int(first[0] - step[0])} if first[0] - step[0] > 1 else {}
        lengths = np.diff(first)
        if len(lengths) and lengths.min() > 0 and np.ptp(lengths) <= 0.05 * lengths.max():
            return {"steps_per_epoch": int(median(lengths))}
        return {}
    slope = (step[-1] - step[0]) / (epoch[-1] - epoch[0])
    return {"steps_per_epoch": round(slope)} if slope >= 1 else {}
