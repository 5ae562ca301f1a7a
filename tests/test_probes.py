"""Every probe on a healthy model, where nothing is found, and with its fault put in, where the rule that reads it names
it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from earnest.data.corpus import Corpus, layout_of
from earnest.data.row import Row
from earnest.facts import Facts
from earnest.losses.tokens import TokenObjective, stream_weights
from earnest.models.mot import MoT, MoTDesign
from earnest.monitors.clock import Clock
from earnest.monitors.gradients import REACHED_STEPS, Reached, Updates
from earnest.probes.labels import alignment, dropped_inputs
from earnest.probes.parameters import Frozen, differing, fingerprints, not_trained, rows, split_in_two
from earnest.probes.reach import not_optimized
from earnest.probes.reading import conditioning, reload
from earnest.probes.results import Alignment, Duplicates, Noise, Ranks, Results
from earnest.probes.splits import duplicates, noise
from earnest.rules import diagnose
from earnest.run import Run, Series, Step
from earnest.streams import codebooks
from earnest.training.tokens.config import Data
from earnest.training.tokens.preparation import limited
from tests.equipment import tiny_dia, tiny_mot
from tests.equipment.tiny import random_batch, random_codes, tiny_higgs
from tests.equipment.wrapped import Wrapped, shifted

SYSTEMS = {
    "higgs": lambda: (model := tiny_higgs(), random_batch(model)),
    "dia": lambda: (model := tiny_dia.tiny_dia(), tiny_dia.random_batch(model)),
    "mot": lambda: (model := tiny_mot.tiny_mot(), tiny_mot.batch_of(model)),
}


@pytest.fixture(params=SYSTEMS)
def system(request):
    return SYSTEMS[request.param]()


def named(probe: str, result, **facts) -> list[str]:
    """What the doctor finds in a run that knows nothing but one probe's result."""
    diagnosis = diagnose(Run(Facts().updated(facts), {}, Results(**{probe: result})))
    return [finding.rule for finding in diagnosis.findings]


def objective_of(model) -> TokenObjective:
    return TokenObjective(model, stream_weights(model.codebooks, 0.1, 1.0))


# --- labels -----------------------------------------------------------------------------------------------------------


def test_every_system_predicts_the_next_token(system):
    model, batch = system
    model.train()
    found = alignment(model, batch)
    assert {stream for stream, count in batch.counted().items() if count} == set(found)
    assert set(found.values()) == {Alignment(offset=1)}
    assert all(module.training for module in model.modules()) and not named("alignment", found)


@pytest.mark.parametrize("output", ["all", "new", "audio"])
def test_a_fresh_mot_is_traced_and_an_output_layer_of_zeros_is_not_accused(output):
    """Of an output layer of zeros no gradient comes back: the first position of all had been taken for what the label
    is scored on."""
    torch.manual_seed(0)
    design = MoTDesign(output=output, text_window=24, max_positions=128)
    model = MoT.assemble(tiny_mot.CODEBOOKS, tiny_mot.CODES, design, tiny_mot.SHAPE)
    batch = tiny_mot.batch_of(model)
    assert {one.offset for one in alignment(model, batch).values()} == {1}
    if output == "audio":
        nn.init.zeros_(model.audio_rows.weight)
        assert not named("alignment", alignment(model, batch))


@pytest.mark.parametrize(("by", "words"), [(1, "t - 2"), (-1, "t itself")])
def test_labels_shifted_twice_or_not_at_all_are_traced(system, by, words):
    model, batch = system
    found = alignment(model, shifted(batch, by))
    assert {one.offset for one in found.values()} == {1 + by}
    findings = diagnose(Run(probes=Results(alignment=found))).findings
    assert findings and {one.rule for one in findings} == {"A203"} and all(words in one.summary for one in findings)


def test_a_model_that_also_shifts_is_traced(system):
    model, batch = system
    found = alignment(Wrapped(model, lambda hidden_PD, _: torch.roll(hidden_PD, 1, dims=0)), batch)
    assert {one.offset for one in found.values()} == {2} and "A203" in named("alignment", found)


def test_a_look_ahead_is_traced(system):
    model, batch = system
    found = alignment(Wrapped(model, lambda hidden_PD, _: hidden_PD + torch.roll(hidden_PD, -1, dims=0)), batch)
    assert {one.offset for one in found.values()} == {0} and "A203" in named("alignment", found)


def test_exchanged_codebooks_are_traced():
    model, batch = SYSTEMS["higgs"]()
    found = alignment(model, replace(batch, audio_targets_BSC=batch.audio_targets_BSC[..., [1, 0, 2, 3]]))
    assert [stream for stream, one in found.items() if not one.codebook_matches] == codebooks(2)
    assert "A203" in named("alignment", found)


def test_inputs_reach_the_model(system):
    found = dropped_inputs(*system)
    assert not found.dropped and not named("inputs", found)


@pytest.mark.parametrize(("part", "field"), [("text", "text_BS"), ("tokens", "tokens_BSC")])
def test_a_dropped_input_is_named(system, part, field):
    model, batch = system

    deaf = Wrapped(model, change_input=lambda batch: replace(batch, **{field: torch.zeros_like(getattr(batch, field))}))
    found = dropped_inputs(deaf, batch)
    assert found.dropped == (part,) and named("inputs", found) == ["C106"]


def test_a_model_that_returns_nothing_is_named(system):
    model, batch = system
    found = dropped_inputs(Wrapped(model, lambda hidden_PD, batch: hidden_PD[:, :0]), batch)
    assert named("inputs", found) == ["C106"]


# --- parameters -------------------------------------------------------------------------------------------------------


def test_optimizer_holds_every_trained_parameter(system):
    model, _ = system
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert not named("optimizer", not_optimized(model, torch.optim.SGD([p for _, p in trained], lr=0.1)))
    found = not_optimized(model, torch.optim.SGD([p for _, p in trained[1:]], lr=0.1))
    assert found.missing == (trained[0][0],) and named("optimizer", found) == ["C105"]


def test_a_step_may_be_cut_into_micro_batches(system):
    model, batch = system
    found = split_in_two(objective_of(model), batch)
    assert found.distance < 1e-5 and not named("accumulation", found)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["not divided", "mean of means"])
def test_means_per_micro_batch_are_named(share):
    model, batch = SYSTEMS["higgs"]()

    class PerMicroBatch(TokenObjective):
        def forward(self, batch, counted):
            loss, signals = super().forward(batch, batch.counted())
            return (loss if batch.counted() == counted else share * loss), signals

    found = split_in_two(PerMicroBatch(model, stream_weights(model.codebooks, 0.1, 1.0)), batch)
    assert named("accumulation", found) == ["D402"]


def test_cutting_a_batch_keeps_its_clips():
    _, batch = SYSTEMS["higgs"]()
    part = rows(batch, 0, 1)
    assert part.exists_BS.all() and part.clip_B.tolist() == [0]
    assert part.counted() == {stream: int(n) for stream, n in rows(batch, 0, 1).counted().items()}
    both = rows(batch, 1, 3).counted()
    assert {stream: part.counted()[stream] + both[stream] for stream in both} == batch.counted()


@pytest.mark.parametrize("change", [None, "parameter", "buffer"])
def test_frozen_tensors_are_watched(change):
    model = tiny_higgs()
    name, parameter = next(iter(model.named_parameters()))
    parameter.requires_grad_(False)
    model.register_buffer("mean", mean := torch.zeros(4))
    frozen = Frozen(not_trained(model))
    for other in model.parameters():
        if other.requires_grad:
            other.data.add_(1)
    if change:
        (parameter.data if change == "parameter" else mean).mul_(0.5).add_(1e-3)
    found = frozen.changed(7)
    assert found.changed == {None: (), "parameter": (name,), "buffer": ("mean",)}[change]
    assert named("frozen", found) == (["C104"] if change else [])


def test_ranks_that_differ_are_named():
    model = tiny_higgs()
    other = copy.deepcopy(model)
    of_ranks = [fingerprints(dict(one.named_parameters())) for one in (model, other)]
    assert not named("ranks", Ranks(tuple(differing(of_ranks)), step=3))
    name, parameter = next(iter(other.named_parameters()))
    parameter.data[0, 0] += 1e-3
    assert differing([of_ranks[0], fingerprints(dict(other.named_parameters()))]) == [name]
    assert named("ranks", Ranks((name,), step=3)) == ["H107"]


# --- what steps do ----------------------------------------------------------------------------------------------------


def steps_of(model, batch, steps: int, learning_rate: float):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    for step in range(1, steps + 1):
        optimizer.zero_grad(set_to_none=True)
        objective_of(model)(batch, batch.counted())[0].backward()
        optimizer.step()
        yield step


def reached(model, batch):
    monitor = Reached(model)
    results = []
    for step in steps_of(model, batch, REACHED_STEPS + 2, 1e-3):
        monitor.step(Step(step, {}))
        results.append(monitor.probes().gradients)
    assert results[: REACHED_STEPS - 1] == [None] * (REACHED_STEPS - 1)
    return results[-1]


def test_gradients_reach_what_is_trained(system):
    found = reached(*system)
    assert found.step == REACHED_STEPS and not found.without_gradient and not named("gradients", found)


def test_a_part_that_no_gradient_reaches_is_named():
    model, batch = SYSTEMS["higgs"]()
    model.unused = nn.Linear(2, 2)
    found = reached(model, batch)
    assert found.without_gradient == ("unused.weight", "unused.bias") and named("gradients", found) == ["C102"]


@pytest.mark.parametrize(("learning_rate", "found"), [(1e-3, []), (0.3, ["C103"]), (1e-9, ["C103"])])
def test_the_size_of_updates(learning_rate, found):
    model, batch = SYSTEMS["higgs"]()
    updates = Updates(model.named_parameters())
    logged = [updates.step(Step(step, {})) for step in steps_of(model, batch, 6, learning_rate)]
    names = logged[0].keys()
    assert "train/update_frac/lm.model.layers" in names
    series = {name: Series(np.arange(6), np.array([row[name] for row in logged])) for name in names}
    assert sorted({finding.rule for finding in diagnose(Run.of({}, series)).findings}) == found


def test_updates_are_what_they_say():
    part = nn.Linear(4, 3, bias=False)
    model = nn.ModuleDict({"part": part, "fixed": nn.Linear(2, 2)})
    model["fixed"].requires_grad_(False)
    updates = Updates(model.named_parameters())
    part.weight.data.mul_(1.1)
    assert updates.step(Step(1, {})) == pytest.approx({"train/update_frac/part": 0.1}, rel=1e-5)
    assert updates.step(Step(1, {})) == {"train/update_frac/part": 0}


def test_the_clock_tells_waiting_from_work(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def slow():
        for group in "ab":
            now[0] += 3
            yield group

    clock, seen = Clock(), []
    for _ in clock.timed(slow()):
        now[0] += 1
        seen.append(clock.step(Step(1, {})))
        now[0] += 10  # an evaluation, say: not the step's
    assert [(one["train/step_s"], one["train/data_s"]) for one in seen] == [(4, 3), (4, 3)]
    assert seen[0]["train/memory_bytes"] > 1e6


# --- data, condition, checkpoint --------------------------------------------------------------------------------------


def spoken(clips: int, seed: int = 0) -> list[Row]:
    """Rows whose text says which codes they hold: low ones or high ones."""
    generator = torch.Generator().manual_seed(seed)
    codes = [random_codes(6, generator).numpy() // 16 + 16 * (clip % 2) for clip in range(clips)]
    texts = ["no", "go"] * clips
    return [Row(codes[clip], texts[clip], "a", source=f"{seed}-{clip}") for clip in range(clips)]


def corpus_of(model, rows) -> Corpus:
    return Corpus(rows, layout_of(model), model.pad_id, 400)


def test_held_out_clips_that_are_trained_on_are_named():
    train, held_out = spoken(8), spoken(4, seed=1)
    assert not named("duplicates", duplicates(train, held_out))
    found = duplicates(train, [*held_out, replace(train[3], source="copy")])
    assert found == Duplicates(1, 5, ("copy",)) and named("duplicates", found) == ["E203"]


def test_noise_of_any_colour_is_told_from_what_beats_pauses_or_hums(tmp_path):
    rng, time_N = np.random.default_rng(0), np.arange(64000) / 16000
    white_N = rng.normal(0, 0.1, 64000)
    hums_N = 0.1 * sum(np.sin(2 * np.pi * hz * time_N) for hz in (220, 221, 331, 442))
    waves = {
        "white": white_N,
        "brown": 0.01 * np.cumsum(white_N - white_N.mean()),
        "beats": white_N * (np.sin(2 * np.pi * 2 * time_N) > 0),
        "hums": hums_N + 0.01 * white_N,
        "silence": 0 * white_N,
        "short": white_N[:16000],
    }
    for name, wave_N in waves.items():
        soundfile.write(tmp_path / f"{name}.wav", wave_N, 16000)
    rows = [Row(np.zeros((1, 1), int), "", source=str(tmp_path / f"{name}.wav")) for name in [*waves, "gone"]]
    found = noise(rows)
    assert found == Noise(2, 4, (rows[0].source, rows[1].source)) and not named("noise", found)
    assert named("noise", noise(rows[:2])) == ["E205"]
    assert noise(rows[4:]) is None


@pytest.fixture(scope="module")
def hears_its_text():
    model = tiny_higgs()
    batch = corpus_of(model, rows := spoken(8)).batch(range(8))
    for _ in steps_of(model, batch, 60, 3e-3):
        pass
    return model, rows


def test_a_model_that_uses_its_text(hears_its_text):
    model, rows = hears_its_text
    found = conditioning(model, corpus_of(model, rows), 60)
    assert found["text"].interval[0] > 0 and found["text"].clips == 8 and not named("conditioning", found)


def test_a_clip_that_another_text_makes_too_long_does_not_hide_the_others(hears_its_text):
    model, rows = hears_its_text
    long = Row(np.zeros((4, 400), int), "n", "a", source="long")
    cut = Corpus([long, *rows], limited(layout_of(model), Data(), 50), model.pad_id, 400, too_long="cut")
    found = conditioning(model, cut, 60)
    assert cut.cut == 1 and found["text"].clips == 8 and found["text"].interval[0] > 0


def test_a_model_that_does_not_hear_its_text_is_named(hears_its_text):
    model, rows = hears_its_text

    deaf = Wrapped(model, change_input=lambda batch: replace(batch, text_BS=torch.full_like(batch.text_BS, 65)))
    found = conditioning(deaf, corpus_of(model, rows), 60)
    assert found["text"].delta_nats == 0 and named("conditioning", found) == ["B106"]


def test_one_text_tells_nothing_about_its_use(hears_its_text):
    model, rows = hears_its_text
    assert conditioning(model, corpus_of(model, rows[::2]), 60) is None


def test_a_checkpoint_gives_the_loss_it_was_saved_with(hears_its_text, tmp_path):
    model, rows = hears_its_text
    model.save_pretrained(tmp_path)
    found = reload(model, type(model).from_pretrained(tmp_path), corpus_of(model, rows), 60)
    assert found.ce_after == pytest.approx(found.ce_before, rel=1e-6) and not named("reload", found)


def test_a_checkpoint_that_lacks_a_part_is_named(hears_its_text):
    model, rows = hears_its_text
    other = copy.deepcopy(model)
    other.lm.audio_lm_head.reset_parameters()
    assert named("reload", reload(model, other, corpus_of(model, rows), 60)) == ["G201"]
    whole = copy.deepcopy(model)
    whole.adapter = nn.Linear(2, 2)
    found = reload(whole, model, corpus_of(model, rows), 60)
    assert found.missing == ("adapter.bias", "adapter.weight") and named("reload", found) == ["G201"]
