"""Amy as a codec: shapes, edge cases, files; `load_codec`; transformers' codecs behind the same protocol."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from earnest.codecs import load_codec
from earnest.codecs.amy import Amy, AmyShape
from earnest.codecs.resampling import resample
from earnest.codecs.rounded import computing_in
from earnest.data.layouts.sources import speak
from earnest.errors import UserError
from earnest.generate import decoded
from earnest.losses.waveform import MultiScaleMelLoss
from tests.equipment.codecs import tiny_dac

TINY = AmyShape(
    encoder_dim=16, encoder_hidden=32, decoder_dim=16, decoder_hidden=32, codebooks=3, codebook_size=16, codebook_dim=8
)


def tiny(shape: AmyShape = TINY) -> Amy:
    """A codec with random weights whose codebooks are placed."""
    torch.manual_seed(0)
    codec = Amy(shape, "tiny")
    codec.quantiser.init_frames = 64
    codec(torch.randn(2, 32 * shape.hop_samples) * 0.1)
    return codec.eval()


@pytest.fixture(scope="module")
def codec() -> Amy:
    return tiny()


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 16_001])
def test_any_length_encodes_to_its_frames_and_back(codec, samples):
    codes_BCT = codec.encode(torch.randn(2, samples) * 0.1)
    frames = -(-samples // 320)
    assert codes_BCT.shape == (2, 3, frames) and codes_BCT.dtype == torch.int64
    assert codes_BCT.min() >= 0 and codes_BCT.max() < 16
    wave_BN = codec.decode(codes_BCT)
    assert wave_BN.shape == (2, frames * 320) and wave_BN.isfinite().all()
    assert codec(torch.randn(2, samples)).wave_BN.shape == (2, samples)


def test_silence_is_finite_and_has_finite_gradients():
    codec = tiny().train()
    result = codec(torch.zeros(1, 3200))
    (result.wave_BN.square().mean() + result.quantised.losses["commitment"]).backward()
    assert result.wave_BN.isfinite().all()
    assert all(p.grad.isfinite().all() for p in codec.parameters() if p.grad is not None)


def test_no_samples_is_an_error(codec):
    with pytest.raises(ValueError, match="0 samples"):
        codec.encode(torch.zeros(1, 0))


def test_padding_changes_no_latent(codec):
    """Clips of a padded batch have the latents that they have alone, but for the frames near their end that hear the
    padding."""
    short_N, long_N = torch.randn(9000) * 0.1, torch.randn(16_000) * 0.1
    batch_BN = torch.stack([torch.cat([short_N, torch.zeros(7000)]), long_N])
    latent_BDT = codec.latent(batch_BN)
    torch.testing.assert_close(codec.latent(long_N[None])[0], latent_BDT[1])
    alone_DT = codec.latent(short_N[None])[0]
    # 3 frames at twice the rate for each of 2 blocks, 3 frames at the frame rate for the one after: 6 and the window's
    # overlap
    settled = alone_DT.shape[1] - 7
    torch.testing.assert_close(latent_BDT[0, :, :settled], alone_DT[:, :settled])


def test_synthesis_inverts_analysis(codec):
    """The two fixed transforms are each other's inverse: frames of a wave, added up again, give the wave."""
    wave_BN = torch.randn(1, 3200)
    edge = (640 - 160) // 2
    frames_BTW = torch.nn.functional.pad(wave_BN, (edge, edge)).unfold(1, 640, 160) * codec.window_W * codec.window_W
    torch.testing.assert_close(codec._overlap_add(frames_BTW), wave_BN, atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_weight():
    codec = tiny().train()
    result = codec(torch.randn(2, 3200) * 0.1)
    (result.wave_BN.square().mean() + result.quantised.losses["commitment"]).backward()
    assert [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_save_and_load_give_the_same_codec(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    again = load_codec(str(tmp_path))
    wave_BN = torch.randn(1, 8000) * 0.1
    assert again.name == "tiny" and again.shape == TINY
    assert torch.equal(again.encode(wave_BN), codec.encode(wave_BN))
    assert torch.equal(again.decode(codec.encode(wave_BN)), codec.decode(codec.encode(wave_BN)))


def test_an_export_is_small_and_almost_the_same(codec, tmp_path):
    codec.save_pretrained(tmp_path / "whole")
    codec.export(tmp_path / "small")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("small", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
    codes_BCT = codec.encode(torch.randn(1, 8000) * 0.1)
    torch.testing.assert_close(
        load_codec(str(tmp_path / "small")).decode(codes_BCT), codec.decode(codes_BCT), atol=1e-2, rtol=1e-2
    )


def test_weights_of_another_shape_are_refused_with_both_shapes(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["head.bias"] = torch.zeros(5)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"head\.bias \(5,\) for \(642,\)"):
        load_codec(str(tmp_path))
    del tensors["head.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"head\.bias is absent"):
        load_codec(str(tmp_path))


def test_the_embedded_codec_speaks():
    codec = load_codec("amy-tiny")
    assert (codec.sample_rate_hz, codec.frame_rate_hz, codec.codebooks, codec.codebook_size) == (16_000, 50, 8, 1024)
    wave_BN = torch.from_numpy(speak("seven"))[None]
    codes_BCT = codec.encode(wave_BN)
    mel_loss = MultiScaleMelLoss(16_000)
    decoded_BN = codec.decode(codes_BCT)[:, : wave_BN.shape[1]]
    assert mel_loss(decoded_BN, wave_BN)[0] < 0.25  # 2.5 dB; silence instead is 1.2
    backwards_BN = codec.decode(codes_BCT.flip(2))[:, : wave_BN.shape[1]]
    assert mel_loss(backwards_BN, wave_BN)[0] > 0.5


def test_an_unknown_codec_lists_what_there_is(tmp_path):
    for name in ("amy-huge", str(tmp_path)):
        with pytest.raises(UserError, match="amy-tiny"):
            load_codec(name)


def test_a_checkpoint_that_is_no_codec_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match="'llama'"):
        load_codec(str(tmp_path))


def encodec():
    from transformers import EncodecConfig, EncodecModel

    return EncodecModel(
        EncodecConfig(
            target_bandwidths=[8.0, 16.0],
            sampling_rate=16_000,
            num_filters=4,
            hidden_size=8,
            codebook_size=16,
            codebook_dim=8,
            upsampling_ratios=[4, 2],
        )
    )


def mimi():
    from transformers import MimiConfig, MimiModel

    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    quantiser = {"codebook_size": 16, "codebook_dim": 8, "vector_quantization_hidden_dimension": 8, "num_quantizers": 4}
    return MimiModel(
        MimiConfig(
            sampling_rate=16_000,
            frame_rate=1000,
            num_filters=4,
            upsampling_ratios=[4, 2],
            upsample_groups=16,
            **sizes,
            **quantiser,
        )
    )


@pytest.mark.parametrize("make, hop, codebooks", [(tiny_dac, 8, 3), (encodec, 8, 2), (mimi, 16, 4)])
def test_transformers_codecs_follow_the_protocol(make, hop, codebooks, tmp_path):
    torch.manual_seed(0)
    make().save_pretrained(tmp_path)
    codec = load_codec(str(tmp_path))
    assert (codec.sample_rate_hz, codec.hop_samples, codec.codebook_size) == (16_000, hop, 16)
    assert codec.codebooks == codebooks
    for samples in (1, 3 * hop, 200 * hop + 1):
        codes_BCT = codec.encode(torch.randn(2, samples) * 0.1)
        frames = -(-samples // hop)
        assert codes_BCT.shape == (2, codec.codebooks, frames) and codes_BCT.dtype == torch.int64
        assert codec.decode(codes_BCT).shape == (2, frames * hop)


def codec_of(make, tmp_path):
    """A tiny random codec in which every code sounds, and attention is as loud as what it is added to."""
    model = make()
    for name, values in (*model.named_buffers(), *model.named_parameters()):
        if "embed" in name:
            torch.nn.init.normal_(values)
        elif "scale" in name:
            torch.nn.init.ones_(values)
    model.save_pretrained(tmp_path)
    return load_codec(str(tmp_path))


@pytest.mark.parametrize("make", [None, tiny_dac, encodec, mimi])
def test_a_frame_sounds_no_further_than_its_codec_says(make, tmp_path):
    """Other codes in one frame change no sample further away; and pieces decoded with that much around them are the
    whole."""
    torch.manual_seed(0)
    codec = codec_of(make, tmp_path) if make else load_codec("amy-tiny")
    codes_CT, hop = torch.randint(0, codec.codebook_size, (codec.codebooks, 200)), codec.hop_samples
    other_CT = codes_CT.clone()
    other_CT[:, 100] = (codes_CT[:, 100] + 1) % codec.codebook_size
    whole_N = codec.decode(codes_CT[None])[0]
    changed_N = (codec.decode(other_CT[None])[0] - whole_N).abs() > 1e-6 * whole_N.abs().max()
    before, behind = codec.context_frames
    assert (
        changed_N.any()
        and 100 - behind <= changed_N.nonzero().min() / hop
        and changed_N.nonzero().max() / hop < 101 + before
    )
    for frames in (1, 25):
        pieces = list(decoded(codec, codes_CT.split(frames, dim=1)))
        assert len(pieces) > 1
        torch.testing.assert_close(torch.cat(pieces), whole_N, rtol=1e-4, atol=1e-5 * whole_N.abs().max().item())


def test_the_higgs_tokenizer_needs_no_torchaudio(released):
    codec = load_codec(released("higgs_codec"))
    wave_BN = 0.1 * torch.randn(2, 2 * 960 + 1, generator=torch.Generator().manual_seed(0))
    codes_BCT = codec.encode(wave_BN)
    assert codes_BCT.shape == (2, 8, 3) and codec.decode(codes_BCT).shape == (2, 3 * 960)
    assert "torchaudio" not in sys.modules


@pytest.mark.parametrize(("from_hz", "to_hz"), [(24_000, 16_000), (16_000, 24_000), (44_100, 16_000)])
def test_a_tone_is_the_same_tone_at_another_rate(from_hz, to_hz):
    def tone(rate_hz: int) -> torch.Tensor:
        return torch.sin(2 * torch.pi * 440 * torch.arange(rate_hz // 2) / rate_hz)

    resampled_N = resample(tone(from_hz), from_hz, to_hz)
    assert len(resampled_N) == to_hz // 2
    middle = slice(to_hz // 100, -to_hz // 100)
    torch.testing.assert_close(resampled_N[middle], tone(to_hz)[middle], atol=2e-3, rtol=0)


def test_bfloat16_is_refused_where_it_makes_something_else(monkeypatch):
    """As oneDNN does of some convolutions; rounding alone passes."""
    torch.manual_seed(0)
    codec = Amy().eval()
    for k in range(codec.codebooks):
        codec.quantiser.place(k, torch.randn_like(codec.quantiser.codebook_CVD[k]), 1.0)
    codes_1CT = torch.randint(0, 1024, (1, codec.codebooks, 20))
    exact_1N = codec.decode(codes_1CT)
    with computing_in("bfloat16", codec):
        apart_1N = codec.decode(codes_1CT).float() - exact_1N
    assert 0 < apart_1N.square().sum() < 1e-2 * exact_1N.square().sum()
    assert torch.equal(codec.decode(codes_1CT), exact_1N)

    latent = codec.latent
    monkeypatch.setattr(
        codec,
        "latent",
        lambda wave_BN: latent(wave_BN).flip(-1) if torch.is_autocast_enabled("cpu") else latent(wave_BN),
    )
    with pytest.raises(UserError, match="in bfloat16 on cpu"), computing_in("bfloat16", codec):
        pass
