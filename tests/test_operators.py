"""Norms and rotary embeddings with gradients of their own: transformers' values bit by bit, autograd's gradients."""

import pytest
import torch
from torch import nn
from transformers.models.dia.modeling_dia import DiaRMSNorm, apply_rotary_pos_emb
from transformers.models.higgs_audio_v2.modeling_higgs_audio_v2 import HiggsAudioV2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from earnest.models.operators import rms_normed, turned


@pytest.mark.parametrize("made", [DiaRMSNorm, HiggsAudioV2RMSNorm, LlamaRMSNorm])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_are_transformers_own(made, dtype):
    torch.manual_seed(0)
    norm = made(24, eps=1e-5)
    nn.init.normal_(norm.weight)
    hidden_PD = (3 * torch.randn(7, 24)).to(dtype).requires_grad_()
    slope_PD = torch.randn(7, 24)
    theirs, ours = norm(hidden_PD), rms_normed(hidden_PD, norm)
    assert ours.dtype == theirs.dtype
    assert torch.equal(ours, theirs) if dtype == torch.float32 else torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2)
    with torch.no_grad():
        without = rms_normed(hidden_PD, norm)
    assert torch.equal(without, ours) if dtype == torch.float32 else torch.allclose(without, ours, rtol=1e-2, atol=1e-2)
    expected = torch.autograd.grad(theirs, (hidden_PD, norm.weight), slope_PD.to(theirs.dtype))
    gradients = torch.autograd.grad(ours, (hidden_PD, norm.weight), slope_PD.to(ours.dtype))
    exact = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(gradients, expected, **exact)


def test_under_autocast_a_norm_gives_the_type_of_the_products_after_it():
    norm, hidden_PD = LlamaRMSNorm(24), torch.randn(7, 24)
    for context in (torch.no_grad(), torch.enable_grad()):
        with context, torch.autocast("cpu", torch.bfloat16):
            ours = rms_normed(hidden_PD, norm)
        assert ours.dtype == torch.bfloat16 and torch.equal(ours, norm(hidden_PD).bfloat16())


def test_rotary_embeddings_are_transformers_own():
    torch.manual_seed(0)
    angle_PX = torch.randn(7, 4)
    cos_PD, sin_PD = (of(angle_PX).repeat(1, 2) for of in (torch.cos, torch.sin))
    heads_PHD, slope_PHD = torch.randn(7, 3, 8, requires_grad=True), torch.randn(7, 3, 8)
    theirs, _ = apply_rotary_pos_emb(heads_PHD, heads_PHD, cos_PD, sin_PD)
    ours = turned(heads_PHD, cos_PD[:, None], sin_PD[:, None])
    assert torch.equal(ours, theirs)
    expected, gradient = (torch.autograd.grad(of, heads_PHD, slope_PHD)[0] for of in (theirs, ours))
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
    assert turned(heads_PHD.bfloat16(), cos_PD[:, None], sin_PD[:, None]).dtype == torch.float32
