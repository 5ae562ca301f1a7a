"""Single-stream trainers: text and codes in one vocabulary of a Llama, shifted by the model."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM

from tests.trainers.case import IGNORE, Case, Parts, codes, llama, padded

TEXT_CLASSES, CODES = 60, 64
SPEECH, SPEECH_END, END_OF_TEXT, PAD = TEXT_CLASSES, TEXT_CLASSES + 1, 2, 0
FIRST_CODE = TEXT_CLASSES + 2
CLASSES = FIRST_CODE + CODES
FRAMES, TEXT = (16, 9, 20), (6, 8, 5)


def batch(labels_of: Callable[[Tensor, int], Tensor]) -> dict[str, Tensor]:
    """labels_of: (ids of a clip, length of its prompt) -> labels."""
    ids, labels = [], []
    for clip, (frames, text) in enumerate(zip(FRAMES, TEXT, strict=True)):
        prompt = torch.cat(
            [torch.tensor([1]), codes(text, 1, TEXT_CLASSES, clip, low=3)[:, 0], torch.tensor([END_OF_TEXT, SPEECH])]
        )
        spoken = torch.cat([codes(frames, 1, CODES, clip)[:, 0] + FIRST_CODE, torch.tensor([SPEECH_END])])
        ids.append(torch.cat([prompt, spoken]))
        labels.append(labels_of(ids[-1], len(prompt)))
    mask = padded([torch.ones(len(one), dtype=torch.long) for one in ids], 0)
    return {"input_ids": padded(ids, PAD), "labels": padded(labels, IGNORE), "attention_mask": mask}


def speech_only(ids: Tensor, prompt: int) -> Tensor:
    return torch.where(torch.arange(len(ids)) < prompt - 1, IGNORE, ids)


def everything(ids: Tensor, prompt: int) -> Tensor:
    return ids.clone()


def build(labels_of: Callable[[Tensor, int], Tensor]) -> Parts:
    return llama(CLASSES, pad_token_id=PAD), batch(labels_of), None


def no_labels_argument() -> Parts:
    """train_lambda.py: the model's forward takes no labels."""

    class Transformer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lm = llama(CLASSES)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.lm(input_ids=input_ids).logits

    return Transformer(), batch(everything), lambda model, batch: model(batch["input_ids"], labels=batch["labels"])


def slm_mot() -> Parts:
    """train_adapter.py: the codes' rows of the embedding are new, and frozen; audio is cut, so that nothing ends it."""
    model = llama(CLASSES)
    model.model.embed_tokens.weight.requires_grad_(False)
    ids = padded(
        [
            torch.cat(
                [codes(text, 1, TEXT_CLASSES, clip, low=3)[:, 0], codes(frames, 1, CODES, clip)[:, 0] + FIRST_CODE]
            )
            for clip, (frames, text) in enumerate(zip(FRAMES, TEXT, strict=True))
        ],
        END_OF_TEXT,
    )

    def loss(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> Tensor:
        ids = batch["input_ids"]
        labels = ids.masked_fill(ids < FIRST_CODE, IGNORE)[:, 1:]
        return F.cross_entropy(model(input_ids=ids).logits[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=IGNORE)

    return model, {"input_ids": ids}, loss


def unshifted(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> Tensor:
    logits = model(input_ids=batch["input_ids"]).logits
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE)


def twice(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> Tensor:
    return model(input_ids=batch["input_ids"], labels=F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE)).loss


CASES = [
    Case("SLM-MoT train_adapter.py", slm_mot, ("A302",)),
    Case("SLM-MoT train_lambda.py", no_labels_argument, refused="labels"),
    Case("LLaSA_training train_tts.py", partial(build, speech_only)),
    Case("unsloth Orpheus notebook", partial(build, everything)),
    Case("unsloth Spark-TTS notebook", partial(build, everything)),
    Case("Orpheus finetune/train.py", partial(build, everything)),
    Case("inworld tts finetuning dataset", partial(build, speech_only)),
    Case("GLM-4-Voice-SFT", partial(build, speech_only)),
    Case("a Llama, unshifted", lambda: (llama(CLASSES), batch(speech_only), unshifted), ("A203",)),
    Case("a Llama, shifted twice", lambda: (llama(CLASSES), batch(speech_only), twice), ("A203",)),
]
