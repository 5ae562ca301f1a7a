"""Convolutions that bfloat16 makes wrong are refused before a codec trains in it."""

import pytest
import torch
from torch import nn

from earnest.codecs import rounded
from earnest.codecs.amy import Amy
from earnest.codecs.rounded import refuse_wrong_convolutions
from earnest.errors import UserError

CPU = torch.device("cpu")


class Wrong(nn.Conv1d):
    """A convolution that is another one under autocast, as oneDNN's on a Xeon."""

    def forward(self, input):
        result = super().forward(input)
        return result.flip(1) if torch.is_autocast_enabled("cpu") else result


def test_a_convolution_that_bfloat16_makes_wrong_is_named(monkeypatch):
    monkeypatch.setitem(rounded.CONVOLUTIONS, Wrong, 1)
    model = nn.Sequential(nn.Conv1d(4, 6, 3), Wrong(6, 12, 3))
    state = torch.get_rng_state()
    with pytest.raises(UserError, match=r"Wrong\(6, 12, kernel_size=\(3,\), stride=\(1,\)\) in bfloat16 on cpu"):
        refuse_wrong_convolutions(model, CPU)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_embedded_codecs_convolutions_are_only_rounded():
    """None of them is 8 wide at stride 4."""
    refuse_wrong_convolutions(Amy(), CPU)


def test_a_large_convolution_is_tried_on_little():
    refuse_wrong_convolutions(nn.Conv1d(1024, 1024, 7), CPU)
