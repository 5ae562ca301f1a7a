"""Which positions exist and which targets count, and the one shift between tokens and targets.

Everywhere in earnest the target at position s is what the logits at position s predict. Models never shift.
"""

import torch
from torch import Tensor

IGNORE = -100  # torch's and transformers' ignore_index: a target that does not count


def shift(labels_S: Tensor) -> Tensor:
    """Labels that sit on their own position -> targets that sit on the position predicting them.

    ``targets[s] = labels[s + 1]`` along the first dimension; the last position predicts nothing (IGNORE).
    Call it on one clip at a time: over a concatenation the last position of a clip would predict the next clip's first.
    """
    targets_S = torch.full_like(labels_S, IGNORE)
    targets_S[:-1] = labels_S[1:]
    return targets_S


def ends_at_eos(tokens_CS: Tensor, delays: list[int], frames: int) -> Tensor:
    """Labels of a framed and delayed clip: per codebook its `frames` codes and one EOS count, both fills and BOS do
    not.

    tokens_CS comes from ``delay(framed(codes_CT))``, so codebook c holds BOS at delays[c], codes behind it, then EOS.
    """
    past_CS = torch.arange(tokens_CS.shape[1], device=tokens_CS.device) - torch.tensor(
        delays, device=tokens_CS.device
    ).unsqueeze(1)
    return tokens_CS.where((past_CS > 0) & (past_CS < frames + 2), IGNORE)
