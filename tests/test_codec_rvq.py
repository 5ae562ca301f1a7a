"""The residual quantiser: what it returns, where gradients go, how its codebooks move."""

import pytest
import torch

from earnest.codecs.rvq import ResidualVQ, kmeans, nearest


def ready(codebooks=3, size=4, dim=2, frames=64, groups=None, **settings) -> ResidualVQ:
    torch.manual_seed(0)
    quantiser = ResidualVQ(groups or (codebooks,), size, dim, init_frames=frames, **settings)
    quantiser(torch.randn(1, settings.get("latent_dim") or dim, frames))
    assert quantiser.ready
    return quantiser


def test_codes_decode_to_the_latent_that_forward_gives():
    quantiser = ready().eval()
    result = quantiser(torch.randn(2, 2, 7))
    assert result.codes_BCT.shape == (2, 3, 7) and result.codes_BCT.dtype == torch.int64
    torch.testing.assert_close(quantiser.decode(result.codes_BCT), result.latent_BDT)
    for codebooks in (1, 2, 3):
        torch.testing.assert_close(
            quantiser.decode(result.codes_BCT[:, :codebooks]), result.prefixes_CBDT[codebooks - 1]
        )


def test_each_codebook_takes_the_entry_nearest_to_what_is_left():
    quantiser = ready().eval()
    latent_BDT = torch.randn(1, 2, 5)
    result = quantiser(latent_BDT)
    for t in range(5):
        left_D = latent_BDT[0, :, t]
        for k in range(3):
            distances = (quantiser.codebook_CVD[k] - left_D).norm(dim=1)
            assert result.codes_BCT[0, k, t] == distances.argmin()
            left_D = left_D - quantiser.codebook_CVD[k, distances.argmin()]


@pytest.mark.parametrize("level", range(3))
def test_a_loss_on_the_first_codebooks_reaches_the_encoder_once(level):
    quantiser = ready().eval()
    latent_BDT = torch.randn(1, 2, 5, requires_grad=True)
    weight_BDT = torch.randn(1, 2, 5)
    (quantiser(latent_BDT).prefixes_CBDT[level] * weight_BDT).sum().backward()
    torch.testing.assert_close(latent_BDT.grad, weight_BDT)  # straight through, not only "not zero"


def test_a_loss_on_the_sum_reaches_the_encoder_once():
    quantiser = ready().eval()
    latent_BDT = torch.randn(1, 2, 5, requires_grad=True)
    quantiser(latent_BDT).latent_BDT.sum().backward()
    torch.testing.assert_close(latent_BDT.grad, torch.ones(1, 2, 5))


def test_the_commitment_pulls_the_latent_towards_its_entries():
    quantiser = ready(codebooks=1).eval()
    latent_BDT = torch.randn(1, 2, 5, requires_grad=True)
    result = quantiser(latent_BDT)
    result.losses["commitment"].backward()
    gap_BDT = latent_BDT.detach() - result.latent_BDT.detach()
    assert result.losses["commitment"].item() == pytest.approx(gap_BDT.square().mean().item())
    torch.testing.assert_close(latent_BDT.grad, 2 * gap_BDT / gap_BDT.numel())


def test_the_ema_equals_a_computation_by_hand():
    quantiser = ready(codebooks=1, decay=0.9, dropout_frac=0.0)
    quantiser.codebook_CVD[0] = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    quantiser.count_CV[0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    quantiser.total_CVD[0] = quantiser.codebook_CVD[0] * quantiser.count_CV[0, :, None]
    quantiser(torch.tensor([[[1.0, 11.0, 9.0], [1.0, 1.0, 0.0]]]))  # the first to entry 0, the others to entry 1
    assert quantiser.count_CV[0].tolist() == pytest.approx([0.9 + 0.1, 1.8 + 0.2, 2.7, 3.6])
    expected = [[0.1 * 1, 0.1 * 1], [(18 + 0.1 * 20) / 2, (0.1 * 1) / 2], [0, 10], [10, 10]]
    torch.testing.assert_close(quantiser.codebook_CVD[0], torch.tensor(expected))


def test_evaluation_moves_nothing():
    quantiser = ready().eval()
    before = {name: tensor.clone() for name, tensor in quantiser.state_dict().items()}
    quantiser(torch.randn(4, 2, 50))
    for name, tensor in quantiser.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_dead_entries_move_to_vectors_of_the_batch():
    quantiser = ready(codebooks=1, size=8, decay=0.5, dead_hits=40, dropout_frac=0.0)
    quantiser.codebook_CVD[0, 3:] = 1e3  # so far away that nobody chooses them
    quantiser.total_CVD[0] = quantiser.codebook_CVD[0] * quantiser.count_CV[0, :, None]
    for _ in range(12):
        latent_BDT = torch.randn(1, 2, 64)
        result = quantiser(latent_BDT)
    assert quantiser.codebook_CVD.abs().max() < 10
    assert result.signals["train/used_frac/codebook_0"] > 0.9


def test_kmeans_waits_for_enough_vectors():
    quantiser = ResidualVQ((2,), 4, 2, init_frames=100)
    for _ in range(3):
        latent_BDT = torch.randn(1, 2, 30)
        result = quantiser(latent_BDT)
        assert not quantiser.ready and torch.equal(result.latent_BDT, latent_BDT) and not result.codes_BCT.any()
    quantiser(torch.randn(1, 2, 30))
    assert quantiser.ready and len(quantiser.codebook_CVD[0].unique(dim=0)) == 4


def test_a_codec_that_learnt_nothing_refuses_to_encode():
    with pytest.raises(RuntimeError, match="codebooks hold nothing"):
        ResidualVQ((2,), 4, 2).eval()(torch.zeros(1, 2, 3))


def test_kmeans_finds_clusters_and_refuses_too_few_vectors():
    torch.manual_seed(1)
    centres_VD = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    vectors_ND = (centres_VD[:, None] + 0.1 * torch.randn(3, 50, 2)).flatten(0, 1)
    entries_VD = kmeans(vectors_ND, 12)
    assert (vectors_ND - entries_VD[nearest(vectors_ND, entries_VD)]).norm(dim=1).mean() < 0.1
    with pytest.raises(ValueError, match="3 vectors cannot place 4"):
        kmeans(centres_VD, 4)


def test_dropped_codebooks_leave_the_sum_but_not_the_codes():
    quantiser = ready(dropout_frac=1.0)
    torch.manual_seed(0)
    latent_BDT = torch.randn(64, 2, 1)
    entries_CVD = quantiser.codebook_CVD.clone()  # before this call moves them
    result = quantiser(latent_BDT)
    picked_CBD = torch.stack([entries_CVD[k][result.codes_BCT[:, k, 0]] for k in range(3)])
    sums_CBD = picked_CBD.cumsum(0)
    kept = [
        next(n for n in range(3) if torch.allclose(result.latent_BDT[b, :, 0], sums_CBD[n, b], atol=1e-5))
        for b in range(64)
    ]
    assert {kept.count(n) > 10 for n in range(3)} == {True}  # 1, 2 or 3 codebooks, about a third each


def test_signals_name_every_codebook():
    quantiser = ready().eval()
    signals = quantiser(torch.randn(1, 2, 40)).signals
    assert set(signals) == {
        f"eval/{name}/codebook_{k}" for name in ("used_frac", "perplexity", "residual_frac") for k in range(3)
    }
    residuals = [signals[f"eval/residual_frac/codebook_{k}"] for k in range(3)]
    assert residuals == sorted(residuals, reverse=True) and residuals[0] < 1
    assert 1 <= signals["eval/perplexity/codebook_0"] <= 4


def test_groups_side_by_side_are_chains_of_their_own():
    """Codebooks 0 and 1 never see what the acoustic ones do, and the decoder hears the sum of both, each through its
    projection."""
    quantiser = ready(groups=(2, 3), dim=2, latent_dim=3).eval()
    latent_BDT = torch.randn(2, 3, 9)
    result = quantiser(latent_BDT)
    assert result.codes_BCT.shape == (2, 5, 9)
    torch.testing.assert_close(quantiser.decode(result.codes_BCT), result.latent_BDT)
    for group, members in enumerate(quantiser.ranges):
        chain = ResidualVQ((len(members),), 4, 2).eval()
        chain.codebook_CVD.copy_(quantiser.codebook_CVD[members.start : members.stop])
        chain.ready.fill_(True)
        alone = chain(quantiser.inwards[group](latent_BDT))
        assert torch.equal(alone.codes_BCT, result.codes_BCT[:, members.start : members.stop])
        torch.testing.assert_close(quantiser.outwards[group](alone.latent_BDT), result.prefixes_CBDT[members.stop - 1])


def test_projections_start_as_there_and_back():
    quantiser = ResidualVQ((2, 3), 4, 5, latent_dim=5)
    latent_BDT = torch.randn(1, 5, 7)
    torch.testing.assert_close(quantiser.unquantised(latent_BDT), latent_BDT)
    torch.testing.assert_close(quantiser(latent_BDT).latent_BDT, latent_BDT)  # nothing placed yet


def test_bypassed_clips_are_not_quantised():
    quantiser = ready(groups=(1, 2), latent_dim=2, bypass_frac=0.5, dropout_frac=0.0)
    latent_BDT = torch.randn(64, 2, 3)
    result = quantiser(latent_BDT)
    whole_B = (result.latent_BDT - quantiser.unquantised(latent_BDT)).abs().amax((1, 2)) < 1e-5
    assert 16 < whole_B.sum() < 48
    torch.testing.assert_close(
        quantiser.eval().decode(quantiser(latent_BDT).codes_BCT), quantiser(latent_BDT).latent_BDT
    )


def test_a_codebook_that_holds_nothing_passes_on_what_it_is_given():
    quantiser = ResidualVQ((2,), 4, 2, init_frames=50)
    quantiser.place(0, torch.randn(4, 2), even_share=1.0)
    latent_BDT = torch.randn(1, 2, 30)
    result = quantiser(latent_BDT)
    assert not quantiser.ready and quantiser.placed == [True, False]
    torch.testing.assert_close(result.latent_BDT, latent_BDT)  # codebook 1 hands on the whole residual
    assert not torch.allclose(result.prefixes_CBDT[0], latent_BDT) and set(result.signals) == {
        f"train/{name}/codebook_0" for name in ("used_frac", "perplexity", "residual_frac")
    }
    first = quantiser.codebook_CVD[0].clone()
    quantiser(torch.randn(1, 2, 30))
    assert quantiser.ready and not torch.equal(quantiser.codebook_CVD[1], torch.zeros(4, 2))
    assert (quantiser.codebook_CVD[0] - first).abs().max() < 1  # moved by one step of EMA, not placed anew


def test_bf16_autocast_does_not_reach_the_codes():
    quantiser = ready(codebooks=2, size=32, dim=8).eval()
    latent_BDT = torch.randn(1, 8, 200)
    with torch.autocast("cpu", torch.bfloat16):
        inside = quantiser(latent_BDT)
    assert torch.equal(inside.codes_BCT, quantiser(latent_BDT).codes_BCT)


def keyed(**settings) -> ResidualVQ:
    """Codebook 0 is chosen by the first two of the latent's three dimensions; the third, much louder, is nothing to
    it."""
    torch.manual_seed(0)
    quantiser = ResidualVQ((2,), 16, 3, init_frames=4000, key_dim=2, dropout_frac=0.0, **settings)
    quantiser.into_keys.weight.data = torch.eye(2, 3)[..., None]
    quantiser(loud_third(4000))
    assert quantiser.ready
    return quantiser


def loud_third(frames: int) -> torch.Tensor:
    return torch.randn(1, 3, frames) * torch.tensor([1.0, 1.0, 5.0])[:, None]


def explained_frac(codes_T: torch.Tensor, values_T: torch.Tensor) -> float:
    means_V = torch.zeros(16).index_add_(0, codes_T, values_T) / torch.bincount(codes_T, minlength=16).clamp_min(1)
    return 1 - ((values_T - means_V[codes_T]).square().mean() / values_T.var()).item()


@pytest.mark.parametrize("steps", [0, 30])
def test_with_keys_codebook_0_says_what_they_ask_for_and_codebook_1_begins_with_the_rest(steps):
    quantiser = keyed(decay=0.9)
    for _ in range(steps):
        quantiser(loud_third(400))
    latent_BDT = loud_third(2000)
    result = quantiser.eval()(latent_BDT)
    said = [[explained_frac(result.codes_BCT[0, k], latent_BDT[0, d]) for d in range(3)] for k in range(2)]
    assert min(said[0][:2]) > 0.7 and said[0][2] < 0.1
    assert said[1][2] > 0.8 and max(said[1][:2]) < 0.1
    torch.testing.assert_close(quantiser.decode(result.codes_BCT), result.latent_BDT)
    asked_NK = quantiser.into_keys(latent_BDT)[0].T
    assert torch.equal(result.codes_BCT[0, 0], torch.cdist(asked_NK, quantiser.keys_VK).argmin(1))


def test_what_is_erased_is_no_part_of_a_key():
    """The keys' projection lets everything through; the loud third dimension is what the erasure was shown."""
    quantiser = ResidualVQ((2,), 16, 3, init_frames=4000, key_dim=3, dropout_frac=0.0)
    quantiser.into_keys.weight.data = torch.eye(3)[..., None]
    shown_BDT = loud_third(4000)
    quantiser.erasure.learn(shown_BDT, shown_BDT[:, 2, :, None].expand(-1, -1, 2))
    quantiser(loud_third(4000))
    latent_BDT = loud_third(2000)
    codes_BCT = quantiser.eval()(latent_BDT).codes_BCT
    said = [[explained_frac(codes_BCT[0, k], latent_BDT[0, d]) for d in range(3)] for k in range(2)]
    assert min(said[0][:2]) > 0.7 and said[0][2] < 0.1 and said[1][2] > 0.8


def test_only_a_teacher_of_codebook_0_moves_its_keys():
    quantiser = keyed().eval()
    latent_BDT = loud_third(50).requires_grad_()
    result = quantiser(latent_BDT)
    assert result.teacher_view(0).shape == (1, quantiser.teacher_view_dim(0), 50) == (1, 2, 50) and result.teacher_view(
        1
    ).shape == (1, 3, 50)
    (result.latent_BDT.sum() + result.teacher_view(1).sum() + result.losses["commitment"]).backward(retain_graph=True)
    assert quantiser.into_keys.weight.grad is None and latent_BDT.grad.any()
    latent_BDT.grad = None
    result.teacher_view(0).sum().backward()
    torch.testing.assert_close(quantiser.into_keys.weight.grad[:, :, 0], latent_BDT.detach()[0].sum(1).expand(2, 3))
    # straight through
    torch.testing.assert_close(latent_BDT.grad, torch.tensor([1.0, 1.0, 0.0])[:, None].expand(1, 3, 50))
