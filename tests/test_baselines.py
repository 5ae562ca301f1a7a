"""The rungs of the chance ladder, against naive counting and against sources whose entropy is known."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from earnest.data import baselines
from earnest.data.baselines import (
    ALPHA,
    Pairs,
    bigram_nats,
    bootstrap_interval,
    collect_pairs,
    label_counts,
    unigram_nats,
)
from earnest.losses.tokens import score
from earnest.streams import Codebook
from earnest.training.tokens.evaluate import Rungs, clip_sums
from tests.equipment.tiny import CODEBOOKS, CODES, random_batch, tiny_higgs


def chain(rng, length, vocabulary, stay):
    """A Markov chain that stays where it is with probability `stay`, and else jumps anywhere."""
    tokens = [0]
    for _ in range(length):
        tokens.append(tokens[-1] if rng.random() < stay else int(rng.integers(vocabulary)))
    tokens = np.array(tokens)
    return Pairs(np.zeros(length, dtype=int), tokens[:-1], tokens[1:])


def test_unigram_is_a_smoothed_count():
    train = Pairs(np.zeros(6, int), np.zeros(6, int), np.array([0, 0, 0, 1, 1, 5]))
    held_out = Pairs(np.zeros(3, int), np.zeros(3, int), np.array([0, 5, 7]))
    count = Counter([0, 0, 0, 1, 1, 5])
    expected = [-math.log((count[token] + ALPHA) / (6 + ALPHA * 10)) for token in (0, 5, 7)]
    assert unigram_nats(train, held_out, vocabulary=10) == pytest.approx(expected)


def test_rungs_are_proper_distributions():
    rng = np.random.default_rng(0)
    train, vocabulary = chain(rng, 500, 8, 0.5), 8
    every = Pairs(np.zeros(vocabulary, int), np.full(vocabulary, 3), np.arange(vocabulary))
    for nats in (unigram_nats(train, every, vocabulary), bigram_nats(train, every, vocabulary)):
        assert np.exp(-nats).sum() == pytest.approx(1)


def test_rungs_find_the_entropies_of_a_markov_chain():
    rng = np.random.default_rng(1)
    vocabulary, stay = 16, 0.7
    train, held_out = chain(rng, 200_000, vocabulary, stay), chain(rng, 50_000, vocabulary, stay)
    same, other = stay + (1 - stay) / vocabulary, (1 - stay) / vocabulary
    conditional = -same * math.log(same) - (vocabulary - 1) * other * math.log(other)
    assert unigram_nats(train, held_out, vocabulary).mean() == pytest.approx(math.log(vocabulary), abs=0.02)
    assert bigram_nats(train, held_out, vocabulary).mean() == pytest.approx(conditional, abs=0.02)


def test_a_bigram_without_structure_falls_back_to_the_unigram():
    rng = np.random.default_rng(2)
    train, held_out = chain(rng, 5000, 200, 0.0), chain(rng, 5000, 200, 0.0)
    assert bigram_nats(train, held_out, 200).mean() == pytest.approx(
        unigram_nats(train, held_out, 200).mean(), abs=0.05
    )


def test_the_interval_covers_the_truth_when_clips_are_correlated_inside():
    """Tokens of a clip share an offset; an interval over tokens would be far too narrow."""
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        offsets = rng.normal(0, 1, 40)
        counts = rng.integers(5, 50, 40)
        sums = np.array(
            [(offset + rng.normal(0, 0.1, count)).sum() for offset, count in zip(offsets, counts, strict=True)]
        )
        low, high = bootstrap_interval(sums, counts, draws=300, seed=trial)
        covered += low <= 0 <= high
    assert covered >= 176  # 95 % asked for; small samples undercover a little


@pytest.mark.parametrize("clips", [3, 50, 51])
def test_the_interval_is_the_same_however_many_draws_are_made_at_once(clips, monkeypatch):
    """All at once, 2000 draws of 100,000 clips would be three arrays of 1.6 GB."""
    rng = np.random.default_rng(4)
    sums, counts = rng.normal(size=clips), rng.integers(1, 9, clips)
    at_once = bootstrap_interval(sums, counts)
    monkeypatch.setattr(baselines, "PICKS_AT_ONCE", 157)
    assert bootstrap_interval(sums, counts) == at_once
    monkeypatch.setattr(baselines, "PICKS_AT_ONCE", 1)
    assert bootstrap_interval(sums, counts) == at_once


def test_pairs_of_a_batch_are_its_counted_targets():
    model = tiny_higgs()
    batch = random_batch(model, frames=(4, 6))
    pairs = collect_pairs([batch, batch])
    for stream, count in batch.counted().items():
        assert len(pairs[stream].target) == 2 * count
    assert sum(label_counts(pairs[Codebook(0)]).values()) == 2 * (4 + 6 + 2)
    first = pairs[Codebook(0)]
    assert (
        first.previous[0] == model.bos_id
        and first.target[0] == batch.tokens_BSC[0, int(batch.is_audio_BS[0].nonzero()[1]), 0]
    )


def test_an_untrained_model_is_placed_near_uniform_and_above_the_rungs():
    model = tiny_higgs()
    batches = [random_batch(model, frames=(20, 30, 25), seed=seed) for seed in range(3)]
    for number, batch in enumerate(batches):
        batch.clip_B.add_(3 * number)
    rungs = Rungs(batches, batches, clips=9, vocabulary=model.vocabulary)
    placed = rungs.place(clip_sums(model, batches, clips=9))
    for codebook in range(CODEBOOKS):
        entry = placed[Codebook(codebook)]
        assert entry.uniform_nats == pytest.approx(math.log(CODES + 2))
        assert entry.interval[0] <= entry.ce_nats <= entry.interval[1]
        assert entry.clips == 9
        assert entry.bigram_gap[1] > 0  # memorised bigrams beat an untrained model, beyond the interval


def test_evaluation_leaves_no_gradient_and_weighs_tokens_equally():
    model = tiny_higgs()
    batch = random_batch(model, frames=(4, 12))
    sums = clip_sums(model, [batch], clips=2)
    assert all(parameter.grad is None for parameter in model.parameters())
    ce, counted = sums[Codebook(1)]
    assert counted.tolist() == [5, 13]
    with torch.no_grad():
        assert ce.sum() == pytest.approx(score(model.outputs(batch), batch, {})[1][Codebook(1)].ce.item(), rel=1e-5)
