"""A compiled step gives the numbers of a step that is not."""

from functools import partial

import pytest
import torch
from torch._inductor import config as inductor

from earnest.data.batch import collate
from earnest.errors import UserError
from earnest.generate import Request, generate
from earnest.losses.tokens import TokenObjective, stream_weights
from earnest.models.compiled import check_compiler, compiled_layer
from earnest.models.mot.config import MoTDesign, MoTShape
from earnest.models.mot.model import MoT
from earnest.models.system import System
from earnest.sampling import Sampling
from tests.equipment.tiny import CODEBOOKS, CODES, random_codes, tiny_higgs
from tests.equipment.tiny_dia import tiny_dia


def tiny_mot(seed: int = 0) -> MoT:
    torch.manual_seed(seed)
    shape = MoTShape(width=32, layers=2, heads=2, kv_heads=1, ffn=64, expert_width=32, expert_ffn=64)
    return MoT.assemble(CODEBOOKS, CODES, MoTDesign(), shape)


@pytest.fixture
def traced(monkeypatch):
    """torch.compile without code in C++: what is traced, and how often, is the same, in a tenth of the time."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled_layer.cache_clear()
    yield
    torch.compiler.reset()
    compiled_layer.cache_clear()


def gradients(model: System, frames: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The loss and all gradients of a batch of so many clips."""
    random = torch.Generator().manual_seed(len(frames))
    clips = [model.lay_out(random_codes(n, random), "one two", "a") for n in frames]
    batch = collate(clips, range(len(clips)), model.pad_id)
    objective = TokenObjective(model.train(), stream_weights(CODEBOOKS, 0.1, 1.0))
    model.zero_grad()
    loss, _ = objective(batch, batch.counted())
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def check_parity(model: System, frames: tuple[int, ...], recompute: bool = False) -> None:
    model.compile_layers(False)
    expected = gradients(model, frames)
    model.compile_layers(True)
    model.recompute_layers(recompute)
    torch.testing.assert_close(gradients(model, frames), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("made", [tiny_higgs, tiny_mot, tiny_dia])
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_layers_give_the_same_loss_and_gradients_of_any_clips(made, recompute, traced):
    """What was compiled for three clips serves two and four."""
    model = made()
    check_parity(model, (5, 9, 7), recompute)
    with torch._dynamo.config.patch(error_on_recompile=True):
        check_parity(model, (4, 12), recompute)
        check_parity(model, (5, 6, 7, 8), recompute)


def test_the_same_in_code_that_a_compiler_made():
    try:
        check_compiler(torch.device("cpu"))
    except UserError as error:
        pytest.skip(str(error))
    check_parity(tiny_higgs(layers=1), (5, 9))


def test_without_a_compiler_the_way_out_is_told(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    torch.compiler.reset()
    with (
        inductor.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(UserError, match="--compile"),
    ):
        tiny_higgs().compile_layers(True)


@pytest.mark.parametrize("made", [tiny_higgs, tiny_mot, tiny_dia])
@pytest.mark.parametrize("weights", ["exact", "bfloat16"])
def test_a_captured_step_generates_the_same_codes(made, weights, traced, monkeypatch):
    """It is taken whole: nothing in it asks a tensor for its value or its shape, as a GPU's graph demands."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, fullgraph=True))
    model = made()
    requests = [Request(model.prompt(text), temperature=heat) for text, heat in (("a", 0.0), ("one two", 1.0))]
    expected = generate(model, requests, max_frames=12, sampling=Sampling(weights=weights))
    with torch._dynamo.config.patch(error_on_recompile=True):
        codes = generate(model, requests, max_frames=12, sampling=Sampling(weights=weights, compile=True))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # the step, and what is asked of the compiler
    for one, other in zip(codes, expected, strict=True):
        assert torch.equal(one.codes_CT, other.codes_CT) and one.stopped == other.stopped
