"""From the place that a configuration names to the two corpora of a run: clips found, encoded, split and laid out."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from earnest.codecs import Codec
from earnest.data.chatml import Conversation, load_conversations
from earnest.data.corpus import Corpus
from earnest.data.folder import Clip, load_clips, split_clips
from earnest.data.music import music, music_name
from earnest.data.row import Row
from earnest.data.sources import embedded_name, espeak
from earnest.data.store import encode_clips
from earnest.errors import UserError
from earnest.files import cache_dir
from earnest.models.system import System
from earnest.training.config import LMConfig
from earnest.training.session import OnProgress, silent

log = logging.getLogger(__name__)

EMBEDDED = {"espeak": (embedded_name, espeak), "music": (music_name, music)}
ENOUGH_HELD_OUT, ENOUGH_HELD_OUT_FRAC = 20, 0.05  # assumed: below, one odd clip moves the mean


def prepare(
    config: LMConfig, model: System, codec: Codec, on_progress: OnProgress = silent
) -> tuple[Corpus, Corpus, dict[str, Any]]:
    """Read, split and encode the data; returns the training and held-out corpora, and the facts about them."""
    _check_codec(model, codec)
    vary = config.data.variation(codec.frame_rate_hz)
    found = find_clips(config.data.path, vary.described_by)
    if isinstance(found[0], Conversation) and not model.reads_conversations:
        raise UserError(
            f"conversations in {config.data.path} for a {model.name} model",
            "a folder of clips",
            "take a higgs recipe",
        )
    sides = split_clips(
        found, config.data.held_out_frac, config.seed, "speaker" if config.data.held_out == "speakers" else "name"
    )
    corpora, left_out, unreadable = [], [], 0
    lay_out = config.data.limited(model, codec.frame_rate_hz)
    for side in sides:
        rows, skipped = encoded(side, codec, on_progress)
        left_out += skipped
        unreadable += len(skipped)
        varied = config.variation(rows, model, codec.frame_rate_hz)
        corpora.append(
            Corpus(rows, lay_out, model.pad_id, config.data.positions_per_batch, varied, config.data.too_long)
        )
        left_out += corpora[-1].left_out
    train, held_out = corpora
    if not (len(train) and len(held_out)):
        raise UserError(
            f"no clip left to {'evaluate' if len(train) else 'train'} on: {'; '.join(left_out[:3])}",
            "at least one that fits, on either side",
            "shorten the clips, raise data.max_duration_s or the model's context, or set data.too_long to cut",
        )
    _check_windows(vary.window_frames, train)
    clips = len(train) + len(held_out)
    if len(held_out) < max(ENOUGH_HELD_OUT, ENOUGH_HELD_OUT_FRAC * clips):
        log.warning(
            "%d of %d clips are held out; with fewer than %d, or than %.0f %%, the held-out cross-entropy is rough, and its interval says "
            "how rough. Add clips to validation/, or raise data.held_out_frac",
            *(len(held_out), clips, ENOUGH_HELD_OUT, 100 * ENOUGH_HELD_OUT_FRAC),
        )
    return (
        train,
        held_out,
        {
            "train_clips": len(train),
            "held_out_clips": len(held_out),
            "left_out_clips": left_out,
            "cut_clips": sum(corpus.cut for corpus in corpora),
            "skipped_clips": unreadable,
            "speakers": sorted({row.speaker for row in train.rows}),
            "held_out_speakers": sorted({row.speaker for row in held_out.rows}),
        },
    )


def _check_windows(window_frames: int | None, train: Corpus) -> None:
    longest = max((row.frames for row in train.rows), default=0)
    if window_frames and longest and window_frames > longest:
        raise UserError(
            f"windows of {window_frames} frames, and no clip longer than {longest}",
            "windows shorter than the longest clip: every epoch would show the same frames",
            "lower data.window_s, or leave it out to train on whole clips",
        )


def encoded(
    found: Sequence[Clip | Conversation], codec: Codec, on_progress: OnProgress = silent
) -> tuple[Sequence[Row], list[str]]:
    """Rows with the codes of their audio, and a line for each clip that was skipped; a conversation that lacks one is
    left out."""
    clips = list(
        dict.fromkeys(clip for one in found for clip in (one.clips if isinstance(one, Conversation) else [one]))
    )
    table, skipped = encode_clips(
        clips, codec, cache_dir() / "codes", lambda done, total: on_progress("encode", done, total, "clips")
    )
    codes = {Path(row.source): row.codes_CT for row in table}
    talks = [one for one in found if isinstance(one, Conversation)]
    return [
        one.row(codes) for one in talks if all(clip.path in codes for clip in one.clips)
    ] if talks else table, skipped


def find_clips(path: str, needed: Sequence[str] = ("text",)) -> list[Clip] | list[Conversation]:
    """The clips of a folder or Hub dataset, or of a corpus that installs with pip, which is made on first use; or
    conversations."""
    if path.endswith((".json", ".jsonl")):
        return load_conversations(path)
    if path not in EMBEDDED:
        return load_clips(path, needed)
    name, make = EMBEDDED[path]
    folder = cache_dir() / name()
    if not folder.exists():
        make(folder)
    return load_clips(folder, needed)


def _check_codec(model: System, codec: Codec) -> None:
    if (codec.codebooks, codec.codebook_size) != (model.codebooks, model.codes):
        raise UserError(
            f"codec {codec.name} with {codec.codebooks} codebooks of {codec.codebook_size}",
            f"{model.codebooks} codebooks of {model.codes}, as the model has",
            "take the codec that the model was made for",
        )
