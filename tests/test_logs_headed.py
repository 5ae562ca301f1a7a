"""Tables as programs print them: names above, numbers below, or numbers alone; and names of a loss in unusual words."""

import pytest

from earnest import logs
from earnest.errors import UserError
from earnest.logs.formats.headed import Headed
from earnest.rules import diagnose

SPACY = """Pipeline: ['transformer', 'ner']
E    #       LOSS NER  ENTS_F  SCORE
---  ------  --------  ------  ------
  0       0    273.93    0.00    0.00
  2     200    120.93    0.10    0.10
  4     400     80.25    0.30    0.30
"""
CHAINER = """epoch       iteration   main/loss   validation/main/loss  elapsed_time
1           100         7.69427                           10.2
1           200         7.10000     6.90000               20.4
2           300         6.50000                           30.6
2           400         6.10000     6.20000               40.8
"""
LINE_BY_LINE = "".join(
    f"Epoch {epoch:02d} of 5\n***train_loss,  train_acc,  valid_loss***\n{5 - epoch:.4f}\t0.1\t{6 - epoch:.4f}\n"
    for epoch in range(1, 4)
).replace(",  ", "  ")
NUMBERS = "".join(
    f"[ INFO : 2025-06-14 04:05:47,255 ] - |   150|   {100 * k}|  {5 - k / 4 - k % 2 / 9:.5f}|\n" for k in range(9)
)

PROSE = "".join(
    f"TRAIN EPOCH  {k}:\nloss    {1.4 - k / 5}\nVal epoch {k} has acc 0.2 and loss {1.5 - k / 10}\n" for k in range(2)
)


@pytest.mark.parametrize(
    ("text", "key", "steps", "values"),
    [
        (SPACY, "train/loss/ner", [0, 200, 400], [273.93, 120.93, 80.25]),
        (CHAINER, "train/loss", [100, 200, 300, 400], [7.69427, 7.1, 6.5, 6.1]),
        (CHAINER, "eval/loss", [200, 400], [6.9, 6.2]),
        (LINE_BY_LINE, "eval/loss", [1, 2, 3], [5.0, 4.0, 3.0]),
        (NUMBERS, "train/loss", [0, 100], [5.0, 4.63889]),
        ("Epoch: [1][5/100] Err 6.91\nEpoch: [1][6/100] Err 6.90\n", "train/loss", [5, 6], [6.91, 6.90]),
        ("0.69 loss @ it 50\n0.68 loss @ it 100\n", "train/loss", [50, 100], [0.69, 0.68]),
        ("step 1 melloss 3.5\nstep 2 melloss 3.4\n", "train/loss/mel", [1, 2], [3.5, 3.4]),
        (PROSE, "eval/loss", [0, 1], [1.5, 1.4]),
        (PROSE, "train/loss", [0, 1], [1.4, 1.2]),
    ],
    ids=[
        "spacy",
        "chainer",
        "chainer's evaluation",
        "names above each",
        "no names",
        "Err",
        "@",
        "glued",
        "prose",
        "training above prose",
    ],
)
def test_a_printed_table_is_read_by_the_names_above_it(text, key, steps, values, tmp_path):
    (tmp_path / "train.log").write_text(text)
    series = logs.read(tmp_path / "train.log")[key]
    assert series.step[: len(steps)].tolist() == steps
    assert series.value[: len(values)].tolist() == pytest.approx(values, abs=1e-4)


def test_an_error_rate_beside_a_loss_is_no_loss(tmp_path):
    (tmp_path / "train.log").write_text("ep=1 loss=0.9 err=0.3\nep=2 loss=0.8 err=0.2\n")
    run = logs.read(tmp_path / "train.log")
    assert run["train/loss"].value.tolist() == [0.9, 0.8] and "err" in (run.facts.unmapped or {})


def test_numbers_that_do_not_count_are_no_log(tmp_path):
    (tmp_path / "pitch.txt").write_text("".join(f"{0.5 * (k % 5):.2f} {220 + k % 7:.1f}\n" for k in range(30)))
    with pytest.raises(UserError):
        logs.read(tmp_path / "pitch.txt")


def test_an_evaluation_in_another_unit_is_told(tmp_path):
    rows = "".join(f"{k},{200 / k:.2f},{10_290 - 10 * k}\n" for k in range(1, 10))
    (tmp_path / "log.csv").write_text("epoch,train_loss,val_loss\n" + rows)
    assert [one.rule for one in diagnose(logs.read(tmp_path / "log.csv")).findings if one.severity != "note"] == [
        "H101"
    ]


def test_one_outlier_in_a_running_mean_is_no_divergence(tmp_path):
    means = [0.117, 0.191, 0.140, 0.114, 0.120, 4.697, 4.031, 3.534, 3.146, 2.841]
    (tmp_path / "train.log").write_text("".join(f"epoch 1 - iter {k}/15 - loss {m}\n" for k, m in enumerate(means, 1)))
    assert not [one.rule for one in diagnose(logs.read(tmp_path / "train.log")).findings if one.severity != "note"]


def test_several_held_out_sets_that_rise_are_told_once(tmp_path):
    rows = "".join(
        f"{100 * k},{2 / k:.3f},{2 + abs(k - 4) * 0.2:.3f},{3 + abs(k - 5) * 0.3:.3f}\n" for k in range(1, 21)
    )
    (tmp_path / "log.csv").write_text("step,loss,eval_news_loss,eval_wiki_loss\n" + rows)
    findings = [one for one in diagnose(logs.read(tmp_path / "log.csv")).findings if one.severity != "note"]
    assert [one.rule for one in findings] == ["E101"] and "one of 2 held-out sets" in findings[0].summary


def test_a_gradient_norm_that_leaps_once_is_told(tmp_path):
    norms = [14.98, 9.78, 7.64, 92.1, 29.0, 5.21, 7.83, 7.79, 11140.0]
    rows = [f"{{'loss': {1.4 + k % 3 / 10}, 'grad_norm': {norm}}}" for k, norm in enumerate(norms)]
    (tmp_path / "train.log").write_text("\n".join(rows))
    assert "D208" in [one.rule for one in diagnose(logs.read(tmp_path / "train.log")).findings]


@pytest.mark.parametrize("part", ["1 ", "1", "12:34:56 ", "nan ", " / ", "ab  ", "1e-"])
def test_a_line_of_any_length_takes_time_in_proportion(part):
    """By the square of its length each of these lines would take hours."""
    line = part * 200_000 + "x"
    headed = Headed()
    headed.words(line)
    assert headed.numbers(line) is None
