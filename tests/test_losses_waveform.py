"""Mel filters and the multi-scale mel loss; hinge and feature-matching values."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earnest.losses.adversarial import auc, feature_matching, hinge_discriminator, hinge_generator
from earnest.losses.waveform import MultiScaleMelLoss, MultiScaleSpectrogramLoss, mel_filters


@given(
    window=st.sampled_from([32, 64, 128, 256, 512, 1024, 2048]),
    mels=st.integers(1, 128),
    rate_hz=st.sampled_from([8000, 16000, 24000, 44100]),
)
def test_no_mel_filter_is_empty(window, mels, rate_hz):
    filters_FM = mel_filters(window, mels, rate_hz)
    assert filters_FM.shape == (window // 2 + 1, mels)
    assert (filters_FM >= 0).all() and (filters_FM.sum(0) > 0).all()
    # all triangles together cover the axis once, but for the halves of the first and the last
    corners = [
        700 * (10 ** (m / (mels + 1) * 2595 * math.log10(1 + rate_hz / 2 / 700) / 2595) - 1) for m in range(mels + 2)
    ]
    area_hz = (corners[-1] + corners[-2] - corners[1] - corners[0]) / 2
    assert filters_FM.sum().item() * rate_hz / window == pytest.approx(area_hz, rel=1e-4)


def test_filters_much_wider_than_a_bin_are_the_usual_triangles():
    """Heights at the bins' centres, as torchaudio and librosa have them."""
    filters_FM = mel_filters(4096, 20, 16000, low_hz=64.0)
    mel = lambda hz: 2595 * math.log10(1 + hz / 700)  # noqa: E731
    corners = [700 * (10 ** ((mel(64) + m * (mel(8000) - mel(64)) / 21) / 2595) - 1) for m in range(22)]
    hz_F = torch.arange(2049) * 16000 / 4096
    for m in (0, 7, 19):
        left, peak, right = corners[m : m + 3]
        triangle_F = torch.minimum((hz_F - left) / (peak - left), (right - hz_F) / (right - peak)).clamp_min(0)
        torch.testing.assert_close(filters_FM[:, m], triangle_F, atol=0.02, rtol=0)


def test_a_filter_peaks_where_the_mel_scale_says():
    filters_FM = mel_filters(2048, 20, 16000)
    top_mel = 2595 * math.log10(1 + 8000 / 700)
    peak_hz = [700 * (10 ** ((m + 1) / 21 * top_mel / 2595) - 1) for m in range(20)]
    torch.testing.assert_close(filters_FM.argmax(0) * 16000 / 2048, torch.tensor(peak_hz), atol=16000 / 2048, rtol=0)


def test_mel_loss_is_the_difference_of_log10_magnitudes():
    wave_BN = torch.randn(2, 8000) * 0.1
    loss, signals = MultiScaleMelLoss(16000)(wave_BN / 10, wave_BN)
    assert loss.item() == pytest.approx(1, abs=0.02)  # a factor of ten everywhere
    assert signals == {"train/loss/mel": loss.item()}


def test_msspec_is_its_two_halves():
    wave_BN = torch.randn(1, 8000) * 0.1
    loss, signals = MultiScaleSpectrogramLoss(16000)(wave_BN / 10, wave_BN)
    spectrogram = MultiScaleSpectrogramLoss(16000)
    magnitude = torch.stack(
        [spectrogram.bands(wave_BN, samples).mean() for samples in (64, 128, 256, 512, 1024)]
    ).mean()
    # a factor of ten everywhere: a log10 error of 1
    assert loss.item() == pytest.approx((0.9 * magnitude.item() + 1) / 2, abs=0.02)
    assert signals == {"train/loss/msspec": loss.item()}


@pytest.mark.parametrize("kind", [MultiScaleMelLoss, MultiScaleSpectrogramLoss])
def test_baselines_are_the_losses_of_silence_and_of_a_mean_frame(kind):
    loud_N, soft_N = torch.randn(8000) * 0.3, torch.randn(8000) * 0.01
    loss = kind(16000)
    baselines = loss.baselines([loud_N, soft_N])
    silence = [loss(torch.zeros(1, 8000), wave_N[None])[0].item() for wave_N in (loud_N, soft_N)]
    assert baselines["silence"] == pytest.approx(sum(silence) / 2, rel=1e-4)
    assert 0 < baselines["mean frame"] < baselines["silence"]


def test_mel_loss_on_silence_is_zero_and_its_gradient_finite():
    silent_BN = torch.zeros(1, 4000, requires_grad=True)
    loss, _ = MultiScaleMelLoss(16000)(silent_BN, torch.zeros(1, 4000))
    loss.backward()
    assert loss == 0 and silent_BN.grad.isfinite().all()


def test_what_is_softer_than_the_floor_does_not_count():
    mel_loss = MultiScaleMelLoss(16000, floor=1e-4)
    wave_BN = torch.randn(1, 4000) * 1e-6
    assert mel_loss(wave_BN, torch.zeros(1, 4000))[0] == 0


def verdicts(*logits):
    return {f"stft_{index}": (torch.tensor(values), [torch.tensor(values)]) for index, values in enumerate(logits)}


@pytest.mark.parametrize(
    "real, fake, expected",
    [
        ([0.0, 0.0], [0.0, 0.0], 2.0),  # sees no difference
        ([0.5, 0.5], [0.5, 0.5], 2.0),  # any constant within [-1, 1] costs 2
        ([1.0, 2.0], [-1.0, -3.0], 0.0),  # right, with margin
        ([-1.0, -1.0], [1.0, 1.0], 4.0),  # wrong
        ([0.25, 0.75], [-0.5, 0.0], 2 - (0.5 + 0.25)),  # inside the margin: 2 minus the gap of the means
    ],
)
def test_hinge_discriminator(real, fake, expected):
    loss, signals = hinge_discriminator(verdicts(real), verdicts(fake))
    assert loss.item() == pytest.approx(expected)
    assert signals["train/d_real/stft_0"] == pytest.approx(sum(real) / 2)
    assert signals["train/d_fake/stft_0"] == pytest.approx(sum(fake) / 2)


def test_auc_is_how_often_real_is_above_fake():
    real, fake = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.0])
    assert auc(real, fake) == pytest.approx((1 + 1.5 + 2) / 6)
    assert auc(real, real) == 0.5 and auc(real + 9, fake) == 1.0


def test_the_active_share_counts_what_is_inside_the_margin():
    _, signals = hinge_discriminator(verdicts([0.5, 2.0, 3.0, 4.0]), verdicts([-2.0, -3.0]))
    assert signals["train/d_active_frac/stft_0"] == pytest.approx((1 / 4 + 0) / 2)


def test_hinge_losses_are_means_over_scales():
    loss, signals = hinge_discriminator(verdicts([0.0], [1.0]), verdicts([0.0], [-1.0]))
    assert loss.item() == signals["train/loss/loss_d"] == 1.0
    assert (signals["train/loss/stft_0"], signals["train/loss/stft_1"]) == (2.0, 0.0)
    assert hinge_generator(verdicts([0.5, 1.5], [-3.0]))[0].item() == 1.0  # -(1 + -3) / 2


def test_feature_matching_is_relative_to_the_real_maps():
    loss, _ = feature_matching(verdicts([2.0, -2.0]), verdicts([3.0, -2.0]))
    assert loss.item() == pytest.approx(0.25)  # |1| over two entries, over a mean magnitude of 2
