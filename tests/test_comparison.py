"""`earnest compare` and the diagnosis of a directory: who is better by more than the interval, and what differs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from earnest.cli import main
from earnest.comparison import LABELS, PEAK, One, compare, names_of
from earnest.report.compared import better, headline
from earnest.rules import diagnose
from earnest.run import Run
from earnest.streams import Codebook, Part
from tests.equipment.report_fixture import make_run

LOGS = Path(__file__).parent / "logs"
HF = [str(LOGS / name) for name in ("hf_healthy", "hf_learning_rate_x100", "hf_overfit_few_clips")]


def curve(level: float, seed: int, steps: int = 400) -> tuple[np.ndarray, np.ndarray]:
    step, random = np.arange(1, steps + 1), np.random.default_rng(seed)
    return step, level + 2 * np.exp(-step / 40) + random.normal(0, 0.05, steps)


def one(name: str, levels: list[float], seed: int = 0, steps: int = 400, **facts) -> One:
    series = {}
    for index, level in enumerate(levels):
        step, value = curve(level, seed * 97 + index, steps)
        series[f"train/ce_nats/codebook_{index}"] = step, value
        series[f"eval/ce_nats/codebook_{index}"] = step[19::20], value[19::20] + 0.1
    run = Run.of({"audio_vocab": 1026, **facts}, series)
    return One(name, run, diagnose(run))


def test_a_difference_counts_if_it_is_more_than_the_interval():
    found = compare([one("a", [5.0, 4.0], 1), one("b", [5.5, 4.0], 2)])
    real, chance = found.at_end
    assert (real.stream, real.source, real.winner) == (Codebook(0), "evaluation", 0) and chance.winner is None
    gap = real.gap(1)
    assert gap is not None and gap.by == pytest.approx(0.5, abs=0.2) and gap.interval is not None
    assert better(real).startswith("A, by 0.") and better(chance).startswith("none: ")
    assert headline(found.at_end) == "Better by more than the interval, of 2 streams: A on 1; no run on 1."
    assert found.common_step is None and not found.at_common


def test_runs_that_differ_by_their_seed_alone_are_rarely_told_apart():
    pairs = [compare([one("a", [5.0], 2 * seed), one("b", [5.0], 2 * seed + 1)]).at_end[0] for seed in range(40)]
    assert sum(contest.winner is not None for contest in pairs) <= 4


def test_runs_of_different_lengths_are_also_compared_where_all_have_been():
    found = compare([one("short", [5.0], steps=200), one("long", [5.0], steps=400)])
    assert found.common_step == 200
    [there] = found.at_common
    assert there.measures[0] is not None and there.measures[1] is not None
    assert there.measures[1].value == pytest.approx(there.measures[0].value, abs=0.3)


def test_an_evaluation_long_before_the_common_step_is_not_compared():
    late = one("late", [5.0], steps=400)
    ends = {key: one.where(one.step % 400 <= 20) for key, one in late.run.series.items() if key.split == "eval"}
    run = Run.of(late.run.facts, late.run.series | ends)
    [contest] = compare([one("short", [5.0], steps=200), One("late", run, diagnose(run))]).at_common
    assert contest.why_not == "measured at steps 20 and 200"


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"audio_vocab": 2050}, "another vocabulary: 1026 and 2050"),
        ({"codec": "mimi"}, "another codec: amy-tiny and mimi"),
        ({"held_out_clips": 9}, "another held-out clips: 8 and 9"),
    ],
)
def test_what_means_something_else_is_not_compared(facts, why):
    [contest] = compare([one("a", [5.0], codec="amy-tiny", held_out_clips=8), one("b", [3.0], **facts)]).at_end
    assert contest.why_not == why and contest.winner is None and why in better(contest)


def test_a_loss_that_says_nothing_is_not_better():
    healthy, worse = one("a", [5.0], 1), one("b", [5.6], 2)
    step, value = curve(5.0, 3)
    curves = {"train": (step, value / 1e3), "eval": (step[::20], value[::20] / 1e3)}
    leak = {f"{split}/ce_nats/codebook_0": points for split, points in curves.items()}
    run = Run.of({"audio_vocab": 1026}, leak)
    leaking = One("c", run, diagnose(run))
    assert leaking.diagnosis.verdicts[0].verdict == "degenerate"
    [contest] = compare([leaking, healthy]).at_end
    assert contest.winner is None and "degenerate" in better(contest)
    [contest] = compare([leaking, healthy, worse]).at_end
    assert contest.winner == 1 and better(contest).endswith("; A degenerate")


def test_lower_is_not_better_for_one_network_against_another():
    series = {f"train/loss/{name}": curve(1.0, 1) for name in ("loss_d", "adv_g", "mel")}
    runs = [One(name, run := Run.of({}, series), diagnose(run)) for name in "ab"]
    told = {contest.stream: better(contest) for contest in compare(runs).at_end}
    assert told[Part("loss_d")] == told[Part("adv_g")] != told[Part("mel")] == "none: the same"


def test_what_differs_is_told_by_group():
    rate = {"train/learning_rate": ([1, 2, 3], [1e-3, 2e-3, 1e-3])}
    first = {"config": {"data": {"path": "/home/me/a"}, "width": 64}, "train_clips": 40, "device": "H200"}
    first["label_counts"] = {"codebook_0": {1: 50, 2: 50}}
    second = {"config": {"data": {"path": "/home/me/b"}, "width": 64, "dropout": 0.1}, "train_clips": 40}
    second["label_counts"] = {"codebook_0": {1: 75, 2: 25}}
    runs = [Run.of(first, rate), Run.of(second, rate)]
    found = compare([One(name, run, diagnose(run)) for name, run in zip("ab", runs, strict=True)])
    told = {(group, name): values for group, name, values in found.differences}
    assert told == {
        ("configuration", "dropout"): (None, 0.1),
        ("data", "data.path"): ("/home/me/a", "/home/me/b"),
        ("data", LABELS): (0.0, 0.25),
        ("machine", "device"): ("H200", None),
    }
    assert ("configuration", PEAK) not in told


def test_names_tell_paths_apart():
    assert names_of([Path("/x/a/log.csv"), Path("/x/b/log.csv")]) == ["a", "b"]
    deep = ["a/runs/1", "b/runs/1", "b/runs/2"]
    assert names_of([Path("/x") / name for name in deep]) == deep
    assert names_of([Path("/x/a"), Path("/x/a")]) == ["a (1)", "a (2)"]


def test_foreign_logs_on_the_command_line(tmp_path, capsys):
    assert main(["compare", *HF[:2]]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "A hf_healthy" in text and "of 1 stream: A on 1." in text and "B102 nothing-learnt" in text
    assert "highest learning rate 0.002904 0.2904" in text and "the luck of the seed" in text
    assert main(["compare", *HF, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 1 and [contest["better"] for contest in told["at_end"]] == [0]
    page = tmp_path / "page.html"
    assert main(["compare", *HF, "--format", "html", "--out", str(page)]) == 0
    assert all(f"{letter} {Path(log).name}" in page.read_text() for letter, log in zip("ABC", HF, strict=True))


def test_a_run_of_ours_beside_a_log_of_somebody_else(tmp_path, capsys):
    make_run(tmp_path / "ours")
    assert main(["compare", str(tmp_path / "ours"), HF[0]]) == 0
    assert "codebook_0" in capsys.readouterr().out


def test_too_few_and_too_many_runs_are_refused(tmp_path, capsys):
    assert main(["compare", HF[0]]) == 2
    assert "seen:     1 run\n" in capsys.readouterr().err
    for index in range(13):
        shutil.copytree(HF[0], tmp_path / str(index))
    assert main(["compare", str(tmp_path)]) == 2
    assert "2 to 12" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path) -> Path:
    for log in HF:
        shutil.copytree(log, tmp_path / "runs" / Path(log).name)
    return tmp_path / "runs"


def test_a_directory_of_runs_is_diagnosed(folder, tmp_path, capsys):
    assert main(["diagnose", str(folder)]) == 1
    text = capsys.readouterr().out
    assert all(Path(log).name in text for log in HF) and "✗ critical B102 nothing-learnt" in text
    assert main(["diagnose", str(folder), "--format", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert sorted(name.partition("/")[0] for name in told["runs"]) == sorted(Path(log).name for log in HF)
    assert all(one["schema"] == 2 for one in told["runs"].values()) and told["unread"] == {}
    assert main(["diagnose", str(folder), "--format", "markdown"]) == 1
    assert capsys.readouterr().out.count("GPT2LMHeadModel") == 3
    assert main(["diagnose", str(folder), "--format", "html", "--out", str(tmp_path / "pages")]) == 1
    index = (tmp_path / "pages" / "index.html").read_text()
    pages = sorted(path.name for path in (tmp_path / "pages").glob("*.html") if path.name != "index.html")
    assert len(pages) == 3 and all(f'href="{page}"' in index for page in pages)


def test_one_run_of_a_directory_that_cannot_be_read_is_told(folder, capsys):
    (folder / "broken").mkdir()
    (folder / "broken" / "run.json").write_text("{}")
    (folder / "broken" / "steps.jsonl").write_text('{"step": 1, "time_s": 1.0, "train/loss": 1.0}\n')
    assert main(["diagnose", str(folder)]) == 1
    assert "broken · not read: " in capsys.readouterr().out


def test_a_healthy_directory_ends_with_0(folder):
    shutil.rmtree(folder / "hf_learning_rate_x100")
    assert main(["diagnose", str(folder)]) == 0
    assert main(["diagnose", str(folder), "--fail-on", "warning"]) == 1
