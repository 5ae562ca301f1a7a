"""Erasure: what it takes out, what it leaves, and when."""

import torch

from earnest.codecs.erasure import Erasure


def known(frames: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    """latent_BDT of correlated dimensions, and two values that are linear in it, the second with noise and often
    absent."""
    torch.manual_seed(0)
    latent_BDT = (torch.randn(4, frames // 4, 6) @ torch.randn(6, 6) + 3).transpose(1, 2)
    frames_BTD = latent_BDT.transpose(1, 2)
    values_BT2 = torch.stack(
        [frames_BTD @ torch.randn(6), frames_BTD @ torch.randn(6) + torch.randn(4, frames // 4)], -1
    )
    values_BT2[:, ::3, 1] = torch.nan
    return latent_BDT, values_BT2


def explained_frac(latent_BDT: torch.Tensor, value_BT: torch.Tensor) -> float:
    """R squared of the best linear map, over the frames where there is a value."""
    exists_BT = value_BT.isfinite()
    frames_ND, value_N = latent_BDT.transpose(1, 2)[exists_BT], value_BT[exists_BT]
    frames_ND, value_N = frames_ND - frames_ND.mean(0), value_N - value_N.mean()
    left_N = value_N - frames_ND @ torch.linalg.lstsq(frames_ND, value_N[:, None]).solution[:, 0]
    return 1 - (left_N.square().sum() / value_N.square().sum()).item()


def test_no_linear_map_tells_the_values_afterwards_and_the_rest_stays():
    latent_BDT, values_BT2 = known()
    erasure = Erasure(6, 2)
    assert torch.equal(erasure(latent_BDT), latent_BDT)  # nothing is known yet
    erasure.learn(latent_BDT, values_BT2)
    erased_BDT = erasure(latent_BDT)
    for y, before in ((0, 0.999), (1, 0.5)):
        assert explained_frac(latent_BDT, values_BT2[..., y]) > before
        assert explained_frac(erased_BDT, values_BT2[..., y]) < 0.02
    removed_ND = (latent_BDT - erased_BDT).transpose(1, 2).flatten(0, 1)
    # four of six dimensions are untouched
    assert torch.linalg.matrix_rank(removed_ND - removed_ND.mean(0), rtol=1e-4) == 2
    torch.testing.assert_close(erased_BDT.mean((0, 2)), latent_BDT.mean((0, 2)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(erasure(erased_BDT), erased_BDT, rtol=1e-3, atol=1e-3)  # nothing is left to take


def test_it_follows_a_latent_that_changes():
    latent_BDT, values_BT2 = known()
    erasure = Erasure(6, 2, decay=0.9)
    erasure.learn(latent_BDT, values_BT2)
    turned_BDT = latent_BDT.roll(2, 1)
    assert explained_frac(erasure(turned_BDT), values_BT2[..., 0]) > 0.1
    for _ in range(100):
        erasure.learn(turned_BDT, values_BT2)
    assert explained_frac(erasure(turned_BDT), values_BT2[..., 0]) < 0.02


def test_silence_teaches_nothing_and_breaks_nothing():
    erasure = Erasure(6, 2)
    erasure.learn(torch.zeros(1, 6, 9), torch.full((1, 9, 2), torch.nan))
    latent_BDT, values_BT2 = known()
    assert torch.equal(erasure(latent_BDT), latent_BDT)
    values_BT2[..., 0] = torch.nan  # nobody speaks in a voice
    erasure.learn(latent_BDT, values_BT2)
    assert erasure(latent_BDT).isfinite().all() and explained_frac(erasure(latent_BDT), values_BT2[..., 1]) < 0.02


def test_learning_between_a_step_and_its_gradient_does_not_disturb_it():
    latent_BDT, values_BT2 = known()
    erasure = Erasure(6, 2)
    erasure.learn(latent_BDT, values_BT2)
    latent_BDT.requires_grad_()
    loss = erasure(latent_BDT).sum()
    erasure.learn(latent_BDT, values_BT2 * 2)
    loss.backward()
    assert latent_BDT.grad.isfinite().all() and latent_BDT.grad.any()
