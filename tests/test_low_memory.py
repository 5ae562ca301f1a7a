"""AdamW's means in int8: trained, resumed and measured as with any optimizer; and what is said without the package."""

import shutil
import sys

import numpy as np
import pytest
import soundfile
import torch

from earnest.checkpoints import checkpoints
from earnest.cli import main
from earnest.errors import UserError
from earnest.models import load_model
from earnest.models.four_bits import in_four_bits
from earnest.rules import diagnose
from earnest.run import read_run
from earnest.training.checkpoint import load_training_state
from earnest.training.optim import adamw
from tests.equipment.tones import write_tones

WORDS = [
    *("--optimizer.states", "int8", "--shape.width", "64", "--shape.layers", "1", "--shape.heads", "2"),
    *("--demos.every-steps", "0", "--evaluate-every-steps", "100", "--optimizer.warmup-steps", "1"),
    *("--data.positions-per-batch", "512", "--predictions", "0", "--save-every-steps", "2"),
]


def kinds(state) -> set[torch.dtype]:
    """Types of all tensors of an optimizer's state, however deep."""
    if torch.is_tensor(state):
        return {state.dtype}
    return set().union(*map(kinds, state.values())) if isinstance(state, dict) else set()


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"earnest\[low-memory\]"):
        adamw(torch.nn.Linear(4, 4), 1e-3, 0.0, "int8")


def test_a_base_in_four_bits_needs_the_package_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"--lora.base nf4, and no bitsandbytes"):
        in_four_bits(torch.nn.Linear(4, 4))


def test_adapters_learn_on_a_base_in_four_bits(released, tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes", reason="the extra low-memory is not installed")
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path / "cache"))
    run, data = tmp_path / "run", write_tones(tmp_path / "tones")
    words = ["train", "higgs", "--model", released("higgs"), "--codec", released("higgs_codec")]
    words += ["--data.path", str(data)]
    words += ["--lora.rank", "4", "--lora.base", "nf4", *WORDS[:2], *WORDS[8:], "--steps", "2"]
    words += ["--optimizer.learning-rate", "1e-2"]
    assert main([*words, "--out", str(run)]) == 0
    trained = read_run(run)
    critical = {finding.rule for finding in diagnose(trained).findings if finding.severity == "critical"}
    assert critical <= {"E203"}  # the tiny codec gives several tones the same codes
    resumed = tmp_path / "resumed"
    shutil.copytree(run, resumed)
    assert main([*words, "--out", str(resumed), "--resume", "--steps", "3"]) == 0
    assert read_run(resumed)["train/loss"].step.tolist() == [1, 2, 3]
    assert main(["generate", str(resumed), "--text", "one", "--out", str(tmp_path / "one.wav")]) == 0
    assert soundfile.info(tmp_path / "one.wav").samplerate == 24_000
    assert main(["merge", str(run), str(tmp_path / "merged")]) == 0
    model = load_model(checkpoints(run)[-1])  # on the base as it was released
    model.lm.requires_grad_(False)
    prompts = [model.prompt("one")]
    frame_1C = torch.full((1, model.codebooks), model.bos_id)
    logits = list[torch.Tensor]()
    for pack in (lambda lm: None, in_four_bits):
        pack(model.lm)
        with torch.inference_mode():
            logits.append(next(model.begin(prompts).rounds(frame_1C)).logits_BKV.float())
    packed = [p for p in model.parameters() if p.dtype == torch.uint8]
    assert len(packed) == 2 * 10 and not any(p.requires_grad for p in packed)
    assert 0 < (logits[0] - logits[1]).abs().max() < 0.6 * logits[0].abs().max()
    assert torch.cosine_similarity(*(each.flatten() for each in logits), dim=0) > 0.8


def test_states_in_int8_train_and_resume(tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra low-memory is not installed")
    run, resumed, data = tmp_path / "run", tmp_path / "resumed", write_tones(tmp_path / "tones")
    words = ["train", "higgs-tiny", "--data.path", str(data), *WORDS, "--steps", "4"]
    assert main([*words, "--out", str(run)]) == 0
    curve = read_run(run)["train/loss"].value
    state = load_training_state(checkpoints(run)[-1])["optimizer"]["state"]
    assert torch.uint8 in kinds(state)  # of matrices of 4096 entries and more
    shutil.copytree(run, resumed)
    shutil.rmtree(checkpoints(resumed)[-1])
    assert main([*words, "--out", str(resumed), "--resume"]) == 0
    assert np.isfinite(curve).all() and np.array_equal(read_run(resumed)["train/loss"].value, curve)
