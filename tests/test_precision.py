"""What is computed in bf16 outside of training, as on a GPU: generation, demos; the codec is not."""

import warnings

import pytest
import torch

from earnest.codecs import load_codec
from earnest.facts import Facts
from earnest.generate import Request, generate
from earnest.models.precision import computed_in, under
from earnest.models.prepacked import prepacked
from earnest.speech import Speech, Wish, precision_of, resolved
from tests.equipment.tiny import tiny_higgs
from tests.equipment.tiny_dia import tiny_dia
from tests.equipment.tiny_mot import tiny_mot

MODELS = {"higgs": tiny_higgs, "dia": tiny_dia, "mot": tiny_mot}


def bf16():
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_speaks_under_autocast_as_in_float32(name):
    model = MODELS[name]().eval()
    prompts = [model.prompt("one"), model.prompt("a longer text")]
    frame_BC = torch.full((2, model.codebooks), model.bos_id)
    found = {}
    for context in (torch.no_grad, bf16):
        with torch.inference_mode(), context():
            drawn = next(model.begin(prompts).rounds(frame_BC))
            found[context] = drawn.logits_BKV.float()
    finite = found[torch.no_grad].isfinite()
    exact, rough = (logits[finite] for logits in found.values())
    assert not torch.equal(exact, rough)  # it was computed in another type
    assert (exact - rough).abs().max() < 0.05 * exact.abs().max()
    with bf16():
        (clip,) = generate(model, [Request(prompts[0])], max_frames=4)
    assert clip.codes_CT.shape[0] == model.codebooks


def test_weights_are_cast_once_and_not_for_every_position():
    layer = torch.nn.Linear(8, 8, bias=False)
    with bf16():
        project = prepacked(layer)
    assert project(torch.ones(2, 8)).dtype == torch.bfloat16  # outside of autocast: the copy has its type


def test_a_run_speaks_in_its_own_precision_and_its_codec_does_not():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    of_run = Facts().updated({"config": {"mixed_precision": "bf16"}})
    assert type(precision_of(of_run, cpu)()).__name__ == "nullcontext"
    with warnings.catch_warnings(action="ignore"):  # that there is no CUDA
        assert isinstance(precision_of(of_run, gpu)(), torch.autocast)
    assert type(precision_of(Facts(), gpu)()).__name__ == "nullcontext"  # a released checkpoint: as its weights are
    assert type(computed_in(gpu, "no")()).__name__ == "nullcontext"
    model = tiny_higgs()
    speech = Speech(model, load_codec("amy-tiny"), *resolved(model, Facts(), Wish()), 4, autocast=bf16)
    inside = list[bool]()
    model.lm.model.register_forward_pre_hook(lambda *_: inside.append(torch.is_autocast_enabled("cpu")))
    outside = [torch.is_autocast_enabled("cpu") for _ in speech.pieces("one")]
    assert inside == [True] and outside and not any(outside)


def test_what_raises_under_a_context_leaves_it():
    def broken():
        yield 1
        raise ValueError("no more")

    items = under(bf16, broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)
    assert not torch.is_autocast_enabled("cpu")
