"""What the model predicts beside what it should predict, by clip and stream, as rows that people can read.

Each prediction is paired with the target that it is scored on, after the same shift as in the loss. A log that pairs
predictions with the tokens at their own positions shows every aligned model as wrong, and one that copies as right.
"""

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from earnest.data.batch import Batch
from earnest.data.masks import IGNORE
from earnest.models.system import System
from earnest.run import Artifact, RunWriter
from earnest.streams import Codebook

EDGE = 10  # counted positions shown from either end of a stream


@torch.no_grad()
def predictions(model: System, batch: Batch, edge: int = EDGE) -> list[dict[str, Any]]:
    """Rows, one per clip and stream: what counts and what is masked, the first and last `edge` counted positions, and
    the shares.

    Positions count from the clip's start; targets and predictions are ids of the stream. `*_frac`: share of the
    predictions, and of the targets, that are codes, BOS, EOS. If the model can tell the text of its ids, a row of text
    also has its targets and predictions as text, all ids together, as a letter may be several ids; and `written`, all
    of the clip's text.
    """
    model.eval()
    outputs = model.outputs(batch.to(model.device))
    exists_BS = batch.exists_BS
    clip_P = torch.arange(len(exists_BS))[:, None].expand(exists_BS.shape)[exists_BS]
    position_P = (exists_BS.cumsum(1) - 1)[exists_BS]
    clips: list[int] = batch.clip_B.tolist()
    rows: list[dict[str, Any]] = []
    for stream, output in outputs.items():
        holds_P, targets_P = batch.holds(stream)[exists_BS], batch.targets(stream)[exists_BS]
        for index, clip in enumerate(clips):
            held_P = (clip_P == index) & holds_P
            counts_P = (clip_P == index) & (targets_P != IGNORE)
            target_N = targets_P[counts_P]
            guess_N = output.head.logits(output.states_PD[counts_P.to(model.device)]).argmax(-1).cpu()
            row: dict[str, Any] = {"clip": clip, "stream": str(stream), "counted": len(target_N)}
            row |= {"masked": int((held_P & ~counts_P).sum()), "correct": int((guess_N == target_N).sum())}
            for end, part in (("first", slice(edge)), ("last", slice(-edge, None))):
                row[f"{end}_position"] = position_P[counts_P][part].tolist()
                row |= {f"{end}_target": target_N[part].tolist(), f"{end}_predicted": guess_N[part].tolist()}
            if isinstance(stream, Codebook):
                row |= {f"target_{kind}": share for kind, share in _shares(model, target_N).items()}
                row |= {f"predicted_{kind}": share for kind, share in _shares(model, guess_N).items()}
            else:
                row |= _texts(model, batch.text_BS[exists_BS][held_P], target_N, guess_N)
            rows.append(row)
    return rows


def _texts(model: System, written_N: Tensor, target_N: Tensor, guess_N: Tensor) -> dict[str, str]:
    """The texts of these ids, none if the model cannot tell them."""
    named = {"written": written_N, "target_text": target_N, "predicted_text": guess_N}
    texts = {name: model.text_of(ids_N.tolist()) for name, ids_N in named.items()}
    return {name: text for name, text in texts.items() if text is not None}


def log_predictions(model: System, batch: Batch, sources: Sequence[str], step: int, writer: RunWriter) -> None:
    """Write the predictions on a batch to the run, as ``predictions/step_N.jsonl``. sources: of the clips, by their
    number."""
    path = writer.path / "predictions" / f"step_{step:07d}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        for row in predictions(model, batch):
            file.write(json.dumps({"step": step, "source": sources[row["clip"]], **row}, ensure_ascii=False) + "\n")
    writer.artifact(
        Artifact("prediction", path.relative_to(writer.path).as_posix(), step, {"clips": len(batch.clip_B)})
    )


def _shares(model: System, tokens_N: Tensor) -> dict[str, float]:
    """Share of the tokens that are codes, BOS and EOS; a model that cannot end the audio has no EOS."""
    kinds = {"codes_frac": tokens_N < model.codes, "bos_frac": tokens_N == model.bos_id}
    if model.eos_id is not None:
        kinds["eos_frac"] = tokens_N == model.eos_id
    return {name: round(float(is_N.float().mean()), 4) if len(is_N) else 0.0 for name, is_N in kinds.items()}
