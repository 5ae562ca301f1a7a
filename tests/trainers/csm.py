"""Sesame's CSM: a backbone predicts codebook 0 of the next frame, a depth decoder the rest. A frame of zeros ends a
clip."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CsmConfig, CsmForConditionalGeneration

from tests.trainers.case import IGNORE, Case, Parts, backbone, codes, padded

CODEBOOKS, CLASSES, WIDTH = 6, 64, 32
AUDIO, AUDIO_END, TEXT_PAD = 49, 48, 2
FRAMES, TEXT, HOP = (9, 6, 12), (4, 5, 3), 8


def transformers_model() -> CsmForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "num_codebooks": CODEBOOKS, "vocab_size": CLASSES}
    depth = {**sizes, "backbone_hidden_size": WIDTH, "max_position_embeddings": CODEBOOKS + 1}
    quantiser = {"codebook_size": CLASSES, "codebook_dim": 8, "num_quantizers": CODEBOOKS, "num_semantic_quantizers": 1}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
    shapes = {"hidden_size": 16, "num_filters": 4, "vector_quantization_hidden_dimension": 8, "upsample_groups": 16}
    codec = {"model_type": "mimi", **quantiser, **heads, **shapes, "upsampling_ratios": [2, 2]}
    special = {"audio_token_id": AUDIO, "audio_eos_token_id": AUDIO_END, "codebook_pad_token_id": 50, "bos_token_id": 1}
    special |= {"codebook_eos_token_id": 0, "pad_token_id": TEXT_PAD}
    model = CsmForConditionalGeneration(
        CsmConfig(**sizes, **special, text_vocab_size=60, depth_decoder_config=depth, codec_config=codec)
    )
    codec_model = model.codec_model
    for quantizer in (
        codec_model.quantizer.semantic_residual_vector_quantizer,
        codec_model.quantizer.acoustic_residual_vector_quantizer,
    ):
        for layer in quantizer.layers:
            layer.codebook.embed_sum.normal_()
    return model


def transformers_csm() -> Parts:
    """As the processor with output_labels=True makes it."""
    ids, labels, waves = [], [], []
    for clip, (frames, text) in enumerate(zip(FRAMES, TEXT, strict=True)):
        words = codes(text, 1, 40, clip, low=3)[:, 0]
        ids.append(torch.cat([words, torch.full((frames,), AUDIO), torch.tensor([AUDIO_END])]))
        labels.append(torch.cat([torch.full((text,), IGNORE), torch.full((frames,), AUDIO), torch.tensor([AUDIO_END])]))
        waves.append(torch.randn(1, max(FRAMES) * HOP, generator=torch.Generator().manual_seed(clip)))
    mask = padded([torch.ones(len(one), dtype=torch.long) for one in ids], 0)
    batch = {"input_ids": padded(ids, TEXT_PAD), "attention_mask": mask, "labels": padded(labels, IGNORE)}
    batch |= {
        "input_values": torch.stack(waves),
        "input_values_cutoffs": torch.tensor([[frames * HOP] for frames in FRAMES]),
    }
    return transformers_model(), batch, lambda model, batch: model(**batch, use_cache=False).loss


class Csm(nn.Module):
    """One table for all codebooks, with an offset for each; depth rows for a random part of the frames."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.text_embeddings, self.audio_embeddings = nn.Embedding(50, WIDTH), nn.Embedding(CODEBOOKS * CLASSES, WIDTH)
        self.backbone, self.decoder = backbone(), backbone(layers=1)
        self.backbone.embed_tokens = self.decoder.embed_tokens = nn.Identity()
        self.codebook0_head = nn.Linear(WIDTH, CLASSES, bias=False)
        self.audio_head = nn.Parameter(0.1 * torch.randn(CODEBOOKS - 1, WIDTH, CLASSES))

    def embed(self, codes: Tensor) -> Tensor:
        return self.audio_embeddings(codes + CLASSES * torch.arange(CODEBOOKS))


def knottwill_loss(model: Csm, batch: dict[str, Tensor]) -> Tensor:
    is_audio, target = batch["is_audio"], batch["codes"]
    embedded = (
        model.text_embeddings(batch["text"]) * ~is_audio[..., None] + model.embed(target).sum(2) * is_audio[..., None]
    )
    states = model.backbone(inputs_embeds=embedded).last_hidden_state
    predicts = is_audio.roll(-1, 1)
    predicts[:, -1] = False
    frames, before = target[is_audio], states[predicts]
    first = F.cross_entropy(model.codebook0_head(before), frames[:, 0])
    chosen = torch.randperm(len(frames))[: len(frames) // 2].sort().values
    read = torch.cat([before[chosen][:, None], model.embed(frames[chosen])[:, :-1]], 1)
    states = model.decoder(inputs_embeds=read).last_hidden_state
    logits = torch.einsum("bsh,shv->bsv", states[:, 1:], model.audio_head)
    return first + F.cross_entropy(logits.flatten(0, 1), frames[chosen][:, 1:].flatten())


def knottwill() -> Parts:
    rows: dict[str, list[Tensor]] = {"text": [], "codes": [], "is_audio": []}
    for clip, (frames, text) in enumerate(zip(FRAMES, TEXT, strict=True)):
        rows["text"].append(F.pad(codes(text, 1, 50, clip, low=1)[:, 0], (0, frames + 1)))
        rows["codes"].append(F.pad(codes(frames, CODEBOOKS, CLASSES, clip, low=1), (0, 0, text, 1)))
        rows["is_audio"].append(F.pad(torch.ones(frames + 1, dtype=torch.bool), (text, 0)))
    return Csm(), {name: padded(each, 0) for name, each in rows.items()}, knottwill_loss


class OfMlx:
    """What csm-mlx hands over is no torch module."""

    def __call__(self, tokens: object) -> object:
        return tokens


CASES = [
    Case("senstella csm-mlx trainer", lambda: (OfMlx(), {}, None), refused="a model of type OfMlx"),  # type: ignore[arg-type,return-value]
    Case("knottwill sesame-finetune", knottwill),
    Case("transformers CSM", transformers_csm),
]
