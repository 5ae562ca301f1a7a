"""``earnest data check FOLDER``: reads a data set as training would, and says what is wrong with it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from earnest.data.checks import faults
from earnest.data.checks.checked import Checked, Fault, Limits, look_at
from earnest.data.checks.page import render
from earnest.data.clip import Clip
from earnest.data.layouts.folder import listed_clips
from earnest.data.layouts.paths import Source
from earnest.errors import UserError
from earnest.files import write_whole


def check_data(
    source: Source, limits: Limits, out: Path | None, on_progress: Callable[[str, int, int, str], None]
) -> tuple[str, list[Fault]]:
    """(what was looked at, what is wrong). out: the page, written if something is wrong or it is asked for."""
    clips = _clips(source)
    checked = look_at(clips, limits, lambda done, total: on_progress("listen", done, total, "clips"))
    found = faults(checked)
    told = summary(checked)
    if out is not None:
        write_whole(out, render(source.path, told, checked, found))
    return told, found


def _clips(source: Source) -> Sequence[Clip]:
    """The clips with their texts; of a folder without any text, its audio."""
    try:
        return listed_clips(source)
    except UserError as error:
        if source.columns or not Path(source.path).is_dir() or "no other list" not in error.seen:
            raise
        return listed_clips(source, needed=())


def summary(checked: Checked) -> str:
    measured = list(checked.measured.values())
    seconds = sum(each.duration_s for each in measured)
    speakers = {clip.speaker for clip in checked.clips if clip.speaker}
    rates = sorted({each.rate_hz for each in measured})
    longest = max((each.duration_s for each in measured), default=0.0)
    return (
        f"{len(checked.clips)} clips, {seconds / 60:.1f} minutes, the longest {longest:.1f} s · "
        f"{', '.join(map(str, rates))} Hz · {len(speakers) or 'no'} speaker{'s' if len(speakers) != 1 else ''}"
        + ("" if checked.limits.languages else " · language of texts by their letters alone (pip install py3langid)")
    )


def language_identifier() -> Callable[[str], tuple[str, float]] | None:
    """text -> (ISO 639-1 code, probability), by py3langid if it is installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def identify(text: str) -> tuple[str, float]:
        language, probability = identifier.classify(text)
        return str(language), float(probability)

    return identify


def unknown_to(tokenizer: str) -> Callable[[str], set[str]]:
    """The characters of a text that a tokenizer of transformers has no token for."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"no tokenizer {tokenizer}", "a directory or a name on the Hub", "check the name and the network"
        ) from error
    known: dict[str, bool] = {}

    def unknown(text: str) -> set[str]:
        for character in set(text) - known.keys():
            ids = loaded(character, add_special_tokens=False)["input_ids"]
            known[character] = character.isspace() or (bool(ids) and loaded.unk_token_id not in ids)
        return {character for character in text if not known[character]}

    return unknown
