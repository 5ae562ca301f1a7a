"""Mutation operators of DEFault++ on a tiny language model under `earnest.watch`, beside that package's own predictor.

``pip install defaultplusplus`` and ``python -m benchmarks.operators [--only QZQ]``: a Llama of two layers learns a
small Markov chain, is damaged by one operator, and is trained on; healthy twins are trained with other seeds. Printed
as a table of Markdown: the operator, what earnest told while the training ran, and what the predictor says of the
features that its own extractor took of the same run.
"""

import contextlib
import copy
import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import tyro
from defaultplusplus import FeatureExtractor  # pyright: ignore[reportMissingImports]
from defaultplusplus.deform import OPERATORS, get_injector  # pyright: ignore[reportMissingImports]
from defaultplusplus.diagnosis import load_pretrained  # pyright: ignore[reportMissingImports]
from defaultplusplus.processing import RuntimeNormalizer  # pyright: ignore[reportMissingImports]
from transformers import LlamaConfig, LlamaForCausalLM

import earnest

CLASSES, POSITIONS, CLIPS = 64, 32, 8
HEALTHY = 5


def batch_of(generator: torch.Generator) -> torch.Tensor:
    """ids (B, S): each id is followed by one of four."""
    ids = torch.randint(0, CLASSES, (CLIPS, 1), generator=generator)
    for _ in range(POSITIONS - 1):
        choice = torch.randint(0, 4, (CLIPS, 1), generator=generator)
        ids = torch.cat([ids, (ids[:, -1:] * 5 + 7 * choice + 3) % CLASSES], 1)
    return ids


def trained(model: LlamaForCausalLM, seed: int, steps: int, extractor: Any = None) -> None:
    """Train on, with the other package's extractor if one is given."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model.train()
    for step in range(steps):
        ids = batch_of(generator)
        mask = torch.ones_like(ids)
        out = model(input_ids=ids, attention_mask=mask, labels=ids, output_hidden_states=True)
        out.loss.backward()
        if extractor is not None:
            extractor.step(
                loss=out.loss, outputs=out, input_ids=ids, attention_mask=mask, labels=ids, optimizer=optimizer
            )
        optimizer.step()
        optimizer.zero_grad()
        if extractor is not None and step % 20 == 19:
            extractor.epoch_end(step // 20)


def told(model: LlamaForCausalLM, seed: int, steps: int) -> str:
    """The findings of a watched training that are warnings or worse."""
    with tempfile.TemporaryDirectory() as folder, earnest.watch(model, out=Path(folder) / "run") as watch:
        trained(model, seed, steps)
        watch.close()
        return ", ".join(f"{one.rule} {one.name}" for one in watch.findings if one.severity != "note") or "-"


def features_of(model: LlamaForCausalLM, seed: int, steps: int) -> dict[str, float]:
    """The extractor's features of the same training, run again: its own losses would be seen by a watch beside it."""
    with FeatureExtractor(model, arch="decoder") as extractor:
        trained(model, seed, steps, extractor)
        return extractor.finalize()


def said(features: dict[str, float]) -> str:
    """What the other package's predictor makes of its features."""
    encoded = RuntimeNormalizer.load("decoder").encode(features, mode="raw")
    found = load_pretrained("decoder").predict(encoded)
    if not found.is_faulty:
        return f"healthy (fault {found.detection_prob:.2f})"
    return f"{found.category} / {found.root_cause} (fault {found.detection_prob:.2f})"


def main(only: str = "", before: int = 200, steps: int = 60) -> None:
    """only: one operator · before: steps of the healthy model · steps: with the fault."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=CLASSES, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, bos_token_id=None, eos_token_id=None, use_cache=False,
    )  # fmt: skip
    config._attn_implementation = "eager"  # the other package reads the attention's weights
    start = LlamaForCausalLM(config)
    with contextlib.redirect_stderr(io.StringIO()):
        trained(start, 0, before)
    print(
        "| operator | what it does | earnest, while it trains | predictor of DEFault++ |\n|---|---|---|---|", flush=True
    )
    runs: list[tuple[str, str, Any]] = [(f"healthy, seed {n}", "-", None) for n in range(1, HEALTHY + 1)]
    for name, operator in OPERATORS.items():
        if operator.scope != "encoder":
            runs.append((name, f"{operator.component.value} / {operator.root_cause}", get_injector(name)))
    for number, (name, what, injector) in enumerate(runs):
        if only not in ("", name):
            continue
        try:
            answers: list[Any] = []
            for ask in (told, features_of):
                model = copy.deepcopy(start)
                damage = injector(model) if injector else contextlib.nullcontext()
                with contextlib.redirect_stderr(io.StringIO()), damage:
                    answers.append(ask(model, number + 1, steps))
            print(f"| {name} | {what} | {answers[0]} | {said(answers[1])} |", flush=True)
        except Exception as error:  # an operator that does not fit this model is a row, too
            print(f"| {name} | {what} | not run: {type(error).__name__}: {str(error)[:60]} | |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
