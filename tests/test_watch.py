"""`earnest.watch` and the callbacks on it: planted faults are named while a training runs, its healthy twins are not
accused, and no training is changed by being watched."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import types
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.functional import cross_entropy as imported_by_name
from transformers import Trainer, TrainingArguments

import earnest
import earnest.rules
from earnest.errors import UserError
from earnest.loops import hooks
from earnest.loops.subject import copied, loss_of_model, scalar
from earnest.loops.watching import TrainingStopped
from earnest.monitors.tokens import Tokens
from earnest.run import read_run
from tests.equipment.loops import (
    BEGIN,
    CLASSES,
    END,
    PAD,
    Unshifted,
    WithSpeaker,
    Wrapper,
    clips,
    collate,
    gan,
    unshifted,
)
from tests.equipment.processes import in_a_process
from tests.trainers import CASES
from tests.trainers.case import Case, llama

# What needs the loss to be run again with other inputs, as `earnest.check` does: states are handed from one model to
# the next by the loop itself.
NOT_WHILE_IT_RUNS = ("Qwen3-TTS sft_12hz (HEAD)", "ms-swift Qwen3-TTS before #9752", "stlohrey chatterbox T3.loss_old")


@pytest.fixture(autouse=True)
def nobody_listens():
    original = F.cross_entropy
    yield
    assert not hooks.LISTENERS and F.cross_entropy is original


def trained(model, loss_fn, batches, out, **options):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    watch = earnest.watch(model, optimizer, out, **options)
    for batch in batches:
        optimizer.zero_grad()
        loss = scalar((loss_fn or loss_of_model)(model, copied(batch)))
        if loss is not None:
            loss.backward()
        optimizer.step()
    watch.close()
    assert not watch.guard.broken
    return watch


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if not case.refused and case.name not in NOT_WHILE_IT_RUNS],
    ids=lambda case: case.name,
)
def test_public_trainers_in_a_plain_loop(case: Case, tmp_path):
    model, batch, loss_fn = case.build()
    found = trained(model.train(), loss_fn, [batch] * 6, tmp_path / "run").findings
    if case.faults:
        assert set(case.faults) <= {finding.rule for finding in found}
    else:
        assert not [finding for finding in found if finding.severity != "note"]


def lm_batches(count, fault=""):
    rows = clips()
    return [collate(rows[(4 * n) % 64 :][:4], fault) for n in range(count)]


def test_what_is_seen_of_a_plain_loop(tmp_path):
    model = llama(CLASSES, pad_token_id=PAD)
    watch = trained(model, None, lm_batches(45), tmp_path / "run", facts={"codec": "mine"})
    assert not watch.findings
    run = read_run(tmp_path / "run")
    assert run["train/loss"].step.tolist() == [*range(1, 21), 30, 40, 45]
    assert run["train/loss"].value == pytest.approx(run["train/ce_nats/tokens"].value, rel=1e-2)
    for name in ("accuracy_frac/tokens", "copy_frac/tokens", "entropy_nats/tokens", "counted_frac/tokens"):
        assert len(run[f"train/{name}"]) > 20
    assert run["train/learning_rate"].value[0] == 1e-3 and run["train/grad_norm"].value.min() > 0
    assert 1e-5 < run["train/update_frac/lm_head"].value[5] < 0.5
    facts = run.facts
    assert (facts.system, facts.codec, facts.accumulation_steps) == ("LlamaForCausalLM", "mine", 1)
    assert facts.classes and list(facts.classes.values()) == [CLASSES]
    judged = earnest.rules.diagnose(run)
    assert [str(one.stream) for one in judged.verdicts] == ["tokens", "total"]


def test_evaluation_is_told_apart(tmp_path):
    model = llama(CLASSES, pad_token_id=PAD)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with earnest.watch(model, optimizer, tmp_path / "run") as watch:
        for n, batch in enumerate(lm_batches(6)):
            model(**batch).loss.backward()
            optimizer.step()
            if n == 2:
                model.eval()
                with torch.no_grad():
                    held_out = [model(**batch).loss.item() for batch in lm_batches(2)]
                model.train()
        watch.log(eval_loss=1.5, nonsense_of_mine=3)
    run = read_run(tmp_path / "run")
    assert run["eval/ce_nats/tokens"].step.tolist() == [3]
    assert run["eval/ce_nats/tokens"].value[0] == pytest.approx(sum(held_out) / 2, rel=0.05)
    assert run["eval/loss"].value.tolist() == [1.5] and len(run["train/ce_nats/tokens"]) == 6


def test_accumulation_scaling_and_functions_imported_by_name(tmp_path):
    head, optimizer_of = nn.Linear(8, 20), partial(torch.optim.SGD, lr=0.1)
    optimizer = optimizer_of(head.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    watch, expected = earnest.watch(head, optimizer, tmp_path / "run"), []
    for _ in range(5):
        here = []
        for _ in range(2):
            logits = head(torch.randn(16, 8))
            loss = globals()["imported_by_name"](logits, torch.randint(0, 20, (16,))) / 2
            scaler.scale(loss).backward()
            here.append(loss.item())
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        expected.append(sum(here))
    watch.close()
    assert imported_by_name is F.cross_entropy
    run = read_run(tmp_path / "run")
    assert run["train/loss"].value == pytest.approx(expected, rel=1e-5)
    assert run["train/ce_nats/tokens"].value == pytest.approx(expected, rel=1e-5)
    assert run.facts.accumulation_steps == 2


@pytest.mark.parametrize(
    ("fault", "severity"), [(None, None), ("zeroed", "critical"), ("zeroed at last", "critical"), ("added", "note")]
)
def test_micro_batches_of_a_plain_loop(fault, severity, tmp_path):
    """Means of three micro-batches, divided by three; or with what goes wrong."""
    model = llama(CLASSES, pad_token_id=PAD)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with earnest.watch(model, optimizer, tmp_path / "run") as watch:
        for n, batch in enumerate(lm_batches(9)):
            if fault == "zeroed":
                optimizer.zero_grad(set_to_none=False)
            (model(**batch).loss / (1 if fault == "added" else 3)).backward()
            if n % 3 == 2:
                if fault == "zeroed at last":
                    model.zero_grad()
                optimizer.step()
                optimizer.zero_grad()
    assert not watch.guard.broken and read_run(tmp_path / "run").facts.accumulation_steps == 3
    found = [one for one in watch.diagnosis().findings if one.rule == "D404"]
    assert [one.severity for one in found] == ([severity] if fault else [])
    if severity == "critical":
        assert f"gradients of {2 if fault == 'zeroed' else 3} of 3" in found[0].summary


@pytest.mark.parametrize(
    ("end", "severity"),
    [("a step", None), ("added", "warning"), ("cleared", "note"), ("zeroed", "note"), ("counts on", None)],
)
def test_micro_batches_that_fill_no_step(end, severity, tmp_path):
    """Three epochs of eleven micro-batches, three to a step: two are left over."""
    model = nn.Sequential(nn.Linear(8, 6))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with earnest.watch(model, optimizer, tmp_path / "run") as watch:
        for n in range(33):
            if n % 11 == 0 and end in ("cleared", "zeroed"):
                optimizer.zero_grad(set_to_none=end == "cleared")
            (F.cross_entropy(model(torch.randn(4, 8)), torch.randint(0, 6, (4,))) / 3).backward()
            last = n % 11 == 10 and end == "a step"
            if last or (n if end == "counts on" else n % 11) % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
    assert not watch.guard.broken
    found = [one for one in watch.diagnosis().findings if one.rule == "D404"]
    assert [one.severity for one in found] == ([severity] if severity else [])
    assert not found or "2 micro-batches" in found[0].summary


def test_steps_that_a_scaler_skips_lose_no_micro_batches(tmp_path):
    """In half precision the first gradients are often infinite: the scaler takes no step, and they are thrown away."""
    model = llama(CLASSES, pad_token_id=PAD)
    optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler("cpu", init_scale=1e38)
    with earnest.watch(model, optimizer, tmp_path / "run") as watch:
        for batch in lm_batches(8):
            optimizer.zero_grad()
            scaler.scale(1e3 * model(**batch).loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert watch.step < 8 and not [one for one in watch.findings if one.rule == "D404"]


@pytest.mark.parametrize("layer", ["reentrant", "not reentrant"])
def test_checkpointing_is_one_backward_pass(layer, tmp_path):
    model = llama(CLASSES, pad_token_id=PAD)
    model.gradient_checkpointing_enable({"use_reentrant": layer == "reentrant"})
    model.enable_input_require_grads()
    watch = trained(model, None, lm_batches(4), tmp_path / "run")
    assert not watch.findings and read_run(tmp_path / "run").facts.accumulation_steps == 1


@pytest.mark.parametrize(
    ("more", "found"), [({}, "critical"), ({"modules_to_save": ["embed_tokens", "lm_head"]}, None), ("rows", None)]
)
def test_new_tokens_under_adapters(more, found, tmp_path):
    """Resizing draws the new rows around the mean of the old ones; adapters freeze the table, unless told otherwise."""
    model, added = llama(CLASSES - 40, pad_token_id=PAD), list(range(CLASSES - 40, CLASSES))
    model.resize_token_embeddings(CLASSES)
    options = {"trainable_token_indices": {"embed_tokens": added}} if more == "rows" else more
    adapted = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], **options)
    model = get_peft_model(model, adapted)
    checked = earnest.check(model, lm_batches(1)[0]).findings
    watched = trained(model, None, lm_batches(4), tmp_path / "run").findings
    for findings in (checked, watched):
        assert [one.severity for one in findings if one.rule == "C108"] == ([found] if found else [])


@pytest.mark.parametrize("right", [True, False])
def test_labels_padded_as_whisper_pads_them(right, tmp_path):
    """Padding and the end of a clip share an id: what stands behind the first end is no target, or all of it is."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=100, num_mel_bins=8, encoder_layers=1, decoder_layers=1, d_model=16, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2, max_source_positions=50,
        max_target_positions=64, pad_token_id=END, bos_token_id=END, eos_token_id=END, decoder_start_token_id=BEGIN,
    )  # fmt: skip
    labels = nn.utils.rnn.pad_sequence([ids[1:] for ids in clips(4)], batch_first=True, padding_value=END)
    if right:
        behind = torch.arange(labels.shape[1]) > labels.eq(END).int().argmax(1)[:, None]
        labels = labels.masked_fill(behind, -100)
    batch = {"input_features": torch.randn(4, 8, 100), "labels": labels}
    model = WhisperForConditionalGeneration(config)
    checked = earnest.check(model, batch).findings
    watched = trained(model.train(), None, [batch] * 4, tmp_path / "run").findings
    for findings in (checked, watched):
        assert [one.rule for one in findings if one.severity != "note"] == ([] if right else ["A305"])


@pytest.mark.parametrize("form", ["mean", "sum", "none", "smoothed", "of codebooks"])
def test_cross_entropies_of_every_form(form, tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(8, 50)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    target = torch.randint(0, 50, (4, 12))
    target[:, :5] = -100
    with earnest.watch(model, optimizer, tmp_path / "run") as watch:
        for _ in range(3):
            logits = model(torch.randn(4, 12, 8))
            if form == "of codebooks":
                loss = sum(F.cross_entropy(logits[:, c::3].flatten(0, 1), target[:, c::3].flatten()) for c in range(3))
            else:
                how = {"reduction": form} if form != "smoothed" else {"label_smoothing": 0.1}
                loss = F.cross_entropy(logits.transpose(1, 2), target, **how).sum()
            loss.backward()
            optimizer.step()
    assert not watch.guard.broken
    run = read_run(tmp_path / "run")
    streams = [str(key.stream) for key in run.series if key.name == "ce_nats"]
    assert streams == (["codebook_0", "codebook_1", "codebook_2"] if form == "of codebooks" else ["tokens"])
    right = F.cross_entropy(logits.flatten(0, 1), target.flatten()).item()
    values = [run[f"train/ce_nats/{stream}"].value[-1] for stream in streams]
    assert sum(values) / len(values) == pytest.approx(right, rel=0.03)


FAULTS = {
    "stock": None,
    "compute_loss without shift": "A203",
    "inputs dropped by Trainer": "C106",
    "inputs dropped by a wrapper": "C106",
    "adapter without gradient": "C102",
    "EOS masked": "A302",
    "padding trained": "A305",
    "LoRA": None,
    "another input": None,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_transformers_trainer(fault, tmp_path):
    model = llama(CLASSES, pad_token_id=PAD)
    rows = [{"input_ids": ids} for ids in clips()]
    if fault in ("another input", "inputs dropped by Trainer", "inputs dropped by a wrapper"):
        model = WithSpeaker() if fault == "another input" else Wrapper(WithSpeaker())
        rows = [row | {"speaker": torch.arange(4) % 3} for row in rows]
    if fault in ("LoRA", "adapter without gradient"):
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"]))
        if fault == "adapter without gradient":
            layer = model.base_model.model.model.layers[1].self_attn.q_proj
            layer.forward = lambda x, *args, **kwargs: layer.base_layer(x)
    removes = fault != "inputs dropped by a wrapper"
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to=[], per_device_train_batch_size=4, max_steps=24, logging_steps=5,
        save_strategy="no", disable_tqdm=True, remove_unused_columns=removes, eval_strategy="steps", eval_steps=12,
    )  # fmt: skip
    callback = earnest.TrainerCallback(stop_on="warning")
    kind = Unshifted if fault == "compute_loss without shift" else Trainer
    trainer = kind(
        model, args, partial(collate, fault=fault), train_dataset=rows, eval_dataset=rows[:4], callbacks=[callback]
    )
    trainer.train()
    assert not callback.watch.guard.broken
    found = [finding.rule for finding in callback.findings if finding.severity != "note"]
    run = read_run(tmp_path / "earnest")
    assert run.facts.trainer == "transformers"
    if FAULTS[fault] is None:
        assert not found and trainer.state.global_step == 24
        assert len(run["eval/loss"]) == 2 and len(run["eval/ce_nats/tokens"]) == 2
    else:
        assert FAULTS[fault] in found
        assert trainer.state.global_step == (7 if fault == "adapter without gradient" else 1)  # steps until it is told


class TakesLabels(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        return shifted(model(**inputs), labels)


def shifted(outputs, labels, num_items_in_batch=None):
    return F.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@pytest.mark.parametrize("own", ["compute_loss", "compute_loss_func", "label smoothing"])
def test_columns_that_a_loss_of_the_trainers_user_takes_are_not_dropped(own, tmp_path):
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to=[], max_steps=3, save_strategy="no", disable_tqdm=True,
        label_smoothing_factor=0.1 if own == "label smoothing" else 0.0,
    )  # fmt: skip
    callback, rows = earnest.TrainerCallback(), [{"input_ids": one, "labels": one} for one in clips()]
    (TakesLabels if own == "compute_loss" else Trainer)(
        llama(CLASSES, pad_token_id=PAD), args, collate, train_dataset=rows,
        compute_loss_func=shifted if own == "compute_loss_func" else None, callbacks=[callback],
    ).train()  # fmt: skip
    assert not callback.watch.guard.broken
    assert not [finding.rule for finding in callback.findings if finding.severity != "note"]


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("logs", [False, True])
def test_accelerate(wrong, logs, tmp_path):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    tracker = earnest.AccelerateTracker(tmp_path / "run")
    accelerator = Accelerator(cpu=True, log_with=[tracker], gradient_accumulation_steps=2)
    if logs:
        accelerator.init_trackers("run", {"lr": 1e-3})
    model = llama(CLASSES, pad_token_id=PAD)
    loader = torch.utils.data.DataLoader(clips(32), 4, collate_fn=collate)
    model, optimizer, loader = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), 1e-3), loader)
    for batch in loader:
        with accelerator.accumulate(model):
            loss = unshifted(model, batch) if wrong else model(**batch).loss
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
            if logs:
                accelerator.log({"val_loss": 3.0})
    accelerator.end_training() if logs else tracker.watch.close()
    AcceleratorState._reset_state(True)
    assert not tracker.watch.guard.broken and tracker.watch.step == 4
    assert [finding.rule for finding in tracker.findings] == (["A203"] if wrong else [])
    run = read_run(tmp_path / "run")
    assert run.facts.max_grad_norm == 0.5 and run["train/clipped_frac"].value.min() == 1
    assert ("eval/loss" in run) == logs


@pytest.mark.parametrize("wrong", [False, True])
def test_lightning(wrong, tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.lm = llama(CLASSES, pad_token_id=PAD)

        def training_step(self, batch, index):
            return unshifted(self.lm, batch) if wrong else self.lm(**batch).loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-3)

    callback = earnest.LightningCallback(stop_on="critical")
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(), torch.utils.data.DataLoader(clips(), 4, collate_fn=collate))
    assert not callback.watch.guard.broken
    assert [finding.rule for finding in callback.findings] == (["A203"] if wrong else [])
    assert trainer.global_step == callback.watch.step == (1 if wrong else 16)
    assert read_run(tmp_path / "earnest").facts.max_grad_norm == 1.0


GANS = {
    "right": None,
    "frozen": None,
    "polluted": "critical",
    "not detached": "warning",
    "not detached, not cleared": "critical",
}


@pytest.mark.parametrize("found", [False, True])
@pytest.mark.parametrize("fault", GANS)
def test_gan(fault, found, tmp_path):
    """`found`: models and optimizers are not handed over."""
    watch = gan(fault, lambda *both: earnest.watch(*(() if found else both), out=tmp_path / "run"))
    assert not watch.guard.broken
    assert [(one.rule, one.severity) for one in watch.findings] == ([("F403", GANS[fault])] if GANS[fault] else [])
    run = read_run(tmp_path / "run")
    assert {"train/loss/loss_g", "train/loss/loss_d", "train/grad_norm/discriminator"} <= set(map(str, run.series))


def test_a_bias_whose_gradient_cancels_is_reached(tmp_path):
    """The hinge loss of a discriminator whose outputs all lie within the margin pulls its last bias both ways."""
    torch.manual_seed(0)
    judge = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(judge.parameters(), 1e-4)
    with earnest.watch(judge, optimizer, tmp_path / "run") as watch:
        for _ in range(8):
            optimizer.zero_grad()
            (F.relu(1 - judge(torch.randn(16, 8))).mean() + F.relu(1 + judge(torch.randn(16, 8))).mean()).backward()
            assert judge[2].bias.grad == 0
            optimizer.step()
    found = read_run(tmp_path / "run").probes.gradients
    assert not watch.findings and found is not None and not found.without_gradient


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("clears", [True, False])
def test_gradients_that_nothing_clears(clears, micro_batches, tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(8, 6)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with earnest.watch(model, optimizer, tmp_path / "run") as watch:
        for _ in range(8):
            for _ in range(micro_batches):
                (F.cross_entropy(model(torch.randn(16, 8)), torch.randint(0, 6, (16,))) / micro_batches).backward()
            optimizer.step()
            if clears:
                optimizer.zero_grad()
    assert not watch.guard.broken and [one.rule for one in watch.findings] == ([] if clears else ["C109"])


def test_two_optimizers_of_one_loss_are_no_gan(tmp_path):
    torch.manual_seed(0)
    body, head = nn.Linear(8, 8), nn.Linear(8, 6)
    optimizers = {"matrices": torch.optim.SGD(body.parameters(), 1e-2), "rest": torch.optim.Adam(head.parameters())}
    watch = earnest.watch({"body": body, "head": head}, optimizers, tmp_path / "run")
    for n in range(24):
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        if n % 2:
            (head(torch.randn(8, 8)) ** 2).mean().backward()  # what both share
        F.cross_entropy(head(body(torch.randn(8, 8))), torch.randint(0, 6, (8,))).backward()
        for optimizer in optimizers.values():
            optimizer.step()
    watch.close()
    assert not watch.findings and not watch.guard.broken


def weights_after(watched, tmp_path):
    torch.manual_seed(0)
    model = llama(CLASSES, pad_token_id=PAD, attention_dropout=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with earnest.watch(model, optimizer, tmp_path / "run") if watched else contextlib.nullcontext():
        for batch in lm_batches(8):
            model(**batch).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
    return model.state_dict(), torch.get_rng_state()


def test_a_watched_training_is_the_same_bit_by_bit(tmp_path):
    (alone, random), (watched, random_watched) = weights_after(False, tmp_path), weights_after(True, tmp_path)
    assert all(torch.equal(alone[name], watched[name]) for name in alone) and torch.equal(random, random_watched)


def test_nothing_of_a_batch_is_held_once_its_step_is_over(tmp_path):
    """Hooks that hold the graph in which they stand are seen by no collector of garbage."""

    def activations() -> set[int]:
        gc.collect()
        of_batch = (one for one in gc.get_objects() if type(one) is torch.Tensor and one.ndim == 3)
        return {id(one) for one in of_batch}

    model = llama(CLASSES, pad_token_id=PAD)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    before = activations()
    with earnest.watch(model, optimizer, tmp_path / "run") as watch:
        for batch in lm_batches(2):
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert activations() <= before
    assert read_run(watch.out).probes.alignment


def test_a_broken_monitor_is_reported_once_and_the_training_goes_on(tmp_path, monkeypatch, capsys):
    def broken(*args):
        raise RuntimeError("out of cheese")

    monkeypatch.setattr(Tokens, "score", broken)
    watch = earnest.watch(
        model := llama(CLASSES), optimizer := torch.optim.SGD(model.parameters(), 0.1), tmp_path / "run"
    )
    for batch in lm_batches(5):
        model(**batch).loss.backward()
        optimizer.step()
    watch.close()
    assert capsys.readouterr().err.count("out of cheese") == 1 and list(watch.guard.broken) == ["Tokens"]
    assert len(read_run(tmp_path / "run")["train/loss"]) == 5


def test_stop_on_ends_a_plain_loop(tmp_path):
    with pytest.raises(TrainingStopped, match="A203"):
        trained(llama(CLASSES), unshifted, lm_batches(9), tmp_path / "run", stop_on="critical")
    assert read_run(tmp_path / "run").last_step == 1
    with pytest.raises(earnest.errors.UserError, match="stop_on"):
        earnest.watch(stop_on="fatal", out=tmp_path / "other")


@pytest.mark.parametrize("door", [earnest.watch, earnest.TrainerCallback, earnest.LightningCallback])
@pytest.mark.parametrize("wrong", [{"stop_on": "criticl"}, {"every": 0}, {"facts": {"colour": "blue"}}])
def test_a_wrong_argument_is_told_before_the_training_begins(door, wrong, tmp_path):
    with pytest.raises(UserError, match=next(iter(wrong)).rstrip("s")):
        door(out=tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


def test_a_directory_that_is_taken_gets_a_number(tmp_path):
    for _ in range(2):
        earnest.watch(nn.Linear(2, 2), out=tmp_path / "run").close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2"]


def test_the_tracker_in_use_is_told(tmp_path, monkeypatch):
    told = []
    alert = lambda **said: told.append(said)  # noqa: E731
    fakes = {
        "wandb": types.SimpleNamespace(run=types.SimpleNamespace(alert=alert)),
        "trackio": types.SimpleNamespace(
            alert=alert,
            AlertLevel=types.SimpleNamespace(ERROR="error"),
            context_vars=types.SimpleNamespace(current_run=types.SimpleNamespace(get=lambda: object())),
        ),
        "mlflow": types.SimpleNamespace(
            active_run=lambda: object(), set_tag=lambda name, text: told.append({name: text})
        ),
    }
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, name, fake)
    trained(llama(CLASSES), unshifted, lm_batches(3), tmp_path / "run")
    assert [one.get("level") for one in told] == ["ERROR", "error", None]
    assert told[0]["title"] == "earnest A203 labels-misaligned" and "earnest.A203" in told[2]


def test_killed_runs_keep_what_was_seen(tmp_path):
    code = f"""
import os, signal, torch, earnest
model = torch.nn.Linear(8, 30)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
earnest.watch(model, optimizer, {str(tmp_path / "run")!r})
for n in range(30):
    torch.nn.functional.cross_entropy(model(torch.randn(8, 8)), torch.randint(0, 30, (8,))).backward()
    optimizer.step()
    if n == 15:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | {"PYTHONPATH": os.getcwd()}
    )
    assert done.returncode == -signal.SIGKILL
    run = read_run(tmp_path / "run")
    assert run.last_step == 16 and len(run["train/ce_nats/tokens"]) == 16


def test_import_brings_no_torch_and_names_are_functions():
    code = "import sys, earnest; assert 'torch' not in sys.modules; assert callable(earnest.watch)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_measure():
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (3, 40))
    logits = F.one_hot(ids, 50).float() * 20
    said = earnest.measure(logits[:, :-1], ids[:, 1:], ids[:, :-1])
    assert said["copy_frac"] == 1 and said["accuracy_frac"] < 0.1 and said["ce_nats"] > said["chance_nats"]
    assert said["counted_frac"] == 1 and sum(said["label_counts"].values()) == 3 * 39
    masked = earnest.measure(logits, torch.full_like(ids, -100))
    assert masked["counted_frac"] == 0 and "ce_nats" not in masked
    with pytest.raises(ValueError, match="same rows"):
        earnest.measure(logits, ids[:, 1:])


def _under_ddp(out: Path) -> list[list[str]]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    found = []
    for loss_fn in (None, unshifted):
        model = nn.parallel.DistributedDataParallel(llama(CLASSES, pad_token_id=PAD))
        watch = trained(model, loss_fn, lm_batches(4), out / str(loss_fn))
        found.append([one.rule for one in watch.findings])
    torch.distributed.destroy_process_group()
    return found


def test_a_model_that_is_wrapped_for_several_processes(tmp_path):
    """DistributedDataParallel hides the model behind its own forward pass and sums gradients by hooks."""
    assert in_a_process(_under_ddp, tmp_path) == [[], ["A203"]]


def one_loop(step, tmp_path, model=None, steps=8):
    """`step(model, optimizer, loss)` under watch, on random classes; the findings."""
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 6))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with earnest.watch(model, optimizer, tmp_path / "run") as watch:
        for number in range(steps):
            logits, target = model(torch.randn(16, 8)), torch.randint(0, 6, (16,))
            step(number, model, optimizer, logits, target)
    assert not watch.guard.broken
    return [one.rule for one in watch.findings]


def plain_step(model, optimizer, loss, clip=None):
    optimizer.zero_grad()
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()


@pytest.mark.parametrize(
    "loss, found",
    [
        (lambda z, y: F.cross_entropy(z, y), []),
        (lambda z, y: F.cross_entropy(z.log_softmax(-1), y), []),
        (lambda z, y: F.nll_loss(z.log_softmax(-1), y), []),
        (lambda z, y: F.nll_loss((z.softmax(-1) + 1e-6).log(), y), []),
        (lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], y.float().clamp(max=1)), []),
        (lambda z, y: F.kl_div(z.log_softmax(-1), F.one_hot(y, 6).float(), reduction="batchmean"), []),
        (lambda z, y: F.cross_entropy(z.softmax(-1), y), ["A208"]),
        (lambda z, y: F.cross_entropy(z.softmax(-1)[None].movedim(1, 2), y[None]), ["A208"]),
        (lambda z, y: F.nll_loss(z, y), ["A208"]),
        (lambda z, y: F.nll_loss(z.softmax(-1), y), ["A208"]),
        (lambda z, y: F.kl_div(z.softmax(-1), F.one_hot(y, 6).float(), reduction="batchmean"), ["A208"]),
        (
            lambda z, y: F.binary_cross_entropy_with_logits(
                z.sigmoid()[:, 0].unsqueeze(1), y.float().clamp(max=1)[:, None]
            ),
            ["A208"],
        ),
    ],
)
def test_what_a_loss_is_given(loss, found, tmp_path):
    def step(number, model, optimizer, logits, target):
        plain_step(model, optimizer, loss(logits, target))

    assert one_loop(step, tmp_path) == found


@pytest.mark.parametrize("forgets_no_grad", [False, True])
@pytest.mark.parametrize("forgets, from_step", [(False, 0), (True, 0), (True, 4)])
def test_training_in_evaluation_mode(forgets, from_step, forgets_no_grad, tmp_path):
    def step(number, model, optimizer, logits, target):
        plain_step(model, optimizer, F.cross_entropy(logits, target))
        if number + 1 >= from_step:
            model.eval()
            with torch.set_grad_enabled(forgets_no_grad):
                F.cross_entropy(model(torch.randn(4, 8)), torch.randint(0, 6, (4,)))
            model.train(not forgets)

    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 6))
    model.train(not (forgets and from_step == 0))
    assert one_loop(step, tmp_path, model) == (["C110"] if forgets else [])
    run = read_run(tmp_path / "run")
    assert {str(name.stream) for name in run.series if name.split == "eval"} <= {"tokens"}
    assert run.facts.classes, "the first step is traced all the same"
    if forgets:
        assert run.probes.evaluation_mode[0].since_step == from_step + 1


def test_a_part_in_evaluation_mode_is_a_choice(tmp_path):
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16)), nn.Linear(16, 6))
    model[0].eval()

    def step(number, model, optimizer, logits, target):
        plain_step(model, optimizer, F.cross_entropy(logits, target))

    assert one_loop(step, tmp_path, model) == []


@pytest.mark.parametrize("clips", ["before", "between", "after"])
def test_where_gradients_are_clipped(clips, tmp_path):
    def step(number, model, optimizer, logits, target):
        optimizer.zero_grad()
        if clips == "before":
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        F.cross_entropy(logits, target).backward()
        if clips == "between":
            nn.utils.clip_grad_norm_(model.parameters(), 50.0)
        optimizer.step()
        if clips == "after":
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)

    assert one_loop(step, tmp_path) == ([] if clips == "between" else ["D306"])
    norms = {str(name): series.value for name, series in read_run(tmp_path / "run").series.items()}["train/grad_norm"]
    assert norms.min() > 0, "of the gradients that the step uses"


@pytest.mark.parametrize("moves", [False, True])
def test_a_loop_without_a_step(moves, tmp_path):
    def step(number, model, optimizer, logits, target):
        F.cross_entropy(logits, target).backward()
        if moves:  # an optimizer of somebody's own
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 1e-3 * parameter.grad

    assert one_loop(step, tmp_path, steps=210) == ([] if moves else ["C111"])


class Quantiser(nn.Module):
    """One codebook without restarts."""

    def __init__(self, size, spread):
        super().__init__()
        self.codebook = nn.Embedding(size, 4)
        self.codebook.weight.data.mul_(spread)

    def forward(self, z_ND):
        codes_N = torch.cdist(z_ND, self.codebook.weight).argmin(1)
        return z_ND + (self.codebook(codes_N) - z_ND).detach(), {"codes": codes_N}


class ResidualQuantiser(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, z_ND):
        total_ND, codes = torch.zeros_like(z_ND), []
        for layer in self.layers:
            part_ND, found = layer(z_ND - total_ND.detach())
            total_ND = total_ND + part_ND
            codes.append(found["codes"])
        return total_ND, torch.stack(codes)


@pytest.mark.parametrize("collapses", [False, True])
def test_use_of_codebooks(collapses, tmp_path):
    """Of a residual quantiser its layers count, one codebook each; of one that collapses all vectors take one entry."""
    torch.manual_seed(0)
    first = Quantiser(32, 1.0)
    if collapses:
        first.codebook.weight.data[1:] += 100
    model = nn.Sequential(nn.Linear(8, 4), ResidualQuantiser(first, Quantiser(16, 0.5)))
    optimizer = torch.optim.SGD(model[0].parameters(), 1e-4)
    with earnest.watch(model, optimizer, tmp_path / "run") as watch:
        for _ in range(60):
            optimizer.zero_grad()
            z_ND, codes_KN = model(torch.randn(200, 8))
            z_ND.square().mean().backward()
            optimizer.step()
    assert not watch.guard.broken and codes_KN.shape == (2, 200)
    run = read_run(tmp_path / "run")
    used = {str(name): series.value for name, series in run.series.items() if name.name in ("used_frac", "perplexity")}
    assert set(used) == {f"train/{signal}/codebook_{k}" for signal in ("used_frac", "perplexity") for k in (0, 1)}
    assert used["train/used_frac/codebook_0"][0] == (1 / 32 if collapses else pytest.approx(1, abs=0.6))
    assert (run.facts.codebook_size, run.facts.usage_window_frames) == (32, 200)
    assert ("F301" in [one.rule for one in watch.findings]) == collapses


@pytest.mark.parametrize("first", ["discriminator", "generator"])
@pytest.mark.parametrize("left_out", [False, True])
def test_parameters_in_none_of_two_optimizers(left_out, first, tmp_path):
    """Of models that nobody hands over, the second is found when its optimizer steps."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    discriminator = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    trained = generator[0] if left_out else generator
    optimizers = {
        "generator": torch.optim.Adam(trained.parameters(), 1e-4),
        "discriminator": torch.optim.Adam(discriminator.parameters(), 1e-4),
    }
    with earnest.watch(out=tmp_path / "run") as watch:
        for _ in range(10):
            real = torch.randn(16, 8)
            for name in sorted(optimizers, reverse=first == "generator"):
                fake = generator(real)
                if name == "generator":
                    loss = (fake - real).square().mean() - 0.1 * discriminator(fake).mean()
                else:
                    scores = discriminator(real), discriminator(fake.detach())
                    loss = F.relu(1 - scores[0]).mean() + F.relu(1 + scores[1]).mean()
                for optimizer in optimizers.values():
                    optimizer.zero_grad()
                loss.backward()
                optimizers[name].step()
    assert not watch.guard.broken and [one.rule for one in watch.findings] == (["C105"] if left_out else [])
    missing = read_run(tmp_path / "run").probes.optimizer.missing
    assert [name.rpartition("2.")[2] for name in missing] == (["weight", "bias"] if left_out else [])


@pytest.mark.parametrize("detached, frozen, rules", [(False, False, []), (True, False, ["F405"]), (False, True, [])])
def test_an_adversarial_loss_that_reaches_nobody(detached, frozen, rules, tmp_path):
    torch.manual_seed(0)
    generator, discriminator = nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    models = {"generator": generator, "discriminator": discriminator}
    optimizers = {name: torch.optim.Adam(model.parameters(), 1e-4) for name, model in models.items()}
    with earnest.watch(models, optimizers, tmp_path / "run") as watch:
        for _ in range(60):
            real = torch.randn(16, 8)
            fake = generator(real + 0.1 * torch.randn(16, 8))
            optimizers["discriminator"].zero_grad()
            loss = F.relu(1 - discriminator(real)).mean() + F.relu(1 + discriminator(fake.detach())).mean()
            loss.backward()
            optimizers["discriminator"].step()
            optimizers["generator"].zero_grad()
            discriminator.requires_grad_(not frozen)
            scores = discriminator(fake.detach() if detached else fake)
            ((fake - real).square().mean() - 0.1 * scores.mean()).backward()
            discriminator.requires_grad_(True)
            optimizers["generator"].step()
            optimizers["discriminator"].zero_grad()
    assert not watch.guard.broken and [one.rule for one in watch.findings] == rules


@pytest.mark.parametrize("given", [False, True])
def test_an_optimizer_that_is_made_anew_in_every_step(given, tmp_path):
    """The steps of all of them are those of one training."""
    model = nn.Linear(8, 6)
    first = torch.optim.AdamW(model.parameters())
    with earnest.watch(model, first if given else None, tmp_path / "run") as watch:
        for _ in range(30):
            optimizer = torch.optim.AdamW(model.parameters())
            F.cross_entropy(model(torch.randn(4, 8)), torch.randint(0, 6, (4,))).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert not watch.guard.broken and list(watch.seen.optimizers.values()) == [optimizer]
    assert read_run(tmp_path / "run")["train/loss"].step.tolist() == [*range(1 if given else 2, 21), 30]


def test_an_optimizer_of_another_model(tmp_path):
    """The model was made anew after the optimizer, so that no optimizer holds what is trained."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(nn.Linear(8, 6).parameters(), 1e-3)
    model = nn.Linear(8, 6)
    with earnest.watch(out=tmp_path / "run") as watch:
        for _ in range(4):
            plain_step(model, optimizer, F.cross_entropy(model(torch.randn(16, 8)), torch.randint(0, 6, (16,))))
    assert not watch.guard.broken and [one.rule for one in watch.findings] == ["C105"]
