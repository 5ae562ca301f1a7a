"""Weights in bfloat16 under a plain optimizer: seen before training, by `earnest.check` and in a run; and mended in
ours."""

import torch
from torch import nn
from torch.nn import functional as F

import earnest
from benchmarks.bf16_weights import measure
from earnest.monitors.gradients import MOVED_STEPS, Updates
from earnest.probes.results import Results
from earnest.probes.rounding import low_precision
from earnest.rules import diagnose
from earnest.run import Run, Step
from tests.equipment.tiny import tiny_higgs


class Compensated(torch.optim.Optimizer):
    """SGD with Kahan's sum: what rounding takes is kept for the next step."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                rest = self.state[weight].setdefault("rest", torch.zeros_like(weight))
                rest.sub_(weight.grad, alpha=group["lr"])
                before = weight.clone()
                weight.add_(rest)
                rest.sub_(weight - before)


def model(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(32, 16), nn.Linear(16, 32)).to(dtype)


def test_a_plain_optimizer_on_bf16_is_found_and_one_that_keeps_more_is_not():
    plain = model(torch.bfloat16)
    (found,) = low_precision(plain, torch.optim.AdamW(plain.parameters(), lr=2e-5))
    assert (found.type, found.parameters, found.keeps_more) == ("bfloat16", found.trained, False)
    assert found.still_frac is not None and found.still_frac > 0.5
    (kept,) = low_precision(plain, Compensated(plain.parameters()))
    assert kept.keeps_more is True
    assert low_precision(model(torch.float32), None) == ()
    whole = [finding.rule for finding in diagnose(Run.of(probes=Results(low_precision=(found,)))).findings]
    assert "C107" in whole
    assert not diagnose(Run.of(probes=Results(low_precision=(kept,)))).findings


def test_check_tells_it_before_training():
    torch.manual_seed(0)
    batch = {"ids": torch.randint(0, 32, (4, 9))}

    def loss_fn(model, batch):
        logits = model(batch["ids"][:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), batch["ids"][:, 1:].flatten())

    for dtype, expected in ((torch.bfloat16, True), (torch.float32, False)):
        ours = model(dtype)
        optimizer = torch.optim.AdamW(ours.parameters(), lr=2e-5)
        found = earnest.check(ours, batch, loss_fn, optimizer)
        assert ("C107" in [finding.rule for finding in found.findings]) == expected


def test_a_run_measures_what_moved():
    shares = {}
    for dtype in (torch.bfloat16, torch.float32):
        trained = model(dtype)
        optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-5)
        updates = Updates(trained.named_parameters())
        for step in range(1, MOVED_STEPS + 1):
            assert updates.probes() == Results()
            for parameter in trained.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
            updates.step(Step(step, {}))
        moved = updates.probes().moved
        assert moved is not None and moved.steps == MOVED_STEPS
        shares[dtype] = min(moved.share.values())
    assert shares[torch.float32] > 0.99 and shares[torch.bfloat16] < 0.5


def test_a_bf16_checkpoint_moves_and_learns_as_in_float32(tmp_path):
    """The whole recipe's precision: 60 steps at its learning rate."""
    tiny_higgs().to(torch.bfloat16).save_pretrained(tmp_path)
    ours, exact, released = (measure(str(tmp_path), arm) for arm in ("earnest", "float32", "as released"))
    assert ours.moved_frac >= 0.99 and released.moved_frac < 0.5
    assert abs(ours.fallen_nats / exact.fallen_nats - 1) < 0.02
    assert measure(str(tmp_path), "earnest", rank=16).moved_frac >= 0.99
