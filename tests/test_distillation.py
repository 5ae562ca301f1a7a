"""Distillation: where its gradient goes, what its baselines are; the balancer; the weights of the cheat sheet."""

from dataclasses import replace

import pytest
import torch

from earnest.codecs.rvq import ResidualVQ
from earnest.losses.balancer import Balancer
from earnest.losses.distillation import Distillation, distance, statistics
from earnest.recipes.amy import amy, weights_at
from earnest.training.codec.gan_steps import latent_gradients, weighted_sum


def quantiser(groups=(2, 3)) -> ResidualVQ:
    torch.manual_seed(0)
    made = ResidualVQ(groups, 16, 8, latent_dim=8 if len(groups) > 1 else None, init_frames=128, dropout_frac=0.0)
    made(torch.randn(1, 8, 128))
    return made


def test_the_cheat_sheets_example_adds_up_with_the_default_weights():
    """S2: 1 * adv_g + 4 * feat + 15 * msspec + 1 * wavlm + 1 * llm = 2.2556, the loss_g that Amy-LM logged."""
    example = {"adv_g": 0.32181718945503235, "feat": 0.016863815486431122, "llm": 0.07964769005775452}
    example |= {"msspec": 0.07455965131521225, "wavlm": 0.6682911515235901}
    weights = weights_at(replace(amy(), llm="a", wavlm="b"), 1)
    assert weighted_sum(
        {name: torch.tensor(value) for name, value in example.items()}, weights
    ).item() == pytest.approx(2.2556, abs=1e-4)


@pytest.mark.parametrize("groups", [(2, 3), (5,)])
def test_the_llm_loss_reaches_codebook_0s_encoder_path_and_did_not_in_the_original_wiring(groups):
    """Amy-LM 7f31ef6 looked codebook 0 up from a buffer: the loss moved the head and the projection after it, nothing
    before."""
    codebooks = quantiser(groups).eval()
    head = Distillation("llm", 0, 8, statistics(torch.randn(100, 6)))
    features_BTF, exists_BT = torch.randn(2, 9, 6), torch.ones(2, 9, dtype=torch.bool)
    latent_BDT = torch.randn(2, 8, 9, requires_grad=True)
    result = codebooks(latent_BDT)
    loss, _ = head(result.prefixes_CBDT[0], features_BTF, exists_BT)
    original = torch.stack([codebooks.codebook_CVD[0][result.codes_BCT[:, 0]]]).sum(0).transpose(1, 2)
    looked_up, _ = head(codebooks.outwards[0](original), features_BTF, exists_BT)
    assert looked_up.item() == pytest.approx(loss.item(), abs=1e-5)  # the same number, so no curve tells them apart
    weights = {"llm": 1.0, "original": 1.0}
    norms = latent_gradients({"llm": loss, "original": looked_up}, weights, latent_BDT)
    assert norms["train/grad_norm/latent_llm"] > 1e-3 and norms["train/grad_norm/latent_original"] == 0.0
    before = list(codebooks.inwards.parameters())
    if before:
        loss.backward()
        assert before[0].grad.any() and not before[1].grad.any()  # the projection of its own group, and no other


def test_the_llm_loss_changes_what_codebook_0_chooses():
    """Two words at random places, which the latent knows only in a direction too quiet for codebook 0: taught, it tells
    them apart."""
    torch.manual_seed(0)
    codebooks, encoder = quantiser(), torch.nn.Conv1d(4, 8, 1)
    word_T = torch.randint(0, 2, (1, 400))
    wave = torch.randn(1, 4, 400)
    wave[:, 3] = 0.1 * (2.0 * word_T - 1)
    features_BTF = torch.randn(2, 6)[word_T]
    head = Distillation("llm", 0, 8, statistics(features_BTF[0] + 0.1 * torch.randn(400, 6)))
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters(), *codebooks.inwards.parameters()], 1e-2)

    def purity():
        with torch.no_grad():
            code_T = codebooks.eval()(encoder(wave)).codes_BCT[0, 0]
        codebooks.train()
        counts = torch.zeros(16, 2).index_put_((code_T, word_T[0]), torch.tensor(1.0), accumulate=True)
        return (counts.amax(1).sum() / 400).item()

    codebooks.ready.fill_(False)
    codebooks.count_CV.zero_()
    for _ in range(2):
        codebooks(encoder(wave))  # k-means on this encoder
    before = purity()
    for _ in range(150):
        result = codebooks(encoder(wave))
        loss, _ = head(result.prefixes_CBDT[0], features_BTF, torch.ones(1, 400, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < 0.75 and purity() > 0.95


def test_the_constants_score_is_1_minus_the_root_of_the_means_energy_share():
    torch.manual_seed(0)
    direction_F = torch.nn.functional.normalize(torch.randn(512), dim=0)
    for share in (0.10, 0.85):
        noise_NF = torch.nn.functional.normalize(torch.randn(4000, 512), dim=1)
        features_NF = share**0.5 * direction_F + (1 - share) ** 0.5 * noise_NF
        found = statistics(features_NF)
        assert found.constant_raw == pytest.approx(1 - share**0.5, abs=0.01)
        assert found.constant > 0.95  # centred, there is no constant to predict
        assert distance(features_NF.mean(0).expand(4000, -1), features_NF).item() == pytest.approx(
            found.constant_raw, abs=1e-3
        )


def test_evaluation_scores_raw_centred_and_permuted_too():
    torch.manual_seed(0)
    features_BTF = 5 + torch.randn(1, 200, 6) * torch.tensor([1.0, 2, 3, 4, 5, 6])
    head = Distillation("wavlm", 1, 6, statistics(features_BTF[0]))
    head.head.weight.data, head.head.bias.data = torch.eye(6), torch.zeros(6)
    perfect_BDT = ((features_BTF - head.mean_F) / head.std_F).transpose(1, 2)
    loss, signals = head(perfect_BDT, features_BTF, torch.ones(1, 200, dtype=torch.bool), split="eval")
    assert set(signals) == {f"eval/loss/wavlm{kind}" for kind in ("", "_raw", "_centred", "_permuted")}
    assert loss.item() == pytest.approx(0, abs=1e-5) and signals["eval/loss/wavlm_raw"] == pytest.approx(0, abs=1e-5)
    assert (
        signals["eval/loss/wavlm_centred"] == pytest.approx(0, abs=1e-5) and signals["eval/loss/wavlm_permuted"] > 0.8
    )


def test_frames_that_do_not_exist_do_not_count():
    torch.manual_seed(0)
    head = Distillation("llm", 0, 4, statistics(torch.randn(50, 6)))
    latent_BDT, features_BTF = torch.randn(2, 4, 5), torch.randn(2, 5, 6)
    exists_BT = torch.tensor([[True, True, False, False, False], [True, False, False, True, True]])
    loss, _ = head(latent_BDT, features_BTF, exists_BT)
    features_BTF[~exists_BT] = float("nan")
    assert head(latent_BDT, features_BTF, exists_BT)[0].item() == loss.item()
    nothing, signals = head(latent_BDT, features_BTF, torch.zeros_like(exists_BT))
    assert nothing.item() == 0 and signals == {}


def test_the_balancer_makes_weights_shares_of_the_gradient():
    wave_BN = torch.randn(4, 100, requires_grad=True)
    losses = {"loud": (1000 * wave_BN).square().mean(), "soft": wave_BN.abs().mean(), "off": wave_BN.sum()}
    balanced, shares = Balancer(["loud", "soft", "off"])(losses, {"loud": 1.0, "soft": 3.0, "off": 0.0}, wave_BN)
    assert shares == {"loud": pytest.approx(0.25), "soft": pytest.approx(0.75)}
    balanced.backward()

    def unit(gradient_BN):
        return gradient_BN / gradient_BN.norm(dim=1).mean()

    torch.testing.assert_close(wave_BN.grad, 0.25 * unit(wave_BN.detach()) + 0.75 * unit(wave_BN.detach().sign()))


def test_the_balancer_goes_by_the_mean_norm_so_far():
    balancer, again = Balancer(["one"], decay=0.5), Balancer(["one"], decay=0.5)
    wave_BN = torch.ones(1, 1, requires_grad=True)
    for factor in (1.0, 3.0):
        balanced, _ = balancer({"one": factor * wave_BN.sum()}, {"one": 2.0}, wave_BN)
    [gradient] = torch.autograd.grad(balanced, wave_BN)
    assert gradient.item() == pytest.approx(3 / ((0.25 * 1 + 0.5 * 3) / 0.75))
    again.load_state_dict(balancer.state_dict())
    assert again.norms == balancer.norms and again.mass == balancer.mass
