"""Moshi: text and codes of one grid row, a small transformer over the codebooks of each row; acoustic codes a frame
later."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.trainers.case import Case, Parts, backbone, codes

CODEBOOKS, CODES, TEXT, WIDTH, FRAMES = 4, 64, 200, 32, 12
TEXT_PAD, TEXT_BEGIN, BEGIN = 3, TEXT, CODES
DELAYS = (0, 1, 1, 1)


class LMModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.text_emb, self.text_linear = nn.Embedding(TEXT + 1, WIDTH), nn.Linear(WIDTH, TEXT, bias=False)
        self.emb = nn.ModuleList(nn.Embedding(CODES + 1, WIDTH) for _ in range(CODEBOOKS))
        self.transformer, self.depformer = backbone(), backbone(layers=1)
        self.depformer_text_emb = nn.Embedding(TEXT + 1, WIDTH)
        self.depformer_emb = nn.ModuleList(nn.Embedding(CODES + 1, WIDTH) for _ in range(CODEBOOKS - 1))
        self.linears = nn.ModuleList(nn.Linear(WIDTH, CODES, bias=False) for _ in range(CODEBOOKS))
        self.config = SimpleNamespace(text_padding_token_id=TEXT_PAD, end_of_text_padding_id=0)

    def forward(self, text_BT: Tensor, codes_BCT: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Logits of text, logits of each codebook, and the grid (B, 1 + C, S) that they predict."""
        frames = text_BT.shape[1]
        grid = torch.full((len(text_BT), 1 + CODEBOOKS, frames + 1), BEGIN)
        grid[:, 0, 0], grid[:, 0, 1:] = TEXT_BEGIN, text_BT
        for c, delay in enumerate(DELAYS):
            grid[:, 1 + c, 1 + delay :] = codes_BCT[:, c, : frames - delay]
        read, predicted = grid[..., :-1], grid[..., 1:]
        embedded = self.text_emb(read[:, 0]) + sum(table(read[:, 1 + c]) for c, table in enumerate(self.emb))
        states = self.transformer(inputs_embeds=embedded).last_hidden_state
        below = [self.depformer_text_emb(predicted[:, 0])]
        below += [table(predicted[:, 1 + c]) for c, table in enumerate(self.depformer_emb)]
        depth = torch.stack(below, 2) + states[:, :, None]
        depth = self.depformer(inputs_embeds=depth.flatten(0, 1)).last_hidden_state.unflatten(0, depth.shape[:2])
        return self.text_linear(states), [head(depth[:, :, c]) for c, head in enumerate(self.linears)], predicted


def loss(model: LMModel, batch: dict[str, Tensor]) -> Tensor:
    text, audio, predicted = model(batch["text"], batch["codes"])
    weight = torch.where(predicted[:, 0] == TEXT_PAD, 0.5, 1.0)
    ce = F.cross_entropy(text.flatten(0, 1), predicted[:, 0].flatten(), reduction="none")
    total = (ce * weight.flatten()).sum() / weight.sum()
    sums, counts = torch.zeros(()), torch.zeros(())
    for c, logits in enumerate(audio):
        valid, scale = predicted[:, 1 + c] != BEGIN, 10.0 if c == 0 else 1.0
        sums = sums + scale * F.cross_entropy(logits[valid], predicted[:, 1 + c][valid], reduction="sum")
        counts = counts + scale * valid.sum()
    return total + sums / counts


def moshi_finetune() -> Parts:
    text = torch.stack([codes(FRAMES, 1, TEXT, 10 + clip, low=4)[:, 0] for clip in range(3)])
    text[:, ::3] = TEXT_PAD
    return (
        LMModel(),
        {"text": text, "codes": torch.stack([codes(FRAMES, CODEBOOKS, CODES, clip).T for clip in range(3)])},
        loss,
    )


CASES = [Case("kyutai moshi-finetune", moshi_finetune)]
