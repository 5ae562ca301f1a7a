"""Whole runs: faults planted in a mechanism are named right, the benign list is left alone, false alarms stay within
their budget."""

import cProfile
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earnest.probes.results import Alignment, Gradients, Results
from earnest.rules import diagnose
from earnest.run import Artifact, Run, Series
from earnest.streams import AUDIO, codebooks
from tests.equipment.planted import BENIGN, FACTS, FAULTS, SHARE, STEPS, noisy, planted
from tests.equipment.simulated import CODES, cut, gan_run, healthy_run, series, table_run, wandering


def rules(run) -> list[str]:
    return [finding.rule for finding in diagnose(run).findings]


def words(run) -> dict[str, str]:
    return {str(verdict.stream): verdict.verdict for verdict in diagnose(run).verdicts}


# Faults, each planted in a model that really trains; three seeds each.


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_named_first(fault, seed):
    found = rules(planted(fault, seed))
    assert found[:1] == [FAULTS[fault][1]], found


@pytest.mark.parametrize("seed", range(3))
def test_learning_rate_far_too_high(seed):
    first = diagnose(table_run(seed, rate=30.0)).findings[0]
    assert first.rule == "D201" and "learning rate" in first.causes[0]


@pytest.mark.parametrize("settings", [{}, {"every": 10}, {"rate": 0.02}, {"frames": 40, "batch": 6}], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_table_that_learns_is_left_alone(settings, seed):
    run = table_run(seed, **settings)
    assert not rules(run)
    assert words(run)["audio"] in ("learning", "converged")


def test_fresh_random_codes_never_fall_below_chance():
    run = table_run(noise_data=True, rate=0.02, clips=20_000)
    assert words(run)["audio"] == "at-chance"


# Real cases (the source stands with each), made by their mechanism.


def test_labels_shifted_twice_speech_gets_faster():
    """QwenLM/Qwen3-TTS#39: a chain of sounds, each held for four frames; a model that learns t -> t + 2 skips half of
    them."""
    demos = []
    for step, learnt in ((1000, 0.2), (2000, 0.6), (3000, 0.95)):
        for seed in range(4):
            rng, frame, frames = np.random.default_rng(seed), 0, 0
            while frame < 200:
                frame += 2 if rng.random() < learnt else 1
                frames += 1
            demos.append(
                Artifact("demo", f"{step}_{seed}.wav", step, {"length_ratio": frames / 200, "temperature": 1.0})
            )
    run = Run.of({}, {"train/ce_nats/audio": noisy(3 + 3 * np.exp(-3 * SHARE))}, {}, demos)
    assert rules(run) == ["G103"]
    assert "shifted twice" in diagnose(run).findings[0].causes[0]
    run.probes = Results(alignment={AUDIO: Alignment(offset=2)})
    assert rules(run) == ["A203"]


def test_wrapper_strips_a_loss():
    """modelscope/ms-swift PR#9752: the sub-talker has a weight, no loss and no gradient."""
    run = Run.of(
        {"loss_weights": {"audio": 1.0, "talker": 0.3}}, {"train/loss/audio": noisy(2 + 2 * np.exp(-3 * SHARE))}
    )
    assert rules(run) == ["C201"]
    run.probes = Results(gradients=Gradients(("talker.head.weight",)))
    assert "C102" in rules(run)


def test_distillation_on_the_mean_vector():
    """Amy-LM: features whose mean holds a tenth of the energy; a predictor that learns the mean scores 1 -
    sqrt(0.1)."""
    rng = np.random.default_rng(0)
    mean = rng.normal(size=1024)
    features = mean / np.linalg.norm(mean) * math.sqrt(0.1) + rng.normal(size=(len(STEPS), 64, 1024)) * math.sqrt(
        0.9 / 1024
    )
    cosine = (features @ mean / np.linalg.norm(mean) / np.linalg.norm(features, axis=-1)).mean(1)
    assert 1 - cosine.mean() == pytest.approx(1 - math.sqrt(0.1), abs=0.01)
    run = Run.of({}, {"train/loss/wavlm": series(STEPS, 1 - cosine)})
    assert words(run) == {"wavlm": "at-chance"} and rules(run) == ["F201"]


def test_columns_removed_by_a_wrapper():
    """transformers PR#27865: the signature of PeftModel.forward does not name the audio labels, so Trainer drops
    them."""
    run = Run.of({}, {"train/loss/audio": series(STEPS, np.zeros(100))}, {"inputs": {"dropped": ["audio_labels"]}})
    assert rules(run) == ["C106"]


def test_lora_without_effect():
    """locuslab/open-unlearning#178: no gradient reaches the adapters; batches differ, evaluations do not."""
    at = STEPS[19::20]
    run = Run.of(
        {},
        {
            "train/loss": noisy(np.full(100, 2.3)),
            "train/grad_norm": series(STEPS, np.zeros(100)),
            "eval/loss": series(at, [2.31] * 5),
        },
    )
    assert rules(run) == ["C101"]


def test_nan_hidden_as_zero():
    """axolotl#1706, transformers#31997: a NaN loss logged as 0, with a gradient norm of NaN."""
    loss, norm = np.full(100, 2.0) + np.random.default_rng(0).normal(0, 0.1, 100), np.full(100, 1.0)
    loss[40:], norm[40:] = 0, np.nan
    first = diagnose(Run.of({}, {"train/loss": series(STEPS, loss), "train/grad_norm": series(STEPS, norm)})).findings[
        0
    ]
    assert first.rule == "D102" and "NaN" in first.causes[0] and first.since_step == 820


def test_training_clips_known_by_heart_are_not_unshifted_labels():
    """Half of a slow codec's first codes repeat; a training loss of 0.1 beside 1.8 held out is memory (seen in
    earnest's own demo)."""
    train = 0.1 + 6.8 * np.exp(-STEPS / 300)
    signals = {
        "train/ce_nats/codebook_0": noisy(train),
        "train/copy_frac/codebook_0": series(STEPS, np.full(100, 0.52)),
        "eval/ce_nats/codebook_0": series(STEPS[9::10], 1.8 + 4 * np.exp(-STEPS[9::10] / 200)),
    }
    facts = {"audio_vocab": 1026}
    assert "A201" not in rules(Run.of(facts, signals))
    signals["eval/ce_nats/codebook_0"] = series(STEPS[9::10], train[9::10])
    assert rules(Run.of(facts, signals))[0] == "A201"


def test_a_loss_that_faded_until_fp32_shows_0_is_no_fault():
    """Constant text targets of speech synthesis: 5.6 nats, then 1e-7 and 0 by turns, then 0 (seen in earnest's own
    demo)."""
    loss = 5.6 * np.exp(-STEPS / 60.0)
    loss = np.where(loss < 1e-7, 0, loss)
    loss[-10] = 0.4  # one odd batch
    assert (loss[-9:] == 0).all()
    facts, audio = (
        {"text_vocab": 269, "audio_vocab": 1026},
        {"train/ce_nats/codebook_0": noisy(4 + 2 * np.exp(-STEPS / 500))},
    )
    healthy = diagnose(Run.of(facts, audio | {"train/ce_nats/text": series(STEPS, loss)}))
    assert healthy.findings == [] and healthy.verdicts[0].verdict in ("learning", "converged")
    cut = np.where(STEPS > 1000, 0, 5.6 - STEPS / 1000)
    assert rules(Run.of(facts, audio | {"train/ce_nats/text": series(STEPS, cut)})) == ["D102"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("strength", "code"),
    [(lambda t: 0 * t, "F101"), (lambda t: 6 * np.minimum(1, 6 * t), "F102"), (lambda t: -1 + 0 * t, "F103")],
    ids=["blind", "wins (melgan-neurips#3)", "wrong"],
)
def test_discriminators(strength, code, seed):
    assert rules(gan_run(seed, strength)) == [code]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "strength",
    [lambda t: 0.3 + 0.8 * np.minimum(1, 3 * t), lambda t: 0.6 + 0.3 * np.sin(9 * t)],
    ids=["grows", "swings"],
)
def test_contest_is_left_alone(strength, seed):
    assert not rules(gan_run(seed, strength))


def test_codebooks_collapse():
    """wenet-e2e/AudioDec#19: one code for everything."""
    run = Run.of({}, {f"train/perplexity/codebook_{i}": series(STEPS, np.full(100, 1.0007)) for i in range(4)})
    assert rules(run) == ["F301"] and diagnose(run).findings[0].streams == tuple(codebooks(4))


# What looks odd and is healthy.


@pytest.mark.parametrize("name", BENIGN)
def test_benign_is_left_alone(name):
    diagnosis = diagnose(BENIGN[name]())
    assert not diagnosis.findings, [(one.rule, one.summary) for one in diagnosis.findings]
    assert not {one.verdict for one in diagnosis.verdicts} & {"worse-than-chance", "degenerate", "memorising"}


# False alarms.


def test_false_alarms_on_healthy_runs_of_any_shape():
    """At most 1 % of 400 runs, with two more for chance (measured on 3000: 0.1 %)."""
    alarmed = [seed for seed in range(400) if rules(healthy_run(seed))]
    assert len(alarmed) <= 6, alarmed


def test_polling_a_thousand_times_keeps_one_budget():
    """Five healthy runs, looked at 200 times each while they grow: no look may say anything that the whole run does not
    deserve."""
    rng, alarms = np.random.default_rng(0), 0
    step = np.arange(1, 4001)
    for seed in range(5):
        loss = 4 + 2.9 * np.exp(-step / 500) + wandering(np.random.default_rng(seed), 4000, 0.9, 0.1)
        evaluated = step[99::100]
        run = Run.of(
            dict(FACTS),
            {
                "train/ce_nats/audio": series(step, loss),
                "eval/ce_nats/audio": series(evaluated, 4.1 + 2.9 * np.exp(-evaluated / 500) + rng.normal(0, 0.02, 40)),
                "train/grad_norm": series(step, np.exp(rng.normal(0, 0.4, 4000))),
            },
        )
        alarms += any(rules(cut(run, int(stop))) for stop in np.linspace(20, 4000, 200))
    assert alarms == 0


# Strangers' logs.

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32) | st.sampled_from(
    [0.0, 1.0, -1.0, 1e300, -1e300, 1e-300]
)
KEYS = [
    *("loss", "loss/audio", "loss/loss_d", "loss/adv_g", "loss/feat", "loss/loss_g", "loss/wavlm", "loss_scale"),
    *("ce_nats/text", "ce_nats/codebook_0", "entropy_nats/audio", "counted_frac/text", "copy_frac/audio"),
    *("grad_norm", "learning_rate", "clipped_frac", "update_frac", "d_real", "d_fake"),
    *("used_frac/codebook_0", "perplexity/codebook_0", "residual_frac/codebook_0", "residual_frac/codebook_1"),
    *("step_s", "data_s", "memory_bytes"),
]


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["train", "eval"]), st.sampled_from(KEYS)).map("/".join),
        st.lists(NUMBERS, max_size=40) | st.integers(1, 130).map(lambda n: [2.0] * n),
        max_size=8,
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "text_vocab": st.integers(2, 200_000),
            "audio_vocab": st.integers(2, 2048),
            "codebooks": st.integers(1, 9),
            "max_grad_norm": st.floats(0, 10),
        },
    ),
)
def test_no_log_breaks_the_doctor(columns, facts):
    with np.errstate(all="ignore"):
        diagnosis = diagnose(
            Run.of(facts, {name: series(np.arange(len(values)) * 10, values) for name, values in columns.items()})
        )
    assert all(0 <= finding.confidence <= 1 for finding in diagnosis.findings)


def test_no_rule_loops_over_rows():
    """Ten times as many rows of training and evaluation cost at most twice as many calls of a function."""

    def calls(rows: int) -> int:
        step, rng = np.arange(1, rows + 1), np.random.default_rng(0)
        run = Run.of(
            {"audio_vocab": CODES},
            {
                f"{split}/ce_nats/codebook_{i}": series(step, 3 + np.exp(-10 * step / rows) + rng.normal(0, 0.1, rows))
                for i in range(5)
                for split in ("train", "eval")
            },
        )
        profile = cProfile.Profile()
        assert not profile.runcall(diagnose, run).findings
        return sum(entry.callcount for entry in profile.getstats())

    calls(1000)  # what is imported and compiled once
    assert calls(100_000) < 2 * calls(10_000)


def test_table_of_rules_on_fixtures_is_generated():
    from tests.equipment.rules_on_fixtures import OUT, table

    assert OUT.read_text() == table(), "old: python -m tests.equipment.rules_on_fixtures"


def test_jitter_at_the_floor_of_a_text_of_constants_is_no_spike():
    """Three constant targets: the loss falls from ln V to nearly 0 in ten steps, and jitters there by factors that mean
    nothing."""
    step = np.arange(1, 401)
    rng = np.random.default_rng(0)
    value = 5.6 * np.exp(-step / 4) + 1e-3 * np.exp(rng.normal(0, 1.2, len(step)))
    run = Run.of(
        facts={"text_vocab": 269, "label_counts": {"text": {260: 900, 261: 900, 264: 900}}},
        series={"train/ce_nats/text": Series(step, value)},
    )
    assert "D202" not in [finding.rule for finding in diagnose(run).findings]


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_memorising_drives_to_nothing_is_no_running_mean(seed):
    """A real run of 1125 steps went from 7 to 0.04 nats, and its noise from 0.3 to 0.003."""
    step = np.arange(1, 1126)
    value = 7 * np.exp(-step / 220) + 0.1 + np.random.default_rng(seed).normal(0, 1, len(step)) * 3 / (10 + step) ** 1.1
    codebooks = {f"train/ce_nats/codebook_{c}": series(step, value) for c in range(2)}
    assert "B105" not in rules(Run.of({"audio_vocab": 1026, "codebooks": 2}, codebooks))


@pytest.mark.parametrize(("share", "named"), [(0.95, False), (0.01, True)])
def test_a_loss_as_low_as_its_targets_are_constant_is_not_too_good(share, named):
    """White noise through a codec of speech: nine in ten targets are one id, and 0.33 nats are what that leaves to
    say."""
    rest = {code: round(1e5 * (1 - share) / 1023) for code in range(1, 1024)}
    facts = {"audio_vocab": 1026, "codebooks": 1, "label_counts": {"codebook_0": {0: round(1e5 * share), **rest}}}
    step = np.arange(1, 401)
    falling = 0.33 + 3 * np.exp(-step / 40) + np.random.default_rng(0).normal(0, 0.02, len(step))
    assert ("A202" in rules(Run.of(facts, {"train/ce_nats/codebook_0": series(step, falling)}))) == named


@pytest.mark.parametrize(("offset", "named"), [(1, False), (0, True), (None, True)])
def test_a_loss_as_low_as_the_token_before_makes_it_is_not_too_good_where_labels_are_seen_to_be_shifted(offset, named):
    """The same noise: the second codebook follows from the first, to 0.22 nats, where seven in ten targets are one
    id."""
    held_out = {"codebook_1": {"ce_nats": 0.13, "unigram_nats": 1.9, "bigram_nats": 0.22}}
    probes = {"held_out": {"streams": held_out}}
    if offset is not None:
        probes["alignment"] = {"codebook_1": {"offset": offset, "expected": 1, "codebook_matches": True}}
    step = np.arange(1, 401)
    falling = 0.13 + 3 * np.exp(-step / 40) + np.random.default_rng(0).normal(0, 0.01, len(step))
    found = rules(
        Run.of({"audio_vocab": 1024, "codebooks": 2}, {"train/ce_nats/codebook_1": series(step, falling)}, probes)
    )
    assert bool({"A202", "A203"} & {*found}) == named


def test_a_stream_below_the_label_frequencies_clip_by_clip_is_not_at_chance():
    """mot-tiny's sixth codebook: 18 clips differ by more than what separates the model from chance, and each is below
    its unigram."""
    held_out = {
        "ce_nats": 6.795,
        "interval": [6.703, 6.901],
        "unigram_nats": 6.882,
        "unigram_gap": [-0.087, -0.127, -0.047],
    }
    run = Run.of(
        {"audio_vocab": 1024},
        {"train/ce_nats/codebook_5": noisy(6.9 - 0.2 * SHARE)},
        {"held_out": {"streams": {"codebook_5": held_out}}},
    )
    assert words(run) == {"codebook_5": "learning"}


@pytest.mark.parametrize(("form", "rules_said", "word"), [("lsgan", [], "cannot-judge"), ("hinge", ["F103"], None)])
def test_a_discriminator_is_judged_as_what_it_is_said_to_be(form, rules_said, word):
    """A least-squares loss of 2.5 is no hinge loss above 2."""
    loss = {"train/loss/loss_d": noisy(2.5 + 0 * SHARE)}
    diagnosis = diagnose(Run.of({"gan_loss": form}, loss))
    assert [finding.rule for finding in diagnosis.findings] == rules_said
    assert diagnosis.verdicts[0].verdict == (word or "worse-than-chance")
    lacking = {one.rule: one.needs for one in diagnosis.not_checked}
    assert ("gan_loss" in lacking.get("F103", "")) == (form != "hinge")
    assert "gan_loss" in diagnose(Run.of({}, loss)).verdicts[0].why  # whoever does not say it is told how


@pytest.mark.parametrize(("gap", "named"), [([0.001, -0.004, 0.006], True), ([0.2, 0.1, 0.3], False)])
def test_a_text_that_can_be_left_out_is_ignored(gap, named):
    run = Run.of(probes={"null_input": {"gaps": {"codebook_0": gap, "all": gap}, "step": 300}})
    assert ("B106" in rules(run)) == named


@pytest.mark.parametrize(("first", "named"), [(2.71, False), (1.40, True)])
def test_a_deep_codebook_below_its_rare_pairs_does_not_say_that_the_text_is_due(first, named):
    """Figures of a healthy run after 60 steps, whose codebook 0 is still far from what the previous frame tells."""
    held_out = {
        "codebook_0": dict(ce_nats=first, interval=(first - 0.05, first + 0.05), uniform_nats=6.93, unigram_nats=3.80),
        "codebook_4": dict(ce_nats=6.24, interval=(6.20, 6.28), uniform_nats=6.93, unigram_nats=6.53),
    }
    gaps = {"codebook_0": (1.495, first - 1.495), "codebook_4": (6.386, -0.15)}
    for stream, (bigram, gap) in gaps.items():
        near = (gap - 0.02, gap + 0.02)
        held_out[stream] |= dict(bigram_nats=bigram, bigram_gap=(gap, *near), unigram_gap=(-0.3, -0.4, -0.2))
    ignored = {"text": {"delta_nats": 0.0, "interval": (-0.001, 0.001), "step": 60}}
    falling = {f"train/ce_nats/{stream}": noisy(6.9 - 3 * SHARE) for stream in held_out}
    run = Run.of({"audio_vocab": 1026}, falling, {"held_out": {"streams": held_out}, "conditioning": ignored})
    assert ("B106" in rules(run)) == named


@pytest.mark.parametrize(("bigram", "named"), [(0.015, False), (1.4, True)])
def test_targets_of_a_few_templates_need_no_memory(bigram, named):
    """The text of a speech model is the same few marks in every clip: held out it is as low as in training."""
    both = 5.6 * np.exp(-9 * SHARE) + 0.01
    held_out = {"text": dict(ce_nats=0.0107, interval=(0.01, 0.011), uniform_nats=5.6, bigram_nats=bigram)}
    logged = {"train/ce_nats/text": noisy(both, size=0.0005), "eval/ce_nats/text": series(STEPS[9::10], both[9::10])}
    run = Run.of({"text_vocab": 270, "steps_per_epoch": 20}, logged, {"held_out": {"streams": held_out}})
    assert ("E110" in rules(run)) == named


@pytest.mark.parametrize("update_frac, asks", [(1e-9, "Raise"), (1e-3, "Divide")])
def test_a_stream_at_chance_whose_weights_hardly_move_needs_a_higher_rate(update_frac, asks):
    """A rate of 0.1 is far too high for Adam, and far too low where the gradient is clipped at 1e-6."""
    steps = np.arange(1, 401, 10)
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(steps))
    series = {"train/ce_nats/audio": math.log(1026) + noise, "train/learning_rate": np.full(len(steps), 0.1)}
    series["train/update_frac/body"] = np.full(len(steps), update_frac)
    run = Run.of({"audio_vocab": 1026}, {name: (steps, values) for name, values in series.items()})
    found = {finding.rule: finding for finding in diagnose(run).findings}
    assert found["B102"].fix.startswith(asks)
