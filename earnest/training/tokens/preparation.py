"""From the place that a configuration names to the two corpora of a run: clips found, encoded, split and laid out."""

import logging
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, cast

from earnest.codecs import Codec
from earnest.data.audio import Segment, length_s
from earnest.data.clip import Clip
from earnest.data.clips import Clips, taken
from earnest.data.corpus import NAMED, Corpus, layout_of, length_of
from earnest.data.layouts.chatml import Conversation
from earnest.data.row import Row
from earnest.data.sides import sides_of
from earnest.data.store import encode_clips, encode_sides
from earnest.errors import TooLongError, UserError
from earnest.facts import Facts
from earnest.files import cache_dir
from earnest.generate import check_codec
from earnest.models.system import System
from earnest.monitors.draws import Draws
from earnest.training.clips import find_clips
from earnest.training.run import OnProgress, silent
from earnest.training.tokens.assembly import TokenAssembly
from earnest.training.tokens.config import Data, Demos, TokenConfig

log = logging.getLogger(__name__)

Result = TypeVar("Result")

SPARE_S = 1.0  # of a clip that is too long; its codes near the cut are then those of the whole clip
ENOUGH_HELD_OUT, ENOUGH_HELD_OUT_FRAC = 20, 0.05  # assumed: below, one odd clip moves the mean


@dataclass(frozen=True)
class Corpora:
    """Both sides of the data; `draws` counts what training draws; facts: what became of the clips."""

    train: Corpus
    held_out: Corpus
    draws: Draws
    facts: Facts


def prepare(config: TokenConfig, assembly: TokenAssembly, codec: Codec, on_progress: OnProgress = silent) -> Corpora:
    """Read, split and encode the data."""
    data, model = config.data, assembly.model
    check_codec(model, codec)
    (train_clips, train_long), (held_out_clips, held_out_long) = (
        within(side, data) for side in _sides(config, assembly)
    )
    (train_rows, held_out_rows), unread = encoded([train_clips, held_out_clips], codec, on_progress)
    vary = assembly.vary or (lambda rows: assembly.variation)
    draws = Draws(vary(train_rows))
    lay_out = limited(layout_of(model), data, codec.frame_rate_hz)
    length = limited(length_of(model, layout_of(model)), data, codec.frame_rate_hz)
    settings = lay_out, model.pad_id, data.positions_per_batch
    train = Corpus(train_rows, *settings, draws, data.too_long, length)
    held_out = Corpus(held_out_rows, *settings, vary(held_out_rows), data.too_long, length)
    left_out = [*unread, *train_long, *train.left_out, *held_out_long, *held_out.left_out]
    _check_sides(train, held_out, left_out)
    _tell_left_out(left_out, len(train) + len(held_out), train.cut + held_out.cut, len(model.cut_texts))
    _check_windows(assembly.variation.window_frames, train)
    facts = Facts(
        train_clips=len(train),
        held_out_clips=len(held_out),
        left_out_clips=tuple(left_out),
        cut_clips=train.cut + held_out.cut,
        cut_texts=len(model.cut_texts),
        skipped_clips=len(unread),
        speakers=train.speakers,
        held_out_speakers=held_out.speakers,
    )
    return Corpora(train, held_out, draws, facts)


def encode_share(
    config: TokenConfig, assembly: TokenAssembly, codec: Codec, rank: int, ranks: int, on_progress: OnProgress = silent
) -> None:
    """Encode every `ranks`-th clip into the store: of several processes each encodes its own."""
    sides = [within(side, config.data)[0] for side in _sides(config, assembly)]
    encoded([side[rank::ranks] for side in sides], codec, on_progress)


Side = Sequence[Clip | Conversation]  # of one kind


def _sides(config: TokenConfig, assembly: TokenAssembly) -> tuple[Side, Side]:
    """The clips to train on, and those held out."""
    data = config.data
    clips = find_clips(data, assembly.variation.described_by)
    _check_kind(clips, assembly.model, data)
    _check_demos(config.demos, clips)
    by: Literal["name", "speaker"] = "speaker" if data.held_out == "speakers" else "name"
    columns = clips if isinstance(clips[0], Conversation) else Clips.of(cast(list[Clip], clips))
    train, held_out = sides_of(columns, data.held_out_frac, config.seed, by)
    return taken(columns, train), taken(columns, held_out)


def within(clips: Side, data: Data) -> tuple[Side, list[str]]:
    """Clips that may be short enough, and a line for each that is longer than `data.max_duration_s` by what its header
    says: neither its audio nor its codes are then made. Of one that is to be cut, the beginning is read.

    Raises UserError if clips that are too long are to be refused.
    """
    kept, parts, left_out = array("i"), dict[int, Segment](), list[str]()
    for place, clip in enumerate(clips):
        length = length_s(clip.path, clip.segment) if isinstance(clip, Clip) and data.window_s is None else None
        if length is None or not isinstance(clip, Clip) or length <= data.max_duration_s + SPARE_S:
            kept.append(place)
        elif data.too_long == "cut":
            kept.append(place)
            parts[place] = replace(clip.segment or Segment(), duration_s=data.max_duration_s + SPARE_S)
        else:
            left_out.append(f"{clip.place}: {length:.1f} s, longer than {data.max_duration_s:g} s")
    if left_out and data.too_long == "refuse":
        more = f"; and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
        raise UserError(
            "; ".join(left_out[:NAMED]) + more,
            "clips that can be taken whole",
            "shorten them, raise data.max_duration_s, or set data.too_long to cut or leave_out",
        )
    if parts:
        clips = Clips.of(cast(Sequence[Clip], clips)).with_segments(parts)
    return taken(clips, kept), left_out


def encoded(
    sides: Sequence[Side], codec: Codec, on_progress: OnProgress = silent
) -> tuple[list[Sequence[Row]], list[str]]:
    """The rows of each side with the codes of their audio, and a line for each clip that was skipped; a conversation
    that lacks one is left out. Broken clips are counted over all sides."""
    store = cache_dir() / "codes"

    def progress(done: int, total: int) -> None:
        on_progress("encode", done, total, "clips")

    talks = [[clip for clip in side if isinstance(clip, Conversation)] for side in sides]
    if not any(talks):
        tables, skipped = encode_sides([cast(Sequence[Clip], side) for side in sides], codec, store, progress)
        return [*tables], skipped
    audio = dict.fromkeys(clip for side in talks for talk in side for clip in talk.clips)
    table, skipped = encode_clips(list(audio), codec, store, progress)
    codes = {clip.path: row.codes_CT for clip, row in zip(table.clips, table, strict=True)}
    whole = [[talk for talk in side if all(clip.path in codes for clip in talk.clips)] for side in talks]
    return [[talk.row(codes) for talk in side] for side in whole], skipped


def limited(of_row: Callable[[Row], Result], data: Data, frame_rate_hz: float) -> Callable[[Row], Result]:
    """A layout, or the length of one, that takes clips within `data.max_duration_s` only, unless windows are cut from
    them."""
    if data.window_s is not None:
        return of_row

    def of_short_row(row: Row) -> Result:
        if row.frames > data.max_duration_s * frame_rate_hz:
            raise TooLongError(
                f"{row.frames / frame_rate_hz:.1f} s, longer than {data.max_duration_s:g} s",
                f"at most {data.max_duration_s:g} s",
                "raise data.max_duration_s, or set data.too_long",
            )
        return of_row(row)

    return of_short_row


def _check_kind(clips: Sequence[Clip | Conversation], model: System, data: Data) -> None:
    if isinstance(clips[0], Conversation) and not model.reads_conversations:
        raise UserError(
            f"conversations in {data.path} for a {model.name} model", "a folder of clips", "take a higgs recipe"
        )


def _check_demos(demos: Demos, clips: Sequence[Clip | Conversation]) -> None:
    if demos.every_steps and not all(text.strip() for text in demos.texts):
        raise UserError(
            "an empty text among --demos.texts", "words to say", "write them between quotes, or --demos.every-steps 0"
        )
    speakers = sorted({clip.speaker for clip in clips})
    if demos.speaker and demos.speaker not in speakers:
        more = ", ..." if len(speakers) > NAMED else ""
        raise UserError(
            f"--demos.speaker {demos.speaker}",
            f"one of {', '.join(speakers[:NAMED])}{more}" if any(speakers) else "none: the data names no speakers",
            "leave it out for the first speaker",
        )


def _check_sides(train: Corpus, held_out: Corpus, left_out: Sequence[str]) -> None:
    if not (len(train) and len(held_out)):
        raise UserError(
            f"no clip left to {'evaluate' if len(train) else 'train'} on: {'; '.join(left_out[:3])}",
            "at least one that fits, on either side",
            "shorten the clips, raise data.max_duration_s or the model's context, or set data.too_long to cut",
        )
    clips = len(train) + len(held_out)
    if len(held_out) < max(ENOUGH_HELD_OUT, ENOUGH_HELD_OUT_FRAC * clips):
        log.warning(
            "%d of %d clips are held out; with fewer than %d, or than %.0f %%, the held-out cross-entropy is rough, "
            "and its interval says how rough. Add clips to validation/, or raise data.held_out_frac",
            *(len(held_out), clips, ENOUGH_HELD_OUT, 100 * ENOUGH_HELD_OUT_FRAC),
        )


def _tell_left_out(left_out: Sequence[str], kept: int, cut: int, cut_texts: int) -> None:
    """Print, before anything is trained, what part of the data is not used."""
    if left_out:
        shown = "; ".join(left_out[:3]) + ("; ..." if len(left_out) > 3 else "")
        log.warning("%d of %d clips are left out: %s", len(left_out), kept + len(left_out), shown)
    if cut:
        log.warning("%d clips are cut: only their first part is used, and their end is not trained", cut)
    if cut_texts:
        log.warning("%d texts are longer than the model's window: only their beginning is used", cut_texts)


def _check_windows(window_frames: int | None, train: Corpus) -> None:
    longest = max((row.frames for row in train.rows), default=0) if window_frames else 0
    if window_frames and longest and window_frames > longest:
        raise UserError(
            f"windows of {window_frames} frames, and no clip longer than {longest}",
            "windows shorter than the longest clip: every epoch would show the same frames",
            "lower data.window_s, or leave it out to train on whole clips",
        )
