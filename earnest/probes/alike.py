"""Rows of a table that is not trained, which cannot be told apart: new tokens that nothing will ever teach."""

import torch
from torch import Tensor

from earnest.probes.results import AlikeRows

NEAR = 1e-2  # distance of two rows, as a share of the shorter one, below which they are the same (assumed)
MOST_IDS = 512  # of a batch that are compared: the largest, as new ones are
SHOWN = 6  # ids that are named


def alike_rows(name: str, table: Tensor, ids: Tensor) -> AlikeRows | None:
    """The ids of a batch (any shape) whose rows in `table` (V, D) are the same; None if every id has a row of its own.

    Resizing an embedding fills the new rows with zeros, or draws them so near to the mean of the old ones that they
    cannot be told apart. Trained rows lie far apart.
    """
    known = ids.unique()
    known = known[(known >= 0) & (known < len(table))][-MOST_IDS:]
    if len(known) < 2:
        return None
    with torch.no_grad():
        rows_KD = table.detach()[known].float()
        far_KK = torch.cdist(rows_KD, rows_KD, compute_mode="donot_use_mm_for_euclid_dist")
        length_K = rows_KD.norm(dim=1)
        near_KK = far_KK <= NEAR * torch.minimum(length_K[:, None], length_K[None])
        near_KK.fill_diagonal_(False)
        same = known[near_KK.any(1)]
    return AlikeRows(name, len(same), len(known), tuple(same[:SHOWN].tolist())) if len(same) else None
