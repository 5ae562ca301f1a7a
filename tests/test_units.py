"""What a printed loss is: nats or bits, a mean or a sum. Recognised by a witness: a perplexity, an accuracy, the level
itself, the trainer's page or the user's word."""

import math

import numpy as np
import pytest

from earnest import logs
from earnest.rules import diagnose
from earnest.rules.finding import Verdict
from earnest.run import Run
from earnest.streams import parse

STEPS = np.arange(100, 3100, 100)
FALL = 4.0 + 4.0 * np.exp(-np.arange(30) / 8)


def table(folder, **columns):
    path = folder / "metrics.csv"
    rows = zip(STEPS[: len(next(iter(columns.values())))], *columns.values(), strict=True)
    path.write_text("step," + ",".join(columns) + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("rows", [1, 2, 30])
@pytest.mark.parametrize(("base", "factor"), [(2, math.log(2)), (math.e, 1.0)])
def test_a_perplexity_tells_the_base(base, factor, rows, tmp_path):
    path = table(tmp_path, loss=FALL[:rows], ppl=base ** FALL[:rows], lr=[1e-4] * rows)
    assert logs.read(path)["train/loss"].value == pytest.approx(FALL[:rows] * factor)


def test_of_one_row_it_must_agree_closely(tmp_path):
    path = table(tmp_path, loss=FALL[:1], ppl=[1.03 * 2 ** FALL[0]], lr=[1e-4])
    assert logs.read(path)["train/loss"].value == pytest.approx(FALL[:1])


def test_the_user_may_state_bits(tmp_path):
    path = table(tmp_path, loss=FALL)
    run = logs.read(path, facts={"units": {"total": "bits"}, "text_vocab": 1000})
    assert run["train/loss"].value == pytest.approx(FALL * math.log(2))
    assert any("bits" in note for note in run.notes)
    path = table(tmp_path, loss=FALL, ppl=2**FALL)
    stated = logs.read(path, facts={"units": {"total": "bits"}})
    assert stated["train/loss"].value == pytest.approx(FALL * math.log(2)), "not twice"


def test_a_page_may_state_bits(tmp_path):
    rows = [
        f"num_updates {step} | nll_loss {nll:.3f} | gnorm 0.5 | lr 0.001\n"
        for step, nll in zip(STEPS, FALL, strict=True)
    ]
    path = tmp_path / "train.log"
    path.write_text("".join(rows))
    run = logs.read(path)
    assert run.facts.trainer == "fairseq"
    assert run["train/ce_nats"].value == pytest.approx(FALL * math.log(2), abs=1e-3)


def judged(losses, **facts) -> Verdict:
    series = {"train/loss": (STEPS, losses)}
    if "accuracy" in facts:
        series["train/accuracy_frac"] = (STEPS, facts.pop("accuracy"))
    return diagnose(Run.of(facts, series)).verdicts[0]


def test_a_sum_is_told_by_its_level():
    verdict = judged(100 * FALL)
    assert verdict.verdict == "cannot-judge" and "a sum over targets" in verdict.why
    diagnosis = diagnose(Run.of({}, {"train/loss": (STEPS, 100 * FALL)}))
    assert not diagnosis.asks, "a vocabulary would not help"


def test_beside_a_vocabulary_an_accuracy_tells_a_sum():
    right = np.linspace(0.1, 0.4, 30)
    assert judged(100 * FALL, audio_vocab=1025, accuracy=right).verdict == "cannot-judge"
    assert judged(100 * FALL, audio_vocab=1025).verdict == "worse-than-chance"
    assert judged(100 * FALL, audio_vocab=1025, accuracy=right / 1000).verdict == "worse-than-chance"


def test_what_grew_that_high_is_no_sum():
    assert "a sum over targets" not in judged(np.geomspace(3, 3e4, 30)).why


def test_a_line_that_others_print_too_needs_its_level(tmp_path):
    """Qwen3-TTS prints what any tutorial does: a first loss between 5.5 and 25 is its own."""
    path = tmp_path / "train.log"
    path.write_text("".join(f"Epoch {epoch} | Step 0 | Loss: {loss}\n" for epoch, loss in enumerate([4.2, 2.9, 2.1])))
    assert logs.read(path).facts.trainer is None
    path.write_text("".join(f"Epoch {epoch} | Step 0 | Loss: {loss}\n" for epoch, loss in enumerate([13.6, 8.7, 6.5])))
    run = logs.read(path)
    assert run.facts.trainer == "qwen3-tts"
    assert [finding.rule for finding in diagnose(run).findings] == ["H109"]


def test_losses_in_a_list_are_told_apart(tmp_path):
    path = tmp_path / "train.log"
    path.write_text("".join(f"epoch {i} losses: [{3 - 0.1 * i:.2f}, 2.0, 1.5]\n" for i in range(9)))
    run = logs.read(path, overrides={"list_1": "train/loss/mel"})
    assert run[f"train/loss/{parse('mel')}"].value[0] == 3.0
