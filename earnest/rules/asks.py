"""`asks`: which number would let a stream be judged that cannot be, where it stands, and what to type."""

import math
import shlex
from collections.abc import Sequence

from earnest.facts import FACTS
from earnest.profiles import profiles
from earnest.profiles.models import models
from earnest.rules.finding import Ask
from earnest.rules.gan import DISCRIMINATOR, Gan
from earnest.rules.streams import StreamView
from earnest.rules.verdicts import Judged
from earnest.rules.verdicts.losses import UNBOUNDED
from earnest.run import Run
from earnest.streams import TEXT, TOTAL, Stream

MOST = 3  # questions: a report is read, not filled in
NEAR = 0.015  # of a known level, as a share of it: a loss that starts there (assumed; heads start within a few percent)
MOST_GUESSES = 3
NEVER = {*DISCRIMINATOR, *UNBOUNDED}  # streams that no stated level would let be judged
JOINT = "joint_vocab and audio_vocab if audio ids were appended to a text vocabulary"
ELSE = "or --model NAME (`earnest explain models`), or --config PATH (the model's config.json, the trainer's YAML)"


def asks(judged: Sequence[Judged], run: Run) -> list[Ask]:
    """At most three questions: vocabularies first, as they say most."""
    unjudged = [one.view for one in judged if one.verdict.baseline is None and one.verdict.value is not None]
    of_tokens = {one.stream for one in judged if one.is_tokens}
    tokens = [view for view in unjudged if view.stream in of_tokens and not view.no_mean]
    others = [view for view in unjudged if view.stream not in of_tokens and view.stream != TOTAL]
    divided = [one.view for one in judged if one.is_tokens and one.view.is_printed_divided]
    found = [
        *_vocabularies([view for view in tokens if not view.rungs], run),
        *_of(divided, "accumulation_steps", run),
        *_discriminators([view for view in others if view.stream in DISCRIMINATOR], run),
        *_baselines([view for view in others if view.stream not in NEVER and view.unit != "sum"], run),
    ]
    return found[:MOST]


def _ask(views: Sequence[StreamView], fact: str, run: Run, options: str = "", hints: Sequence[str] = ()) -> Ask:
    about = FACTS[fact]
    command = f"earnest diagnose {shlex.quote(str(run.path or 'LOG'))} {options or f'--fact {fact}=...'}"
    return Ask(tuple(view.stream for view in views), about.meaning, about.where, command, list(hints))


def _of(views: Sequence[StreamView], fact: str, run: Run) -> list[Ask]:
    return [_ask(views, fact, run)] if views else []


def _vocabularies(views: Sequence[StreamView], run: Run) -> list[Ask]:
    kinds: list[tuple[str, list[StreamView]]] = [
        ("text_vocab", [view for view in views if view.stream in (TEXT, TOTAL)]),
        ("audio_vocab", [view for view in views if view.stream not in (TEXT, TOTAL)]),
    ]
    return [_vocabulary(fact, of_kind, run) for fact, of_kind in kinds if of_kind]


def _vocabulary(fact: str, views: list[StreamView], run: Run) -> Ask:
    """A vocabulary is named by a model if the trainer's page says which it trains."""
    page = profiles().get(run.facts.trainer or "")
    trained = page.models if page else ()
    if page and any("audio_vocab" in one.chance for one in page.logged if one.stream == views[0].stream):
        fact = "audio_vocab"
    hints = [f"or --model {name}: {models()[name].title}" for name in trained[1:]]
    built = [name for name, one in profiles().items() if page and one.extends == page.name and one.facts.audio_vocab]
    hints += [f"or --trainer {', '.join(built)}: if one of them wrote it"] if built else []
    hints += [f"or --fact {fact}=... of another model" if trained else ELSE]
    if any(view.stream == TOTAL for view in views) and not trained:
        hints.insert(0, f"or --fact audio_vocab=... if its targets are audio codes; {JOINT}")
    hints += [guess for view in views[:1] if (guess := _guess(view))]
    return _ask(views, fact, run, f"--model {trained[0]}" if trained else "", hints)


def _guess(view: StreamView) -> str | None:
    """The known vocabularies whose chance the loss begins at: a question, as other losses begin there too."""
    if view.train is None or not len(view.train.finite):
        return None
    start = float(view.train.finite.value[0])
    sizes: dict[int, list[str]] = {}
    for name, model in models().items():
        for size in {model.facts.text_vocab, model.facts.audio_vocab, model.facts.joint_vocab}:
            if size is not None:
                sizes.setdefault(size, []).append(name)
    near = sorted((abs(start / math.log(size) - 1), size) for size in sizes)
    close = [f"ln {size} ({', '.join(sizes[size][:2])})" for share, size in near[:MOST_GUESSES] if share < NEAR]
    return f"it begins at {start:.4g}, near {' and '.join(close)}: is that the vocabulary?" if close else None


def _discriminators(views: Sequence[StreamView], run: Run) -> list[Ask]:
    """The form of its loss, or how many losses are added up in it."""
    if not views:
        return []
    form = Gan(run).form
    if form is None:
        return [_ask(views, "gan_loss", run)]
    return [_ask(views, "sub_discriminators", run)] if form == "lsgan" else []


def _baselines(views: Sequence[StreamView], run: Run) -> list[Ask]:
    if not views:
        return []
    named = "{" + ", ".join(f'"{_plain(view.stream)}": ...' for view in views[:2]) + "}"
    return [_ask(views, "baselines", run, f"--fact baselines={shlex.quote(named)}")]


def _plain(stream: Stream) -> str:
    return str(stream).replace("'", "")
