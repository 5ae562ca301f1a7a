"""Delay, flatten, shift and label masks against naive loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earnest.data.masks import IGNORE, ends_at_eos, shift
from earnest.data.patterns import delay, flatten, framed, undelay, unflatten
from earnest.errors import UserError

delay_lists = st.lists(st.integers(0, 20), min_size=1, max_size=9)
KNOWN_DELAYS = [
    [0, 1, 2, 3, 4, 5, 6, 7],
    [0, 8, 9, 10, 11, 12, 13, 14, 15],
    list(range(9)) * 2,
    [0, 0, 1, 1, 2, 2, 3, 3],
    [0, 0, 0, 0],
]


def codes_for(delays, frames, seed=0):
    return torch.randint(0, 1024, (len(delays), frames), generator=torch.Generator().manual_seed(seed))


@given(delay_lists, st.integers(0, 30), st.integers(0, 5))
def test_undelay_inverts_delay_and_agrees_with_a_naive_loop(delays, frames, seed):
    codes_CT = codes_for(delays, frames, seed)
    tokens_CS = delay(codes_CT, delays, before=-1, behind=-2)
    assert tokens_CS.shape == (len(delays), frames + max(delays))
    for c, late in enumerate(delays):
        for s in range(tokens_CS.shape[1]):
            expected = -1 if s < late else codes_CT[c, s - late] if s < late + frames else -2
            assert tokens_CS[c, s] == expected
    assert torch.equal(undelay(tokens_CS, delays), codes_CT)


@given(delay_lists, st.integers(0, 9))
def test_a_batch_in_any_memory_order_is_laid_out_clip_by_clip(delays, frames):
    codes_BCT = torch.stack([codes_for(delays, frames, seed) for seed in range(3)])
    tokens_BCS = delay(codes_BCT, delays, -1, -2)
    assert torch.equal(tokens_BCS, torch.stack([delay(codes_CT, delays, -1, -2) for codes_CT in codes_BCT]))
    transposed_BSC = tokens_BCS.transpose(1, 2).contiguous()  # as a model makes them, a position at a time
    assert torch.equal(undelay(transposed_BSC.transpose(1, 2), delays), codes_BCT)


@pytest.mark.parametrize("delays", KNOWN_DELAYS)
def test_no_token_is_lost_at_the_tail(delays):
    codes_CT = codes_for(delays, 7)
    tokens_CS = delay(framed(codes_CT, 1024, 1025), delays, 1024, 1025)
    counted = ends_at_eos(tokens_CS, delays, frames=7)
    for c in range(len(delays)):
        row = counted[c][counted[c] != IGNORE]
        assert row.tolist() == [*codes_CT[c].tolist(), 1025]  # every code once, then one EOS


@given(st.integers(1, 9), st.integers(0, 20))
def test_unflatten_inverts_flatten_and_is_time_major(codebooks, frames):
    codes_CT = codes_for(range(codebooks), frames)
    flat_S = flatten(codes_CT)
    for s, token in enumerate(flat_S):
        assert token == codes_CT[s % codebooks, s // codebooks]
    assert torch.equal(unflatten(flat_S, codebooks), codes_CT)


@given(st.lists(st.integers(0, 99), min_size=1, max_size=20))
def test_the_target_of_a_position_is_the_next_label(labels):
    targets = shift(torch.tensor(labels)).tolist()
    assert targets == [*labels[1:], IGNORE]


def test_shift_runs_over_positions_not_codebooks():
    labels_SC = torch.arange(6).reshape(3, 2)
    assert shift(labels_SC).tolist() == [[2, 3], [4, 5], [IGNORE, IGNORE]]


@pytest.mark.parametrize(("delays", "frames"), [([0, 1], 5), ([0, -1, 2], 5)])
def test_wrong_delays_are_refused(delays, frames):
    with pytest.raises(UserError, match="delays"):
        delay(torch.zeros(3, frames), delays, 0, 0)


def test_a_broken_flat_sequence_is_refused():
    with pytest.raises(UserError, match="multiple of 4"):
        unflatten(torch.zeros(7), 4)
