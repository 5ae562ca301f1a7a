"""`earnest.check`: public trainers in miniature are named by their fault, right ones are not accused, and nothing is
left changed."""

import contextlib
import copy
import ctypes
import dataclasses
import resource
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BatchEncoding, Trainer, TrainingArguments

import earnest
from benchmarks.trainers import table
from earnest.errors import UserError
from earnest.probes.trace.read import where
from earnest.probes.trace.record import Line
from earnest.streams import Part
from tests.equipment.processes import in_a_process
from tests.trainers import CASES
from tests.trainers.case import Case, llama
from tests.trainers.single_stream import CLASSES, batch, everything, speech_only, unshifted


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_trainers(case: Case):
    model, inputs, loss_fn = case.build()
    if case.refused:
        with pytest.raises(UserError, match=case.refused):
            earnest.check(model, inputs, loss_fn)
        return
    found = earnest.check(model, inputs, loss_fn).findings
    if case.faults:
        assert set(case.faults) <= {finding.rule for finding in found}
    else:
        assert not [finding for finding in found if finding.severity != "note"]


def test_the_page_of_public_trainers():
    """It is what its records say: 19 of 21 faults are named, nobody is accused, 12 ran unmodified."""
    rows = [row for row in table.rows() if row.known["family"] != "not in the table"]
    assert table.PAGE.read_text(encoding="utf-8") == table.page()
    assert len(rows) == len([case for case in CASES if case.name in {row.known["name"] for row in rows}]) == 38
    assert sum(row.named for row in rows if row.known["faulty"]) >= 19
    assert not [row for row in table.rows() if row.accused]
    assert sum(row.ran and row.found["how"] == "unmodified" for row in rows) >= 12


def offset_of(model, inputs, loss_fn=None) -> str:
    findings = [one for one in earnest.check(model, inputs, loss_fn).findings if one.rule == "A203"]
    return findings[0].summary if findings else "right"


def test_line_of_the_loss_and_what_was_taken_for_what():
    found = earnest.check(llama(CLASSES), batch(speech_only), unshifted)
    misaligned = next(one for one in found.findings if one.rule == "A203")
    assert "single_stream.py:" in str(misaligned.evidence[0]["where"])
    assert misaligned.streams == (Part("tokens"),)
    assert "lm_head.weight (126 classes)" in found.mapping["tokens"] and "single_stream.py:" in found.mapping["tokens"]


def test_line_of_a_loss_is_never_one_of_the_standard_library():
    """accelerate's autocast wraps a model's forward in contextlib's decorator."""
    inside, own = Line(contextlib.__file__, 81, "inner"), Line("train.py", 7, "main")
    assert where([inside, own]) == "train.py:7"


@dataclasses.dataclass(frozen=True)
class Inputs:
    input_ids: torch.Tensor
    labels: torch.Tensor


@pytest.mark.parametrize("form", [dict, BatchEncoding, Inputs, tuple, list])
def test_any_form_of_batch(form):
    inputs = {name: value for name, value in batch(speech_only).items() if name != "attention_mask"}
    made = (
        form(**inputs) if form is Inputs else form(inputs) if form in (dict, BatchEncoding) else form(inputs.values())
    )

    def loss(model, batch):
        ids, labels = batch if form in (tuple, list) else (vars(batch) if form is Inputs else batch).values()
        return F.cross_entropy(model(input_ids=ids).logits.flatten(0, 1), labels.flatten())

    assert offset_of(llama(CLASSES), made, loss) == "a label at position t is predicted from t itself, not t - 1"


@pytest.mark.parametrize("slope", [1, 3])
def test_ids_that_count_up_are_their_own_labels(slope):
    """A label is the id before it and one more, too: that is no other place."""
    ids = torch.arange(12).repeat(3, 1) * slope + torch.tensor([[3], [17], [40]])
    counting = {"input_ids": ids, "labels": ids}
    found = earnest.check(llama(CLASSES), counting, lambda model, batch: model(**batch).loss)
    assert "A203" not in [one.rule for one in found.findings]
    assert "itself" in offset_of(llama(CLASSES), counting, unshifted)


def test_several_losses_and_a_loss_that_calls_backward_itself():
    def several(model, batch):
        return {"loss_a": unshifted(model, batch), "loss_b": model(**batch).loss, "step": torch.tensor(3.0)}

    def itself(model, batch):
        unshifted(model, batch).backward()

    assert "itself" in offset_of(llama(CLASSES), batch(speech_only), several)
    assert "itself" in offset_of(llama(CLASSES), batch(speech_only), itself)


def test_a_transformers_trainer(tmp_path):
    class Wrong(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return unshifted(model, inputs)

    rows = [{name: value[n] for name, value in batch(speech_only).items()} for n in range(3)]
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], per_device_train_batch_size=3)
    assert "itself" in offset_of(Wrong(llama(CLASSES), args, train_dataset=rows), None)
    assert offset_of(Trainer(llama(CLASSES), args, train_dataset=rows), None) == "right"


def test_nothing_is_left_changed():
    model, inputs = llama(CLASSES, attention_dropout=0.1), batch(speech_only)
    model.train()
    model.model.layers[0].eval()
    model.lm_head.weight.data.zero_()
    model.register_buffer("calls", torch.zeros(1))
    model.register_forward_pre_hook(lambda module, args: module.calls.add_(1) and None)
    model(**inputs).loss.backward()
    weights, grads = copy.deepcopy(model.state_dict()), {n: p.grad.clone() for n, p in model.named_parameters()}
    modes, hooks = [m.training for m in model.modules()], len(model._forward_pre_hooks)
    rng, before = torch.get_rng_state(), {name: value.clone() for name, value in inputs.items()}
    earnest.check(model, inputs)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in weights.items())
    assert all(torch.equal(grads[n], p.grad) for n, p in model.named_parameters())
    assert modes == [m.training for m in model.modules()] and hooks == len(model._forward_pre_hooks)
    assert all(torch.equal(before[name], inputs[name]) for name in before)


def test_twice_the_same():
    model, inputs, loss_fn = CASES[0].build()
    assert earnest.check(model, inputs, loss_fn) == earnest.check(model, inputs, loss_fn)


def test_dropout_does_not_hide_anything():
    model = llama(CLASSES, attention_dropout=0.5).train()
    assert offset_of(model, batch(speech_only)) == "right"
    assert "itself" in offset_of(model, batch(speech_only), unshifted)


def test_attention_that_looks_ahead():
    model = llama(CLASSES)
    for layer in model.model.layers:
        layer.self_attn.is_causal = False
    inputs = batch(everything)
    ahead = torch.zeros(3, 1, *[inputs["input_ids"].shape[1]] * 2)
    found = earnest.check(model, {**inputs, "attention_mask": ahead}).findings
    assert {"A203", "A205"} & {one.rule for one in found} and found[0].severity == "critical"


def test_padding_taught_as_the_end_and_as_nothing():
    inputs = batch(speech_only)
    padded = inputs["labels"].masked_fill((inputs["labels"] == -100) & (inputs["attention_mask"] == 0), 61)
    found = earnest.check(llama(CLASSES), {**inputs, "labels": padded}).findings
    assert [one.rule for one in found] == ["A305"]
    two = {name: value[:2] for name, value in inputs.items()}
    assert any(one.rule == "A305" and "3 clips" in one.needs for one in earnest.check(llama(CLASSES), two).not_checked)


@pytest.mark.parametrize("end, found", [(30, []), (5, ["A305"])])
def test_clips_that_are_cut_or_padded_to_one_length(end, found):
    """Padding of equal length, by an id that is a token too, is more than half of every clip."""
    ids = torch.randint(3, 60, (4, 32), generator=torch.Generator().manual_seed(0))
    ids[:, end:] = 7
    told = earnest.check(llama(CLASSES), {"input_ids": ids, "labels": ids.clone()}).findings
    assert [one.rule for one in told if one.severity != "note"] == found


def test_padding_behind_the_end_in_two_clips():
    """The end is what stands before the padding, whatever the configuration calls the end."""
    model, inputs = llama(CLASSES, pad_token_id=None), batch(speech_only)
    model.config.eos_token_id = 5
    padded = inputs["labels"].masked_fill((inputs["labels"] == -100) & (inputs["attention_mask"] == 0), 0)
    two = {name: value[1:] for name, value in {**inputs, "labels": padded}.items()}
    two["labels"] = F.pad(two["labels"], (0, 9), value=0)
    two["input_ids"], two["attention_mask"] = (F.pad(two[name], (0, 9)) for name in ("input_ids", "attention_mask"))
    assert [one.rule for one in earnest.check(model, two).findings] == ["A305"]


def test_first_token_untaught():
    def masked(ids, prompt):
        return torch.where(torch.arange(len(ids)) <= prompt, -100, ids)

    assert "A306" in {one.rule for one in earnest.check(llama(CLASSES), batch(masked)).findings}


def test_mean_over_padding():
    def mean(model, batch):
        logits, labels = model(input_ids=batch["input_ids"]).logits[:, :-1], batch["labels"][:, 1:]
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").mean()

    model, inputs = llama(CLASSES), batch(speech_only)
    assert not earnest.check(model, inputs).findings
    found = earnest.check(model, inputs, mean).findings
    assert "D403" in {one.rule for one in found}


def test_arguments_that_never_arrive():
    class Swallows(nn.Module):
        def __init__(self):
            super().__init__()
            self.lm = llama(CLASSES)

        def forward(self, input_ids, labels, **more):
            return self.lm(input_ids=input_ids, labels=labels)

    inputs = batch(speech_only)
    inputs["speaker"] = torch.arange(6).reshape(3, 2)
    found = earnest.check(Swallows(), inputs).findings
    assert next(one for one in found if one.rule == "C106").summary == "dropped on the way: speaker"


def test_parameters_that_no_gradient_or_optimizer_reaches():
    model = llama(CLASSES)
    model.forgotten = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(list(model.model.parameters()))
    found = {one.rule: one for one in earnest.check(model, batch(speech_only), None, optimizer).findings}
    assert found["C102"].severity == "note" and "forgotten.weight" in found["C102"].summary
    assert "lm_head.weight" in found["C105"].summary


def test_frozen_norms_that_move():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.lm, self.norm = llama(CLASSES), nn.BatchNorm1d(CLASSES).requires_grad_(False)

        def forward(self, input_ids, labels, attention_mask):
            logits = self.norm(self.lm(input_ids=input_ids).logits.transpose(1, 2)).transpose(1, 2)
            return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    assert "C104" in {one.rule for one in earnest.check(Normed(), batch(speech_only)).findings}


def test_a_model_that_starts_at_zero():
    model = llama(CLASSES)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert "itself" in offset_of(model, batch(speech_only), unshifted)
    assert not model.lm_head.weight.any()


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda model, inputs: (model.requires_grad_(False), inputs, None), "nothing is trained"),
        (lambda model, inputs: (model, {"labels": inputs["labels"]}, None), "input_ids"),
        (lambda model, inputs: (model, inputs, lambda model, batch: None), "calls no backward"),
        (
            lambda model, inputs: (model, inputs, lambda model, batch: unshifted(model, batch).detach()),
            "without a gradient",
        ),
        (lambda model, inputs: (model, inputs, lambda model, batch: model(**batch).logits), "one number"),
        (lambda model, inputs: (model, {"input_ids": inputs["input_ids"]}, None), "without a loss"),
        (lambda model, inputs: (model, {n: v.to("meta") for n, v in inputs.items()}, None), "batch on meta"),
        (lambda model, inputs: (inference(model), inputs, None), "inference mode"),
        (lambda model, inputs: (nn.LazyLinear(2), torch.zeros(1, 3), None), "lazy layers"),
        (lambda model, inputs: (model, inputs, lambda model, batch: model(**batch).loss * torch.nan), "a loss of nan"),
        (lambda model, inputs: (quantised(model), inputs, None), "nothing is trained .parameters: float32, int8"),
    ],
)
def test_what_cannot_be_checked_is_said_in_three_lines(change, seen):
    with pytest.raises(UserError, match=seen) as error:
        earnest.check(*change(llama(CLASSES), batch(speech_only)))
    assert len(str(error.value).splitlines()) == 3


def inference(model):
    with torch.inference_mode():
        return copy.deepcopy(model)


def quantised(model):
    """As loaders in 8 bits leave a model: integers, and a few floats, none of which is trained."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.mul(100).to(torch.int8), requires_grad=False)
    return model.requires_grad_(False)


def test_memory_of_130000_rows_of_vocabulary():
    """Beyond a training step a check holds a few chunks of logits, never all in double precision."""
    in_a_process(_check_with_130000_rows)


def _check_with_130000_rows() -> None:
    few = torch.randint(0, 100, (3, 64))
    earnest.check(llama(100), {"input_ids": few, "labels": few})  # what it imports is not measured
    ctypes.CDLL(None).mallopt(
        -3, 2**20
    )  # M_MMAP_THRESHOLD: what is freed is given back, so that only what is held counts
    model = llama(130_000, num_hidden_layers=1)
    inputs = {"input_ids": torch.randint(0, 130_000, (3, 64)), "labels": torch.randint(0, 130_000, (3, 64))}
    logits_mb = 3 * 64 * 130_000 * 4 / 2**20
    model(**inputs).loss.backward()
    before = peak_mb()
    earnest.check(model, inputs)
    assert peak_mb() - before <= 2 * logits_mb


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_continuous_losses_are_said_and_not_judged():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    found = earnest.check(model, torch.randn(4, 8), lambda model, x: F.mse_loss(model(x), x))
    assert not found.findings and "mse_loss" in found.mapping["nothing"]


@pytest.mark.parametrize(("shift", "said"), [(1, "right"), (0, "itself")])
def test_a_term_beside_the_cross_entropy(shift, said):
    """A z-loss reaches the rows that no label is scored on, too."""

    def loss(model, batch):
        logits = model(input_ids=batch["input_ids"]).logits
        rows, labels = logits[:, : logits.shape[1] - shift], batch["labels"][:, shift:]
        return F.cross_entropy(rows.flatten(0, 1), labels.flatten()) + 1e-4 * logits.logsumexp(-1).square().mean()

    assert said in offset_of(llama(CLASSES), batch(speech_only), loss)


def test_ids_of_unequal_length_in_one_nested_tensor():
    clips = torch.nested.nested_tensor([torch.arange(5), torch.arange(3)], layout=torch.jagged)
    model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))

    def loss(model, batch):
        pairs = zip(model(batch).unbind(), batch.unbind(), strict=True)
        return torch.stack([F.cross_entropy(logits[:-1], ids[1:]) for logits, ids in pairs]).mean()

    assert not earnest.check(model, clips, loss).findings


def test_label_smoothing_is_said():
    def smoothed(model, batch):
        logits = model(input_ids=batch["input_ids"]).logits
        return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), label_smoothing=0.1)

    assert "itself" in offset_of(llama(CLASSES), batch(speech_only), smoothed)


def test_streams_are_inferred():
    model, inputs, loss_fn = next(case for case in CASES if case.name.startswith("transformers Higgs")).build()
    found = earnest.check(model, inputs, loss_fn)
    assert list(found.mapping) == ["codebook_0 ... codebook_3"]


def test_import_earnest_brings_no_torch():
    code = "import sys, earnest; sys.exit('torch' in sys.modules or not callable(earnest.check))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class Fused(torch.autograd.Function):
    """Cross-entropy of hidden states and a table, in chunks: no logits are left, and no graph leads to them."""

    @staticmethod
    def forward(ctx, hidden_ND, table_VD, labels_N):
        counted, slopes, total = labels_N != -100, [], 0.0
        for hidden, labels in zip(hidden_ND.split(7), labels_N.split(7), strict=True):
            logits = hidden @ table_VD.T
            kept = (labels != -100)[:, None]
            slope = (logits.softmax(-1) - F.one_hot(labels.clamp(min=0), len(table_VD))) * kept / counted.sum()
            slopes.append(slope @ table_VD)
            total = total + F.cross_entropy(logits, labels, reduction="sum") / counted.sum()
        ctx.save_for_backward(torch.cat(slopes))
        return total

    @staticmethod
    def backward(ctx, slope):
        return slope * ctx.saved_tensors[0], None, None


@pytest.mark.parametrize(("shift", "said"), [(1, "right"), (0, "from t itself"), (2, "from t - 2")])
def test_a_fused_loss_without_logits(shift, said):
    def fused(model, batch):
        states = model.model(input_ids=batch["input_ids"]).last_hidden_state
        labels = F.pad(batch["labels"][:, shift:], (0, shift), value=-100)
        return Fused.apply(states.flatten(0, 1), model.lm_head.weight, labels.flatten())

    assert said in offset_of(llama(CLASSES), batch(everything), fused)


@pytest.mark.parametrize(("shift", "said"), [(1, "right"), (0, "from t itself")])
def test_a_loss_in_chunks(shift, said):
    def chunks(model, batch):
        states = model.model(input_ids=batch["input_ids"]).last_hidden_state
        labels = F.pad(batch["labels"][:, shift:], (0, shift), value=-100)
        each = zip(states.flatten(0, 1).split(16), labels.flatten().split(16), strict=True)
        total = sum(F.cross_entropy(model.lm_head(h), y, ignore_index=-100, reduction="sum") for h, y in each)
        return total / (labels != -100).sum()

    found = earnest.check(llama(CLASSES), batch(everything), chunks)
    assert list(found.mapping) == ["tokens"] and said in offset_of(llama(CLASSES), batch(everything), chunks)


def test_the_target_in_the_prompt():
    inputs = batch(speech_only)
    for ids in inputs["input_ids"]:
        start = int((ids == 60).nonzero()) + 1
        ids[1 : start - 2] = 3
    twice = {
        "input_ids": torch.cat([inputs["input_ids"], inputs["input_ids"]], 1),
        "labels": torch.cat([torch.full_like(inputs["labels"], -100), inputs["labels"]], 1),
    }
    found = {one.rule for one in earnest.check(llama(CLASSES), twice).findings}
    assert "A207" in found and "A203" not in found
