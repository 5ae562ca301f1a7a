"""Clips -> a padded batch, beside padding each field of each clip: `python -m benchmarks.collation`.

Eight clips of Higgs, 8 codebooks, 2 to 9 s. The peer is what collators of most public trainers do: `F.pad` to the
longest, then `torch.stack`. All fields are asserted equal.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.generate import make
from benchmarks.side_by_side import Comparison, show
from earnest.data.batch import Example, collate
from earnest.data.masks import IGNORE

SECONDS = (2, 3, 4, 5, 6, 7, 8, 9)
PADDING = {"text_S": 0, "tokens_SC": 0, "is_audio_S": False, "text_targets_S": IGNORE, "audio_targets_SC": IGNORE}


def padded(examples: Sequence[Example]) -> dict[str, Tensor]:
    longest = max(map(len, examples))
    fields: dict[str, Tensor] = {}
    for name, value in PADDING.items():
        columns: list[Tensor] = [getattr(example, name) for example in examples]
        behind = [(0, 0) * (column.dim() - 1) + (0, longest - len(column)) for column in columns]
        fields[name] = torch.stack(
            [F.pad(column, pad, value=value) for column, pad in zip(columns, behind, strict=True)]
        )
    lengths_B = torch.tensor([len(example) for example in examples])
    return fields | {"exists": torch.arange(longest)[None] < lengths_B[:, None]}


def comparisons() -> Iterator[Comparison]:
    higgs = make()
    codes = [torch.randint(0, 1024, (8, 25 * seconds)) for seconds in SECONDS]
    examples = [higgs.lay_out(codes_CT, "a few words that somebody says", "a") for codes_CT in codes]
    ours, theirs = collate(examples, range(len(examples)), 0), padded(examples)
    columns = (
        ours.text_BS,
        ours.tokens_BSC,
        ours.is_audio_BS,
        ours.text_targets_BS,
        ours.audio_targets_BSC,
        ours.exists_BS,
    )
    assert all(torch.equal(a, b) for a, b in zip(columns, theirs.values(), strict=True))
    yield Comparison(
        f"collation of {len(examples)} clips",
        "F.pad and stack",
        lambda: collate(examples, range(len(examples)), 0),
        lambda: padded(examples),
        "all fields equal",
        turns=9,
        calls=200,
    )


if __name__ == "__main__":
    show(comparisons())
