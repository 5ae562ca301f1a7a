"""The five documents that the project starts from, replayed: their numbers in, the verdict that they should have had
out.

S0-S4 name the documents: S0 the mixture of transformers, S1 and S4 Higgs Audio, S2 the codec, S3 Dia on music. Where a
document gives a range or an end point, the series between is drawn by the mechanism that its code is known to have.
"""

import json
import math

import numpy as np
import pytest

from earnest.logs import read
from earnest.rules import diagnose
from earnest.run import Artifact, Run, Series
from earnest.signals import parse
from earnest.streams import AUDIO, TEXT, Part


def series(step, value) -> Series:
    return Series(np.asarray(step, dtype=np.int64), np.asarray(value, dtype=float))


def found(diagnosis, code):
    matches = [finding for finding in diagnosis.findings if finding.rule == code]
    assert matches, f"{code} not among {[(one.rule, one.summary) for one in diagnosis.findings]}"
    return matches[0]


def verdict(diagnosis, stream):
    return next(one for one in diagnosis.verdicts if str(one.stream) == stream)


def as_log(tmp_path, kind, columns):
    """The columns as a user would have them: a table, JSON lines or printed lines."""
    names, rows = list(columns), list(zip(*columns.values(), strict=True))
    if kind == "csv":
        path, lines = (
            tmp_path / "log.csv",
            [",".join(names), *(",".join(f"{value:g}" for value in row) for row in rows)],
        )
    elif kind == "jsonl":
        path = tmp_path / "log.jsonl"
        lines = [
            "{" + ", ".join(f'"{name}": {value:g}' for name, value in zip(names, row, strict=True)) + "}"
            for row in rows
        ]
    else:
        path = tmp_path / "train.log"
        lines = [" ".join(f"{name}: {value:g}" for name, value in zip(names, row, strict=True)) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


KINDS = pytest.mark.parametrize("kind", ["csv", "jsonl", "text"])


@KINDS
def test_s0_audio_is_judged_within_the_audio_range(tmp_path, kind):
    """9.76 -> 6.01, 5.76, 5.75 over 300 steps, a running mean on random audio."""
    step = [1, 50, 100, 150, 200, 250, 300]
    path = as_log(tmp_path, kind, {"step": step, "loss": [9.76, 6.01, 5.76, 5.76, 5.75, 5.75, 5.75], "lr": [1e-4] * 7})
    diagnosis = diagnose(read(path, facts={"audio_vocab": 2048, "text_vocab": 128256}))
    total = verdict(diagnosis, "total")
    assert total.baseline.value == pytest.approx(7.625, abs=1e-3)
    assert "25% below" in total.why and "11.778" in total.why
    stalled = found(diagnosis, "B104")
    assert "floor" in stalled.causes[0] and "learning rate" in stalled.causes[-1]  # the data first, the rate last
    assert "5e-04" in stalled.next_probe


def test_s0_a_mean_since_the_start_is_recognised():
    """The mechanism: iid codes, whose entropy is a floor; total / steps is printed."""
    rng = np.random.default_rng(0)
    step = np.arange(1, 301)
    loss = 5.74 + 4 * np.exp(-step / 4) + rng.normal(0, 0.15, 300)
    run = Run.of(
        {"audio_vocab": 2048},
        {
            "train/ce_nats/audio": series(step, np.cumsum(loss) / step),
            "train/learning_rate": series(step, [1e-4] * 300),
        },
    )
    diagnosis = diagnose(run)
    mean = found(diagnosis, "B105")
    assert any("B104" in row.get("explains", "") for row in mean.evidence)
    assert verdict(diagnosis, "audio").baseline.value == pytest.approx(math.log(2048))


@KINDS
def test_s1_both_streams_at_chance(tmp_path, kind):
    rng = np.random.default_rng(1)
    step = np.arange(50, 2001, 50)
    text, audio = rng.uniform(11.5, 12.3, 40), rng.uniform(6.6, 6.8, 40)
    path = as_log(tmp_path, kind, {"step": step, "text_loss": text, "audio_loss": audio, "loss": text + audio})
    diagnosis = diagnose(read(path, facts={"text_vocab": 128256, "audio_vocab": 1026}))
    assert verdict(diagnosis, "text").verdict in ("at-chance", "worse-than-chance")
    assert verdict(diagnosis, "audio").verdict == "at-chance" and "below chance" in verdict(diagnosis, "audio").why
    total = verdict(diagnosis, "total")
    assert total.verdict == "at-chance" and "sum of the chances" in total.why and "18.70" in total.why
    stuck = found(diagnosis, "B102")
    assert stuck.severity == "critical" and set(stuck.streams) >= {TEXT, AUDIO}


def test_s1_a_total_alone_is_recognised_as_a_sum_of_chances():
    rng = np.random.default_rng(2)
    step = np.arange(50, 1001, 50)
    run = Run.of({"text_vocab": 128256, "audio_vocab": 1026}, {"train/loss": series(step, rng.uniform(18.0, 18.9, 20))})
    assert verdict(diagnose(run), "total").verdict == "at-chance"


def test_s1_exactly_zero_and_nearly_zero_are_told_apart():
    step = np.arange(10, 501, 10)
    facts = {"text_vocab": 128256, "audio_vocab": 1026}
    text = series(step, np.full(50, 2.5) + np.random.default_rng(3).normal(0, 0.1, 50))
    dropped = diagnose(Run.of(facts, {"train/loss/text": text, "train/loss/audio": series(step, np.zeros(50))}))
    low = 0.004 + 4 * np.exp(-step / 20) + np.random.default_rng(4).uniform(0, 0.002, 50)
    copying = diagnose(Run.of(facts, {"train/loss/text": text, "train/loss/audio": series(step, low)}))
    empty = diagnose(
        Run.of(facts | {}, {"train/loss/text": text, "train/loss/audio": series(step, np.full(50, np.nan))})
    )
    assert found(dropped, "D102").severity == "critical" and "dropped" in found(dropped, "D102").causes[0]
    assert found(copying, "A202").severity == "critical" and "copying" in found(copying, "A202").causes[0]
    assert found(empty, "D101").severity == "critical" and "dropped" in found(empty, "D101").causes[0]
    assert [finding.rule for finding in dropped.findings] == ["D102"]
    assert [finding.rule for finding in copying.findings] == ["A202"]
    assert {verdict(one, "audio").verdict for one in (dropped, copying, empty)} == {"degenerate"}


S2 = {
    "train/adv_g_epoch": 0.32181718945503235,
    "train/feat_epoch": 0.016863815486431122,
    "train/llm_epoch": 0.07964769005775452,
    "train/loss_d_epoch": 1.9732297658920288,
    "train/loss_g_epoch": 2.255605936050415,
    "train/msspec_epoch": 0.07455965131521225,
    "train/wavlm_epoch": 0.6682911515235901,
}
S2_WEIGHTS = {"adv_g": 1, "feat": 4, "msspec": 15, "wavlm": 1, "llm": 1}


@KINDS
def test_s2_seven_numbers(tmp_path, kind):
    path = as_log(tmp_path, kind, {"step": [1000], **{name: [value] for name, value in S2.items()}})
    diagnosis = diagnose(read(path, facts={"loss_weights": S2_WEIGHTS, "gan_loss": "hinge"}))
    assert not [one for one in diagnosis.findings if one.rule == "F401"]  # the parts sum to 2.2556
    assert "F401" not in {one.rule for one in diagnosis.not_checked}
    for stream in ("llm", "wavlm"):
        assert (
            verdict(diagnosis, stream).verdict == "at-chance"
            and verdict(diagnosis, stream).baseline.name == "constant mean"
        )
    assert set(found(diagnosis, "F201").streams) == {Part("llm"), Part("wavlm")}
    assert "0.027" in found(diagnosis, "F101").summary
    assert verdict(diagnosis, "loss_d").verdict == "at-chance" and verdict(diagnosis, "loss_d").baseline.value == 2


def test_s2_parts_that_do_not_sum_are_told():
    facts = {"loss_weights": S2_WEIGHTS}
    parts = {name.split("/")[1].removesuffix("_epoch"): value for name, value in S2.items()}
    step = np.arange(1, 11)
    run = Run.of(facts, {f"train/loss/{stream}": series(step, [value] * 10) for stream, value in parts.items()})
    assert "F401" not in {finding.rule for finding in diagnose(run).findings}
    # adversarial only: a phase
    run.series[parse("train/loss/loss_g")] = series(step, [2.2556 - 15 * parts["msspec"]] * 10)
    assert found(diagnose(run), "F401").severity == "note" and found(diagnose(run), "F401").streams == (Part("msspec"),)
    run.series[parse("train/loss/loss_g")] = series(step, [1.7] * 10)
    assert found(diagnose(run), "F401").severity == "warning"


def dia(evaluated, trained, steps, norm, facts=None, probes=None, artifacts=()):
    """S3's forty loops: 18 codebooks of 1028, one held-out clip, clipping at 5."""
    step = np.linspace(steps / 60, steps, 60).astype(int)
    rng = np.random.default_rng(5)
    at = np.linspace(0, 59, len(evaluated)).astype(int)
    return Run.of(
        {
            "audio_vocab": 1028,
            "codebooks": 18,
            "held_out_clips": 1,
            "train_clips": 39,
            "max_grad_norm": 5.0,
            **(facts or {}),
        },
        {
            "train/ce_nats/audio": series(
                step, np.interp(step, np.linspace(0, steps, len(trained)), trained) * rng.normal(1, 0.02, 60)
            ),
            "eval/ce_nats/audio": series(step[at], evaluated),
            "train/grad_norm": series(
                step, np.interp(step, np.linspace(0, steps, len(norm)), norm) * rng.normal(1, 0.1, 60)
            ),
        },
        probes or {},
        list(artifacts),
    )


def test_s3_forty_loops_unconditional():
    crops = {"draws": 400, "distinct": 1, "possible": 56}
    run = dia(
        [6.75, 7.1, 7.8, 8.4, 9.0, 9.5, 10.2, 11.1],
        [6.9, 5, 3, 2, 1.3, 0.77, 0.4, 0.03],
        15600,
        [1, 6, 14, 20, 25, 22, 20, 15],
        {"unconditional_frac": 1.0, "guidance": 1},
        {"crops": crops},
    )
    diagnosis = diagnose(run)
    assert verdict(diagnosis, "audio").verdict == "memorising"
    # 0.03 in training, 11 held out: remembered, not copied
    assert "A202" not in {finding.rule for finding in diagnosis.findings}
    crops_found = found(diagnosis, "E104")
    assert any("E102" in row.get("explains", "") for row in crops_found.evidence)
    assert "1 held-out clip" in found(diagnosis, "E103").summary
    clipping = found(diagnosis, "D301")
    assert (
        clipping.since_step > 400 and "learning rate" in clipping.causes[0] and "initialisation" in clipping.causes[0]
    )


def test_s3_guidance_without_an_unconditional_branch():
    demos = [
        Artifact(
            "demo", f"{seed}_{temperature}.wav", 2000, {"temperature": temperature, "seed": seed, "match_frac": match}
        )
        for seed in (42, 43)
        for temperature, match in ((0.0, 0.97), (0.5, 0.5), (1.0, 0.02))
    ]
    run = dia(
        [6.75, 6.67, 6.66, 6.65, 6.65],
        [6.9, 6.5, 4, 1, 0.1],
        2000,
        [0.5, 0.5, 0.5],
        {"unconditional_frac": 0.0, "guidance": 4.0},
        artifacts=demos,
    )
    diagnosis = diagnose(run)
    guidance = found(diagnosis, "E106")
    assert "guidance 4" in guidance.summary
    run.facts = run.facts.updated({"guidance": 1.0})
    sampled = found(diagnose(run), "G105")
    assert "exp(-K CE)" in sampled.causes[0] and "frame of 18 codes" in sampled.summary


def test_s3_an_entropy_below_zero_is_a_wrong_measurement():
    step = np.arange(100, 2001, 100)
    run = Run.of({"audio_vocab": 1028}, {"train/entropy_nats": series(step, np.linspace(6.1, -0.4, 20))})
    assert found(diagnose(run), "E201").severity == "critical"


def test_s3_from_its_log(tmp_path):
    """The forty loops as their trainer logged them: JSON lines with loss, gradient norm and entropy, and evaluations in
    between."""
    step = np.linspace(260, 15600, 60).astype(int)
    rng = np.random.default_rng(5)
    fall = np.interp(step, np.linspace(0, 15600, 8), [6.9, 5, 3, 2, 1.3, 0.77, 0.4, 0.03]) * rng.normal(1, 0.02, 60)
    norm = np.interp(step, np.linspace(0, 15600, 8), [1, 6, 14, 20, 25, 22, 20, 15]) * rng.normal(1, 0.1, 60)
    entropy = np.interp(step, [0, 3000, 15600], [6.1, 5, -0.4])
    rows = []
    for index, at in enumerate(step):
        rows.append(
            {
                "step": int(at),
                "train/loss": fall[index],
                "train/grad_norm": norm[index],
                "train/output_entropy": entropy[index],
            }
        )
        if index % 8 == 7:
            rows.append({"step": int(at), "eval/loss": float(np.interp(index, [0, 59], [6.7, 11.1]))})
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    facts = {"audio_vocab": 1028, "codebooks": 18, "held_out_clips": 1, "train_clips": 39, "max_grad_norm": 5.0}
    diagnosis = diagnose(read(path, facts=facts | {"unconditional_frac": 0.0, "guidance": 4.0}))
    assert verdict(diagnosis, "total").verdict == "memorising"
    assert "1 held-out clip" in found(diagnosis, "E103").summary
    assert found(diagnosis, "D301").since_step > 400
    assert "guidance 4" in found(diagnosis, "E106").summary
    assert found(diagnosis, "E201").severity == "critical"


@KINDS
def test_s4_text_above_chance_and_audio_copying(tmp_path, kind):
    step = np.arange(10, 501, 10)
    rng = np.random.default_rng(6)
    text = np.interp(step, [0, 500], [14, 10]) + rng.normal(0, 0.15, 50)
    audio = 0.05 + 7.95 * np.exp(-step / 60) + np.abs(rng.normal(0, 0.01, 50))
    path = as_log(tmp_path, kind, {"step": step, "text_loss": text, "audio_loss": audio})
    diagnosis = diagnose(read(path, facts={"text_vocab": 128256, "audio_vocab": 1026, "pretrained": True}))
    assert verdict(diagnosis, "text").verdict == "worse-than-chance"
    assert verdict(diagnosis, "audio").verdict == "degenerate"
    assert diagnosis.findings[0].rule == "A201" and diagnosis.findings[0].severity == "critical"
    # one cause, not six symptoms
    assert len(diagnosis.findings) == 1, [(one.rule, one.summary) for one in diagnosis.findings]


@pytest.mark.parametrize("fall", [80, 150, 300])
def test_s4_however_fast_the_text_falls_from_above_chance(fall):
    """Text from 14 to 10 and audio from 8 to 0.05 in 500 steps: one cause, labels that are not shifted."""
    step = np.arange(0, 500, 5)
    rng = np.random.default_rng(0)
    text = 10 + 4 * np.exp(-step / fall) + rng.normal(0, 0.1, len(step))
    audio = 0.05 + 7.95 * np.exp(-step / 60) * (1 + rng.normal(0, 0.02, len(step)))
    run = Run.of(
        facts={"text_vocab": 128256, "audio_vocab": 1026},
        series={"train/ce_nats/text": Series(step, text), "train/ce_nats/audio": Series(step, audio)},
    )
    assert diagnose(run).findings[0].rule == "A201"
