"""Qwen3-TTS: a talker predicts codebook 0 of the next frame, a sub-talker the other codebooks of that frame, one head
each. Its text and codes are added position by position."""

import importlib
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.loss.loss_utils import ForCausalLMLoss

from tests.trainers.case import IGNORE, Case, Parts, backbone, codes, padded

CODEBOOKS, CLASSES, WIDTH, PAD, END = 6, 64, 32, 0, 1
FRAMES, TEXT = (9, 6, 12), (4, 5, 3)


class SubTalker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = backbone(layers=1)
        self.codec_embedding = nn.ModuleList(nn.Embedding(CLASSES, WIDTH) for _ in range(CODEBOOKS - 1))
        self.lm_head = nn.ModuleList(nn.Linear(WIDTH, CLASSES, bias=False) for _ in range(CODEBOOKS - 1))


class Talker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(codec_eos_token_id=END, codec_pad_id=PAD)
        self.model = backbone(CLASSES)
        self.text_embedding = nn.Embedding(50, WIDTH)
        self.codec_head = nn.Linear(WIDTH, CLASSES, bias=False)
        self.code_predictor = SubTalker()

    def embed(self, batch: dict[str, Tensor]) -> Tensor:
        embedded = self.text_embedding(batch["text"]) + self.model.embed_tokens(batch["codec_0"])
        for c in range(1, CODEBOOKS):
            table = self.code_predictor.codec_embedding[c - 1]
            embedded = embedded + table(batch["codec_ids"][..., c]) * batch["codec_mask"][..., None]
        return embedded

    def sub_logits(self, codes_NC: Tensor, hidden_ND: Tensor) -> Tensor:
        tables = [self.model.embed_tokens, *self.code_predictor.codec_embedding]
        read = [hidden_ND[:, None], *(tables[c](codes_NC[:, c : c + 1]) for c in range(CODEBOOKS - 1))]
        states = self.code_predictor.model(inputs_embeds=torch.cat(read, 1)).last_hidden_state
        return torch.stack([head(states[:, c + 1]) for c, head in enumerate(self.code_predictor.lm_head)], 1)


def batch() -> dict[str, Tensor]:
    rows: dict[str, list[Tensor]] = {"text": [], "codec_0": [], "codec_ids": [], "codec_mask": [], "labels": []}
    for clip, (frames, text) in enumerate(zip(FRAMES, TEXT, strict=True)):
        codes_TC = codes(frames, CODEBOOKS, CLASSES, clip, low=2)
        before, after = torch.full((text,), PAD), torch.tensor([END, PAD])
        rows["text"].append(torch.randint(1, 50, (text + frames + 2,), generator=torch.Generator().manual_seed(clip)))
        rows["codec_0"].append(torch.cat([before, codes_TC[:, 0], after]))
        rows["codec_ids"].append(F.pad(codes_TC, (0, 0, text, 2)))
        rows["codec_mask"].append(F.pad(torch.ones(frames, dtype=torch.bool), (text, 2)))
        rows["labels"].append(torch.cat([before - PAD + IGNORE, codes_TC[:, 0], torch.tensor([END, IGNORE])]))
    return {name: padded(each, IGNORE if name == "labels" else 0) for name, each in rows.items()}


def loss(
    model: Talker, batch: dict[str, Tensor], shifted_by_hand: bool, hidden: str, heads_shifted: bool, lost: bool = False
) -> Tensor:
    """hidden: which row the sub-talker is given for a frame, the one that predicts it ("before") or that has read
    it ("itself")."""
    embedded, mask, labels = model.embed(batch), batch["codec_mask"], batch["labels"]
    if shifted_by_hand:
        embedded, labels = embedded[:, :-1], labels[:, 1:]
    states = model.model(inputs_embeds=embedded).last_hidden_state
    total = ForCausalLMLoss(model.codec_head(states), labels, CLASSES)
    if lost:
        return total
    states = states[:, : mask.shape[1] - 1]
    read = states[mask[:, 1:]] if hidden == "before" else states[mask[:, :-1]]
    codes_NC = batch["codec_ids"][mask]
    codes_NC[:, 0] = batch["codec_0"][mask]
    logits = model.sub_logits(codes_NC, read)
    if heads_shifted:
        return total + 0.3 * ForCausalLMLoss(logits, codes_NC[:, 1:], CLASSES)
    return total + 0.3 * F.cross_entropy(logits.flatten(0, 1), codes_NC[:, 1:].flatten())


def swift_after(model: Talker, batch: dict[str, Tensor]) -> Tensor:
    """Calls the wrong loss too, and throws it away."""
    loss(model, batch, False, "itself", True)
    return loss(model, batch, False, "before", False)


def names_self(model: Talker, batch: dict[str, Tensor]) -> Tensor:
    return loss(self.model, batch, False, "before", False)  # type: ignore[name-defined]  # noqa: F821  (as published)


def omni() -> Parts:
    """Qwen3-Omni's talker, of transformers, cannot take labels."""
    modeling = importlib.import_module("transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe")
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    text = small | {"vocab_size": CLASSES, "moe_intermediate_size": 32, "num_experts": 2, "num_experts_per_tok": 1}
    config = modeling.Qwen3OmniMoeTalkerConfig(
        text_config=text | {"intermediate_size": 32, "shared_expert_intermediate_size": 32},
        code_predictor_config=small | {"vocab_size": CLASSES, "head_dim": 16, "intermediate_size": 32},
        thinker_hidden_size=32,
    )
    config.spatial_merge_size = 2
    positions = torch.arange(9).expand(3, 3, 9)
    inputs = {"inputs_embeds": torch.randn(3, 9, 32), "labels": torch.randint(0, CLASSES, (3, 9))}
    return modeling.Qwen3OmniMoeTalkerForConditionalGeneration(config), {**inputs, "position_ids": positions}, None


def build(loss_fn) -> Parts:
    return Talker(), batch(), loss_fn


HEAD = partial(loss, shifted_by_hand=True, hidden="itself", heads_shifted=True)
BEFORE = partial(loss, shifted_by_hand=True, hidden="before", heads_shifted=True)
SWIFT = partial(loss, shifted_by_hand=False, hidden="itself", heads_shifted=True)
CASES = [
    Case("Qwen3-TTS sft_12hz (HEAD)", partial(build, HEAD), ("A203", "C102")),
    Case("Qwen3-TTS sft_12hz (680d4e9)", partial(build, BEFORE), ("A203", "C102")),
    Case("Qwen3-TTS PR #278", partial(build, names_self), refused="NameError"),
    Case("ms-swift Qwen3-TTS before #9752", partial(build, SWIFT), ("A203", "C102")),
    Case("ms-swift Qwen3-TTS after #9752", partial(build, swift_after)),
    Case("tablerst Qwen3-TTS-Fine LoRA", partial(build, BEFORE), ("A203", "C102")),
    Case("transformers Qwen3-Omni talker labels", omni, refused="vocab_size"),
    Case("bc-dunia finetune-studio", partial(build, BEFORE), ("A203", "C102")),
]
