"""One foreign name -> our key.

A name is taken apart into words; the split is told by one of them (train, eval, valid, ...), the stream by others
(text, codebook_3, msspec, ...), and the rest is looked up in `signals.ALIASES`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from earnest import streams
from earnest.logs.words import (
    AVERAGING,
    BOOKKEEPING,
    CLOCKS,
    CODEBOOK,
    CODEBOOK_FILLERS,
    CODEBOOK_WORDS,
    FOLDERS,
    OPTIMIZER,
    SPLITS,
    words,
)
from earnest.signals import ALIASES, SIGNALS, Key, parse
from earnest.streams import Codebook, Stream

CODEBOOK_SIGNALS = {
    "loss", "ce_nats", "accuracy_frac", "perplexity", "used_frac", "entropy_nats", "copy_frac", "counted_frac",
    "residual_frac",
}  # fmt: skip
FAMILIES = {"perplexity", "used_frac"}
CRITERIA = {"ce", "bce", "nll", "xent", "crossentropy"}  # kinds of a loss, which name one without saying so

GLUED = re.compile(r"(?<![A-Za-z])([A-Za-z]{2,12}?)loss(?![A-Za-z])", re.IGNORECASE)  # melloss, bceloss, trainloss

_KNOWN: dict[str, tuple[str, Stream | None]] = {}
for _target, _names in ALIASES.items():
    _, _name, _stream = parse(f"train/{_target}")
    for _alias in _names.split():
        _KNOWN[_alias] = (_name, _stream)
for _name in SIGNALS:
    _KNOWN["_".join(words(_name))] = (_name, None)


@dataclass(frozen=True)
class Guess:
    """What a column is taken for; `numbered`: its codebook number is as written, perhaps from 1."""

    key: Key
    numbered: bool = False
    folder: str = ""  # words before the name that were passed over


def guess(column: str) -> Guess | None:
    """Take one foreign name for a signal, or for nothing."""
    parts = column.split("/")
    if len(parts) > 1 and parts[0] in ("train", "eval", "test") and parts[1] in SIGNALS:  # our own key
        return Guess(parse(column))
    for start in range(len(parts)):  # `dia-run-3/train/loss`: leading folders may be anybody's words
        named, folders = words("/".join(parts[start:])), words("/".join(parts[:start]))
        known = _guess(named, folders)
        # `foo/loss` is a part called foo, unless foo says nothing or the split comes after it
        if known and (
            known.key[1:] != ("loss", None) or FOLDERS.issuperset(folders) or not SPLITS.keys().isdisjoint(named)
        ):
            return replace(known, folder="" if FOLDERS.issuperset(folders) else "/".join(parts[:start]))
    apart = GLUED.sub(r"\1_loss", column)
    if apart != column:
        return guess(apart)
    return _of_loss_part(
        [word for word in words(column) if word not in SPLITS and word not in AVERAGING], _split(words(column))
    )


def _guess(named: Sequence[str], folders: Sequence[str]) -> Guess | None:
    split = _split([*named, *folders])
    rest = [word for word in named if word not in SPLITS]
    if not rest:
        return None
    plain = [word for word in rest if word not in AVERAGING]
    for candidate in (rest, plain, list(dict.fromkeys(plain))):  # mel_loss_mel_loss says everything twice
        if "_".join(candidate) in _KNOWN:
            name, stream = _KNOWN["_".join(candidate)]
            return Guess(Key(split, name, stream))
    if rest[0] == "lr" and OPTIMIZER.fullmatch("".join(rest[1:])):
        return Guess(Key(split, "learning_rate"))
    return _of_codebook(rest, split) or _of_family(rest, split)


def split_of(column: str) -> str:
    """The split that a foreign name tells; training if none."""
    return _split(words(column))


def _split(named: Sequence[str]) -> str:
    return next((SPLITS[word] for word in named if word in SPLITS), "train")


def _of_codebook(rest: list[str], split: str) -> Guess | None:
    """`ce_q1`, `audio_loss_codebook_0`, `loss_cb0`, `codebook_3_loss`."""
    for index, word in enumerate(rest):
        match, used = CODEBOOK.fullmatch(word), 1
        number = match[1] if match else None
        if word in CODEBOOK_WORDS and index + 1 < len(rest) and rest[index + 1].isdigit():
            number, used = rest[index + 1], 2
        if number is None or len(number) > 3:
            continue
        others = [
            other
            for other in rest[:index] + rest[index + used :]
            if other not in CODEBOOK_FILLERS and other not in AVERAGING
        ]
        name, stream = _KNOWN.get("_".join(others) or "loss", (None, None))
        if name is None and others == ["ppl"]:
            name = "perplexity"
        if name in CODEBOOK_SIGNALS and stream is None and (others or "loss" in rest):
            return Guess(Key(split, name, Codebook(int(number))), numbered=True)
    return None


def _of_family(rest: list[str], split: str) -> Guess | None:
    """`ppl_0`, `codebook_usage/3`: one number of a family that only codebooks have."""
    *named, number = rest
    name, stream = ("perplexity", None) if named == ["ppl"] else _KNOWN.get("_".join(named), (None, None))
    if name in FAMILIES and stream is None and number.isdigit() and len(number) <= 2:
        return Guess(Key(split, name, Codebook(int(number))), numbered=True)
    return None


def _of_loss_part(rest: list[str], split: str) -> Guess | None:
    """`loss/foo`, `foo_loss` and `bce_foo`: a part of the loss called foo."""
    # `scale_2` is one of several scales
    criterion = CRITERIA & set(rest)
    if len(rest) == 2 and len(criterion) == 1 and "loss" not in rest:  # `CE V`, `bce_stop`
        (other,) = set(rest) - criterion or {""}
        if other.isalpha() and other not in BOOKKEEPING and other not in CLOCKS:
            return Guess(Key(split, "ce_nats") if len(other) == 1 else Key(split, "loss", streams.parse(other)))
    unnumbered = {word for word, following in zip_longest(rest, rest[1:], fillvalue="") if not following.isdigit()}
    if "loss" not in rest or len(rest) > 5 or BOOKKEEPING & unnumbered or (CLOCKS & set(rest) and rest[-1] != "loss"):
        return None
    part = [word for word in rest if word != "loss"]
    if len(part) > 1 and part[0] in ("audio", "codebook", "text"):  # a stream called audio_... would pass for tokens
        part = [*part[1:], part[0]]
    return Guess(Key(split, "loss", streams.parse("_".join(part)) if part else None))
