"""What a GPU would be waited for, counted on a CPU: in a training step once for the loss and the signals together."""

from collections import Counter

import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from earnest import generate as generating
from earnest.codecs.amy import Amy, AmyShape
from earnest.codecs.discriminators import MultiScaleSTFTDiscriminator
from earnest.data.batch import Spans, collate
from earnest.generate import Request, generate
from earnest.losses.adversarial import HINGE
from earnest.losses.codec import CodecBatch
from earnest.losses.tokens import TokenObjective, stream_weights
from earnest.losses.waveform import MultiScaleMelLoss
from earnest.models.mot.config import MoTDesign, MoTShape
from earnest.models.mot.model import MoT
from earnest.training.codec.gan_steps import Side, gan_steps
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


@pytest.mark.parametrize("made", [tiny_higgs, mot, tiny_dia])
def test_a_training_step_waits_for_its_signals_alone(made, monkeypatch):
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
    assert waits.count.total() == 0 and copies == [len(signals)]


def test_a_moved_batch_has_the_places_it_had():
    """Also after its columns were changed in a copy."""
    model = tiny_higgs()
    batch = random_batch(model)
    moved = batch.to("cpu")
    for name, value in vars(batch.places).items():
        there = getattr(moved.places, name)
        torch.testing.assert_close(*(vars(of) if isinstance(of, Spans) else of for of in (there, value)))
    examples = [model.lay_out(random_codes(4, torch.Generator()), "one", "a")]
    assert collate(examples, [0], model.pad_id).places.clips.lengths == [len(examples[0])]


def test_ends_that_are_read_every_8_frames_give_the_same_codes(monkeypatch):
    model = tiny_higgs(3)
    requests = [Request(model.prompt(text), temperature=1.5, seed=seed) for seed, text in enumerate(("a", "b", "c"))]
    each = generate(model, requests, max_frames=21)
    assert any(made.stopped for made in each)
    monkeypatch.setitem(generating.ENDS_EVERY_FRAMES, "cpu", 8)
    for one, other in zip(each, generate(model, requests, max_frames=21), strict=True):
        assert torch.equal(one.codes_CT, other.codes_CT) and one.stopped == other.stopped


def test_a_step_of_a_codec_waits_three_times(monkeypatch):
    """For how many entries are dead in each codebook, for the discriminator's norm, and for the codec's norm with all
    signals."""
    torch.manual_seed(0)
    shape = AmyShape(encoder_dim=16, encoder_hidden=32, decoder_dim=16, decoder_hidden=32, codebooks=3, codebook_size=8)
    codec, discriminator = Amy(shape), MultiScaleSTFTDiscriminator((128, 64), channels=4)
    codec.quantiser.init_frames = 64
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    mel_loss, wave_BN = MultiScaleMelLoss(16_000), 0.1 * torch.randn(2, 6400)
    weights: dict[str, float] = dict.fromkeys(("mel", "commitment", "adv_g", "feat"), 1.0)

    def codec_losses(reconstruction, batch):
        loss, signals = mel_loss(reconstruction.wave_BN, batch.wave_BN)
        return {"mel": loss}, signals

    def side(model):
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
        return Side(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer), 1.0)

    sides, batches = (side(codec), side(discriminator)), [CodecBatch(wave_BN)] * 4
    steps = gan_steps(*sides, HINGE, batches, codec_losses, lambda step: weights, accelerator)
    while not codec.quantiser.is_ready:
        next(steps)
    next(steps)
    copies = list[int]()
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: copies.append(tensor.numel()) or tolist(tensor))
    with Waits() as waits:
        step = next(steps)
    own = {"train/learning_rate", "train/clipped_frac", "train/grad_norm", "train/skipped_frac/codec"}
    own |= {"train/grad_norm/discriminator", "train/skipped_frac/discriminator"}  # made of numbers that were read
    assert copies == [codec.quantiser.codebooks, 2, len(step.signals.keys() - own) + 2]
    assert waits.count.total() == 0, waits.count
