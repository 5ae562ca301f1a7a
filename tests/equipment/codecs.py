"""Codecs of transformers, tiny and with random weights."""

import torch
from transformers import DacConfig, DacModel, MimiConfig, MimiModel

from earnest.codecs.pretrained import PretrainedCodec


def tiny_dac() -> DacModel:
    """16 kHz, 8 samples a frame, 3 codebooks of 16."""
    ratios = {"downsampling_ratios": [2, 4], "upsampling_ratios": [4, 2]}
    return DacModel(
        DacConfig(
            encoder_hidden_size=8,
            decoder_hidden_size=16,
            n_codebooks=3,
            codebook_size=16,
            codebook_dim=4,
            sampling_rate=16_000,
            **ratios,
        )
    )


def tiny_mimi(acoustic: int = 3, **changes) -> MimiModel:
    """16 kHz, 1000 frames/s, random weights and centroids."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    books = {
        "codebook_size": 16,
        "codebook_dim": 8,
        "vector_quantization_hidden_dimension": 8,
        "num_quantizers": 1 + acoustic,
    }
    layers = {
        "sampling_rate": 16_000,
        "frame_rate": 1000,
        "num_filters": 4,
        "upsampling_ratios": [4, 2],
        "upsample_groups": 16,
    }
    mimi = MimiModel(MimiConfig(**(sizes | heads | books | layers | changes))).eval()
    for name, tensor in mimi.named_buffers():
        if "embed_sum" in name:
            tensor.copy_(0.1 * torch.randn_like(tensor))
    return mimi


def with_drawn_entries(codec: PretrainedCodec) -> PretrainedCodec:
    """A Higgs tokenizer whose entries are drawn from what its own encoder makes of noise: with random weights it has
    one entry for everything."""
    noise_1N = 0.1 * torch.randn(1, 3 * codec.sample_rate_hz)
    for quantizer in codec.model.quantizer.quantizers:
        seen: list[torch.Tensor] = []
        project = quantizer.project_in
        hook = project.register_forward_hook(lambda module, given, out_BTD, seen=seen: seen.append(out_BTD))
        codec.encode(noise_1N)
        hook.remove()
        rows_ND = seen[0].flatten(0, 1)
        drawn_V = torch.randint(len(rows_ND), (len(quantizer.codebook.embed),))
        quantizer.codebook.embed.copy_(rows_ND[drawn_V] + 0.1 * rows_ND.std(0) * torch.randn(len(drawn_V), 1))
    return codec
