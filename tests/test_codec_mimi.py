"""Our quantiser between the parts of a (tiny, random) Mimi: import, export, gradients, refusals."""

import pytest
import torch
from transformers import MimiModel

from earnest.codecs import load_codec
from earnest.codecs.mimi import ENCODER, AmyMimi
from earnest.errors import UserError
from tests.equipment.codecs import tiny_mimi


def ready(**settings) -> AmyMimi:
    codec = AmyMimi.from_mimi(tiny_mimi(), (2, 3), frames_per_step=64, **settings).train()
    codec.quantiser.init_frames = 100
    codec(0.1 * torch.randn(1, 1600))
    assert codec.quantiser.ready
    return codec


def test_an_imported_mimi_encodes_and_decodes_as_transformers_does():
    mimi = tiny_mimi()
    codec = AmyMimi.from_mimi(mimi, (1, 3), frames_per_step=64).eval()
    wave_BN = 0.1 * torch.randn(2, 1600)
    codes_BCT = mimi.encode(wave_BN[:, None]).audio_codes
    assert (codec.sample_rate_hz, codec.hop_samples, codec.codebooks, codec.codebook_size) == (16_000, 16, 4, 16)
    assert torch.equal(codec.encode(wave_BN), codes_BCT)
    with torch.no_grad():
        torch.testing.assert_close(codec.decode(codes_BCT), mimi.decode(codes_BCT).audio_values[:, 0])


def test_the_prosody_codebook_is_placed_on_the_data():
    codec = AmyMimi.from_mimi(tiny_mimi(), (2, 3), frames_per_step=64).train()
    codec.quantiser.init_frames = 100
    assert codec.quantiser.placed == [True, False, True, True, True]
    with pytest.raises(RuntimeError, match="hold nothing"):
        codec.eval().encode(torch.zeros(1, 160))
    codec.train()(0.1 * torch.randn(1, 1600))
    assert codec.quantiser.ready and len(codec.quantiser.codebook_CVD[1].unique(dim=0)) == 16


def test_what_is_saved_is_a_mimi_to_transformers_and_a_codec_to_us(tmp_path):
    codec = ready()
    for _ in range(3):
        codec(0.1 * torch.randn(2, 800))  # the codebooks move
    codec.eval().save_pretrained(tmp_path)
    wave_BN = 0.1 * torch.randn(2, 1000)
    codes_BCT = codec.encode(wave_BN)
    theirs = MimiModel.from_pretrained(tmp_path)
    assert theirs.config.num_semantic_quantizers == 2 and theirs.config.num_quantizers == 5
    with torch.no_grad():
        padded_B1N = torch.nn.functional.pad(wave_BN, (0, 8))[:, None]
        assert torch.equal(theirs.encode(padded_B1N).audio_codes, codes_BCT)
        torch.testing.assert_close(theirs.decode(codes_BCT).audio_values[:, 0], codec.decode(codes_BCT))
    assert torch.equal(load_codec(str(tmp_path)).encode(wave_BN), codes_BCT)
    again = AmyMimi.from_pretrained(tmp_path).state_dict()
    assert again.keys() == codec.state_dict().keys()
    assert [
        name for name, tensor in codec.state_dict().items() if not torch.equal(again[name], tensor)
    ] == []  # EMA statistics too


def test_encoder_and_decoder_train():
    codec = ready()
    result = codec(0.1 * torch.randn(2, 1600))
    (result.wave_BN.square().mean() + result.quantised.losses["commitment"]).backward()
    assert [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_frozen_parts_get_no_gradient_and_stay_in_evaluation_mode():
    codec = ready()
    codec.freeze(ENCODER)
    codec.train()
    assert not codec.encoder.encoder_transformer.training and codec.decoder.training
    codec(0.1 * torch.randn(1, 160)).wave_BN.square().mean().backward()
    without = {name for name, p in codec.named_parameters() if p.grad is None}
    assert without == {name for name, _ in codec.named_parameters() if name.startswith(ENCODER)}


def test_more_codebooks_than_the_mimi_has_are_refused():
    with pytest.raises(UserError, match="7 acoustic codebooks, of a Mimi with 3"):
        AmyMimi.from_mimi(tiny_mimi(), (2, 7), frames_per_step=64)


def test_a_checkpoint_of_another_shape_is_refused_with_both_shapes(tmp_path):
    tiny_mimi().save_pretrained(tmp_path)
    tiny_mimi(codebook_size=8).config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"16, 8.*8, 8"):
        load_codec(str(tmp_path))
