"""What a GPU would be waited for, counted on a CPU: in a training step once for the loss and the signals together."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from earnest import generate as generating
from earnest.data.batch import collate
from earnest.generate import Request, generate
from earnest.losses.tokens import TokenObjective, stream_weights
from earnest.models.mot.config import MoTDesign, MoTShape
from earnest.models.mot.model import MoT
from tests.equipment.tiny import CODEBOOKS, CODES, random_batch, random_codes, tiny_higgs
from tests.equipment.tiny_dia import tiny_dia

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")


class Waits(TorchDispatchMode):
    """Operators whose result, or whose size, a program needs to go on."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        if name in WAITS or any(mask is not None and mask.dtype == torch.bool for mask in masks):
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


def mot(seed=0):
    torch.manual_seed(seed)
    shape = MoTShape(width=32, layers=2, heads=2, kv_heads=1, ffn=64, expert_width=32, expert_ffn=64)
    return MoT.assemble(CODEBOOKS, CODES, MoTDesign(), shape)


# transformers looks three times whether a mask of Dia is of padding
@pytest.mark.parametrize(("made", "of_transformers"), [(tiny_higgs, 0), (mot, 0), (tiny_dia, 3)])
def test_a_training_step_waits_for_its_signals_alone(made, of_transformers, monkeypatch):
    model = made()
    objective = TokenObjective(model, stream_weights(CODEBOOKS, 0.1, 1.0))
    batch = random_batch(model)
    counted, moved = batch.counted(), batch.to("cpu")
    copies = list[int]()
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: copies.append(tensor.numel()) or tolist(tensor))
    with Waits() as waits:
        loss, signals = objective(moved, counted)
        loss.backward()
    assert waits.count.total() == of_transformers and copies == [len(signals)]


def test_a_moved_batch_has_the_places_it_had():
    """Also after its columns were changed in a copy."""
    model = tiny_higgs()
    batch = random_batch(model)
    moved = batch.to("cpu")
    for name, value in vars(batch.places).items():
        torch.testing.assert_close(getattr(moved.places, name), value)
    examples = [model.lay_out(random_codes(4, torch.Generator()), "one", "a")]
    assert collate(examples, [0], model.pad_id).places.lengths == [len(examples[0])]


def test_ends_that_are_read_every_8_frames_give_the_same_codes(monkeypatch):
    model = tiny_higgs(3)
    requests = [Request(model.prompt(text), temperature=1.5, seed=seed) for seed, text in enumerate(("a", "b", "c"))]
    each = generate(model, requests, max_frames=21)
    assert any(made.stopped for made in each)
    monkeypatch.setitem(generating.ENDS_EVERY_FRAMES, "cpu", 8)
    for one, other in zip(each, generate(model, requests, max_frames=21), strict=True):
        assert torch.equal(one.codes_CT, other.codes_CT) and one.stopped == other.stopped
