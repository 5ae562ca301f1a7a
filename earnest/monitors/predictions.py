"""What the model predicts against what it should, clip by clip and stream by stream, as rows that people can read.

A prediction stands beside the target that it is scored on, after the same shift as the loss: a log that pairs a
prediction with the token at its own position shows every aligned model as wrong, and a copying one as right.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from earnest.data.batch import Batch
from earnest.data.masks import IGNORE
from earnest.run import Artifact, RunWriter

EDGE = 10  # counted positions shown from either end of a stream


@torch.no_grad()
def predictions(
    model, batch: Batch, decode: Callable[[list[int]], str] | None = None, edge: int = EDGE
) -> list[dict[str, Any]]:
    """Rows, one a clip and stream: what counts and what is masked, the first and last `edge` counted positions, and the
    shares.

    Positions count from the clip's start; targets and predictions are ids of the stream. `*_frac`: share of the
    predictions, and of the targets, that are codes, BOS, EOS. With `decode` a text stream also gets its targets and
    predictions as text, whole runs at a time, as a letter may be several ids; and `written`, all of the clip's text.
    """
    model.eval()
    device = next(model.parameters()).device
    hidden_PD = model(batch.to(device))
    exists_BS = batch.exists_BS
    clip_P = torch.arange(len(exists_BS))[:, None].expand(exists_BS.shape)[exists_BS]
    position_P = (exists_BS.cumsum(1) - 1)[exists_BS]
    targets = {"text": batch.text_targets_BS[exists_BS]}
    targets |= {f"codebook_{c}": batch.audio_targets_BSC[..., c][exists_BS] for c in range(batch.codebooks)}
    is_audio_P = batch.is_audio_BS[exists_BS]
    rows = []
    for stream, head in model.heads().items():
        if stream not in targets:
            continue
        holds_P = is_audio_P if stream != "text" else ~is_audio_P
        for index, clip in enumerate(batch.clip_B.tolist()):
            own_P = clip_P == index
            counts_P = own_P & (targets[stream] != IGNORE)
            target_N = targets[stream][counts_P]
            guess_N = head.logits(hidden_PD[counts_P.to(device)]).argmax(-1).cpu()
            row = {
                "clip": clip,
                "stream": stream,
                "counted": len(target_N),
                "masked": int((own_P & holds_P & ~counts_P).sum()),
                "correct": int((guess_N == target_N).sum()),
            }
            for end, part in (("first", slice(edge)), ("last", slice(-edge, None))):
                row[f"{end}_position"] = position_P[counts_P][part].tolist()
                row |= {f"{end}_target": target_N[part].tolist(), f"{end}_predicted": guess_N[part].tolist()}
            if stream == "text" and decode:
                row["written"] = decode(batch.text_BS[exists_BS][own_P & holds_P].tolist())
                row |= {"target_text": decode(target_N.tolist()), "predicted_text": decode(guess_N.tolist())}
            elif stream != "text":
                row |= {f"target_{kind}": share for kind, share in _shares(model, target_N).items()}
                row |= {f"predicted_{kind}": share for kind, share in _shares(model, guess_N).items()}
            rows.append(row)
    return rows


def log_predictions(model, batch: Batch, sources: Sequence[str], step: int, writer: RunWriter) -> None:
    """Write the predictions on a batch to the run, as ``predictions/step_N.jsonl``; `sources` names the clips by their
    number."""
    tokenizer = getattr(model, "tokenizer", None)
    path = writer.path / "predictions" / f"step_{step:07d}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        for row in predictions(model, batch, tokenizer and tokenizer.decode):
            file.write(json.dumps({"step": step, "source": sources[row["clip"]], **row}, ensure_ascii=False) + "\n")
    writer.artifact(
        Artifact("prediction", path.relative_to(writer.path).as_posix(), step, {"clips": len(batch.clip_B)})
    )


def _shares(model, tokens_N: Tensor) -> dict[str, float]:
    specials = {"bos_frac": model.bos_id, "eos_frac": model.eos_id}  # a model that never ends by itself has no EOS
    kinds = {
        "codes_frac": tokens_N < model.codes,
        **{name: tokens_N == id for name, id in specials.items() if id is not None},
    }
    return (
        {name: round(float(is_N.float().mean()), 4) for name, is_N in kinds.items()}
        if len(tokens_N)
        else dict.fromkeys(kinds, 0.0)
    )
