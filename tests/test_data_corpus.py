"""Which version of which clips a step sees: repeatable, different by epoch, shared out over ranks."""

import threading
import time
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from earnest.data.ahead import ahead
from earnest.data.batch import Example
from earnest.data.corpus import Corpus, layout_of
from earnest.data.layouts.chatml import Cloning
from earnest.data.masks import IGNORE
from earnest.data.row import Row
from earnest.data.vary import Variation
from earnest.errors import TooLongError, UserError
from earnest.models.dia import DiaShape
from earnest.models.mot import MoT, MoTDesign, MoTShape
from earnest.monitors.draws import Draws
from earnest.rules import diagnose
from earnest.run import Run
from earnest.training.tokens.config import Data
from earnest.training.tokens.preparation import limited
from tests.equipment.tiny import tiny_higgs


def lay_out(row: Row) -> Example:
    """One position a frame, all codes count; the text ids are the text's length, -1 for the null input."""
    codes_TC = torch.from_numpy(row.codes_CT).T
    text_S = torch.full((row.frames,), -1 if row.text is None else len(row.text))
    is_audio_S, ignored_S = torch.ones(row.frames, dtype=torch.bool), torch.full((row.frames,), IGNORE)
    return Example(text_S, codes_TC, is_audio_S, ignored_S, codes_TC.clone())


def corpus(clips=23, positions=60, **variation):
    rows = [
        Row(np.arange(n * 2).reshape(2, n) + 1000 * i, "x", tags="slow, piano, sad", source=str(i))
        for i, n in enumerate(np.random.default_rng(0).integers(15, 40, clips))
    ]
    return Corpus(rows, lay_out, pad_id=0, positions_per_batch=positions, vary=Variation(**variation))


def clips_of(groups):
    return sorted(
        clip
        for group in groups
        for batch in group
        if (batch.audio_targets_BSC != IGNORE).any()
        for clip in batch.clip_B.tolist()
    )


def first(groups, n):
    return [group for group, _ in zip(groups, range(n), strict=False)]


def test_ranks_share_an_epoch_and_do_equally_many_micro_batches():
    data = corpus()
    alone = first(data.groups(6, seed=1), -(-len(data.plan()) // 6))
    ranks = [first(data.groups(2, seed=1, rank=rank, ranks=3), len(alone)) for rank in range(3)]
    for step, group in enumerate(alone):
        assert clips_of([group]) == sorted(clip for rank in ranks for clip in clips_of([rank[step]]))
        assert len({len(rank[step]) for rank in ranks}) == 1
    assert clips_of(alone) == list(range(23))


def test_windows_move_from_epoch_to_epoch_and_resume_where_they_were():
    data = corpus(window_frames=10)
    per_epoch = len(data.plan(0))
    starts = [
        {
            clip: row[0, 0].item()
            for group in epoch
            for batch in group
            for clip, row in zip(batch.clip_B.tolist(), batch.tokens_BSC, strict=True)
        }
        for epoch in (first(data.groups(1, 0), per_epoch), first(data.groups(1, 0, skip=per_epoch), per_epoch))
    ]
    moved = [starts[0][clip] != starts[1][clip] for clip in range(23)]
    assert sum(moved) > 15
    [resumed] = first(data.groups(1, 0, skip=per_epoch), 1)
    [_, *_, continued] = first(data.groups(1, 0), per_epoch + 1)
    assert torch.equal(resumed[0].tokens_BSC, continued[0].tokens_BSC)
    # without a seed: from the start
    assert torch.equal(data.batch(range(23)).tokens_BSC[:, 0, 0], 1000 * torch.arange(23))


@pytest.mark.parametrize("window_frames", [None, 10, 100])
def test_batches_show_every_frame_of_every_clip_once(window_frames):
    """And no more of a clip at a time than evaluation sees, so that what is scored has the context that was trained."""
    data = corpus(window_frames=window_frames)
    batches = list(data.batches())
    shown = torch.cat([batch.audio_targets_BSC[batch.audio_targets_BSC[..., 0] != IGNORE] for batch in batches])
    codes = torch.cat([torch.from_numpy(row.codes_CT.T) for row in data.rows])
    assert torch.equal(shown[shown[:, 0].argsort()], codes)
    for batch in batches:
        assert torch.equal(batch.tokens_BSC[:, 0, 0] // 1000, batch.clip_B)
        assert window_frames is None or (batch.audio_targets_BSC[..., 0] != IGNORE).sum(1).max() <= window_frames
        assert batch.exists_BS.numel() <= data.positions_per_batch or len(batch.clip_B) == 1


def test_windows_are_uniform_and_whole():
    vary, random = Variation(window_frames=100), np.random.default_rng(0)
    row = Row(np.arange(109)[None], "")
    counted = np.bincount([vary(row, random).start_frame for _ in range(10_000)], minlength=10)
    assert len(counted) == 10 and abs(counted - 1000).max() < 150  # 5 standard deviations
    assert vary(row, random).codes_CT.shape == (1, 100)
    assert Variation(window_frames=200)(row, random).codes_CT.shape == (1, 109)


def test_tags_and_the_null_input_are_drawn_clip_by_clip_and_never_in_evaluation():
    data = corpus(
        clips=200, positions=4000, words="both", unconditional_frac=0.25, shuffle_tags=True, drop_tags_frac=0.5
    )
    drawn = torch.cat([batch.text_BS[:, 0] for [batch] in first(data.groups(1, 0), len(data.plan(0)))])
    assert 0.15 < (drawn == -1).float().mean() < 0.35
    assert {len(batch.text_BS[:, 0].unique()) > 1 for [batch] in first(data.groups(1, 0), len(data.plan(0)))} == {True}
    for batch in data.batches():
        assert (batch.text_BS[:, 0] == len("x, slow, piano, sad")).all()
    vary = Variation(words="both", shuffle_tags=True)
    row = Row(np.zeros((1, 1), int), "", tags="slow, piano, sad")
    texts = {vary(row, np.random.default_rng(seed)).text for seed in range(100)}
    assert len(texts) == 6 and all(sorted(text.split(", ")) == ["piano", "sad", "slow"] for text in texts)
    assert Variation()(row, np.random.default_rng(0)).text == ""


def tiny_dia():
    widths = {
        "width": 16,
        "layers": 1,
        "heads": 2,
        "ffn": 16,
        "encoder_width": 16,
        "encoder_layers": 1,
        "encoder_ffn": 16,
    }
    return DiaShape(**widths, max_bytes=64, max_audio_positions=100).build(4, 32)


def tiny_mot():
    design = MoTDesign(output="audio", rows_per_codebook=True, ends=True, text_window=64, max_positions=300)
    return MoT.assemble(
        4, 32, design, MoTShape(width=16, layers=1, heads=2, kv_heads=1, ffn=16, expert_width=8, expert_ffn=16)
    )


def speech(frames, text="seven") -> Row:
    codes_CT = torch.randint(0, 32, (4, frames), generator=torch.Generator().manual_seed(frames)).numpy()
    return Row(codes_CT, text, "a", source=f"{frames}.wav")


@pytest.mark.parametrize("make", [tiny_higgs, tiny_dia, tiny_mot])
@pytest.mark.parametrize("max_duration_s", [0.6, 100.0])  # the second one is longer than the models' contexts
def test_a_clip_that_is_too_long_is_cut_to_a_beginning_that_does_not_end(make, max_duration_s):
    model, roomy = make(), make()
    roomy.max_positions = roomy.max_audio_positions = 100_000
    rows = [speech(20), speech(1000), speech(500), speech(9, text="seven " * 1000)]
    data = Data(max_duration_s=max_duration_s, too_long="cut")
    corpus = Corpus(rows, limited(layout_of(model), data, 50), model.pad_id, 2048, too_long=data.too_long)
    if isinstance(model, MoT):  # cuts a text to its window
        assert not corpus.left_out and model.cut_texts == {rows[3].text}
    else:
        assert len(corpus.left_out) == 1 and corpus.left_out[0].startswith("9.wav: ")  # no shorter audio helps a text
    assert corpus.cut == 2 and len(corpus) == 4 - len(corpus.left_out)
    whole, *cut = list(corpus.rows)[:3]
    assert whole is rows[0] and (corpus.example(whole).audio_targets_SC == model.eos_id).any()
    for row, before in zip(cut, rows[1:3], strict=True):
        frames, example = row.frames, corpus.example(row)
        assert np.array_equal(row.codes_CT, before.codes_CT[:, :frames])
        assert frames == 30 or max_duration_s == 100
        with pytest.raises(TooLongError):
            corpus.example(replace(before, codes_CT=before.codes_CT[:, : frames + 1]))
        assert not (example.audio_targets_SC == model.eos_id).any()
        assert int((example.audio_targets_SC != IGNORE)[:, 0].sum()) >= frames - 1
        laid = layout_of(roomy)(before)
        for name, column in vars(example).items():
            assert torch.equal(column, getattr(laid, name)[: len(example)]), name


def test_clips_that_are_too_long_are_refused_by_name():
    model, rows = tiny_dia(), [speech(20), *(speech(frames) for frames in range(200, 205))]
    with pytest.raises(UserError) as refusal:
        Corpus(rows, limited(layout_of(model), Data(max_duration_s=2.0), 50), model.pad_id, 2048, too_long="refuse")
    assert "200.wav: 4.0 s, longer than 2 s; " in refusal.value.seen and refusal.value.seen.endswith("; and 2 more")
    assert "data.too_long" in refusal.value.fix
    assert len(Corpus(rows, limited(layout_of(model), Data(max_duration_s=2.0), 50), model.pad_id, 2048).left_out) == 5


def test_a_cut_clip_stays_cut_with_a_reference_before_it():
    """Zero-shot cloning: the end of the reference is no target, and the clip's own end is not there."""
    model, rows = tiny_higgs(), [speech(20), speech(900)]
    corpus = Corpus(
        rows, limited(layout_of(model), Data(), 50), model.pad_id, 2048, Cloning(rows, Variation(), 1.0, 50), "cut"
    )
    assert corpus.cut == 1 and len(corpus) == 2
    counts = [
        int((corpus.example(row, np.random.default_rng(0)).audio_targets_SC == model.eos_id).sum())
        for row in corpus.rows
    ]
    assert counts == [4, 0]


@pytest.mark.parametrize("too_long", ["leave_out", "cut", "refuse"])
def test_an_error_of_the_layout_that_is_not_about_length_passes_through(too_long):
    """Codes of another codec had been left out clip by clip, or cut down to nothing, as if they were too long."""
    other_codec = Row(np.full((4, 9), 500), "seven", source="a.wav")
    for model in (tiny_higgs(), tiny_dia(), tiny_mot()):
        with pytest.raises(UserError, match="ids up to 500"):
            Corpus([speech(20), other_codec], layout_of(model), model.pad_id, 2048, too_long=too_long)


@pytest.mark.parametrize("window_frames", [None, 10])
def test_an_evaluation_lays_out_every_window_once(window_frames):
    laid = []
    data = corpus(window_frames=window_frames)
    data.lay_out = lambda row: laid.append(row.frames) or lay_out(row)
    batches = list(data.batches())
    assert len(laid) == sum(len(batch.clip_B) for batch in batches)
    assert sum(laid) == sum(row.frames for row in data.rows)


def test_draws_know_the_window_whatever_else_changes_a_clip():
    """E104: with cloning around the windows, the number of possible places had been taken for 1."""
    rows = [speech(30), speech(25)]
    draws = Draws(Cloning(rows, Variation(window_frames=10), 0.5, 100))
    for epoch in range(5):
        draws(rows[0], np.random.default_rng(epoch))
    crops = draws.probes().crops
    assert crops is not None and crops.possible == 21


@pytest.mark.parametrize(("clips", "named"), [(2, True), (8, False)])
def test_training_that_sees_the_same_batch_again_and_again_is_named(clips, named):
    """An iterator that is made anew at every step gives the beginning of the data each time."""
    rows = [replace(speech(30), source=f"clip {index}") for index in range(8)]
    draws = Draws(Variation())
    for step in range(20):
        for row in rows[:clips]:
            draws(row, np.random.default_rng(step))
    facts = {"left_out_clips": (), "train_clips": 8, "held_out_clips": 20}
    found = diagnose(Run.of(facts, probes=draws.probes())).findings
    assert [(one.rule, one.summary) for one in found] == (
        [("E206", "2 of 8 training clips were ever drawn, 20 times each")] if named else []
    )


def test_items_made_ahead_come_in_their_order_and_end_with_their_reader():
    made = []

    def items(count):
        for item in range(count):
            made.append(item)
            yield item
        raise ValueError("no more")

    assert list(islice(ahead(items(5)), 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="no more"):
        list(ahead(items(2)))
    made.clear()
    reader = ahead(items(1000))
    assert next(reader) == 0
    reader.close()
    deadline = time.monotonic() + 30
    while any(thread.name == "earnest-batches" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(made) < 10  # those that wait, and not the whole corpus
    assert not any(thread.name == "earnest-batches" for thread in threading.enumerate())
