"""The page as a browser shows it: nothing is wider than it, no number is broken, nothing bars a reader, the chart tools
work by mouse and keys, and it prints on one page."""

import csv
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from earnest import logs, report
from earnest.comparison import One, compare
from earnest.errors import UserError
from earnest.report import several
from earnest.report.page.axes import axes
from earnest.rules import diagnose
from earnest.rules.finding import Diagnosis
from earnest.run import Run, Series, read_run
from tests.equipment.browser import look_at
from tests.equipment.cases import case
from tests.equipment.report_fixture import STEPS, make_diagnosis, make_run

HERE = Path(__file__).parent
PAGES = ("fixture", "empty", "long", "foreign", "gan", "sick", "compared", "several")


def long_names() -> Run:
    """Names and numbers that are as long as they get, and series that the page thins."""
    names = [f"train/loss/{'a_very_long_name_of_a_part_' * 3}{index}" for index in range(3)]
    step, random = np.arange(1, 100_001), np.random.default_rng(0)
    series = {name: Series(step, 1e-7 + random.random(len(step)) ** 8) for name in names}
    series["eval/ce_nats/codebook_0"] = Series(step[::5000], np.linspace(7, 5, 20))
    return Run.of({"audio_vocab": 1026, "config": {"path": "/home/somebody/data/" + "x" * 300}}, series)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def pages(folder) -> dict[str, Path]:
    sick = case(HERE / "rules" / "A201.md", "Sick")
    runs = {
        "fixture": (make_run(folder / "run"), make_diagnosis()),
        "empty": (Run(), Diagnosis([], [], [])),
        "long": (run := long_names(), diagnose(run)),
        "foreign": (run := logs.read(HERE / "logs" / "hf_labels_unshifted"), diagnose(run)),
        "gan": (run := logs.read(HERE / "logs" / "gan_discriminator_lr_x30"), diagnose(run)),
        "sick": (sick, diagnose(sick)),
    }
    for name, (run, diagnosis) in runs.items():
        report.html(run, diagnosis, folder / f"{name}.html")
    beside = [One(name, run, diagnosis) for name, (run, diagnosis) in runs.items() if name != "empty"]
    report.present_comparison(compare(beside), "html", folder / "compared.html")
    several.pages(beside, {"broken": UserError("no number in it", "", "")}, folder / "reports")
    shutil.copy(folder / "reports" / "index.html", folder / "several.html")
    return {name: folder / f"{name}.html" for name in PAGES}


@pytest.fixture(scope="module")
def seen(pages, folder):
    return look_at(pages, folder, tools="fixture")


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_page_and_no_number_is_broken(name, seen):
    views = seen["measured"][name]["views"]
    assert [(view["asked"], view["state"]) for view in views] == [
        (width, state) for widths in ((390,), (768, 1440)) for state in ("closed", "open") for width in widths
    ]
    for view in views:
        where = (name, view["asked"], view["state"])
        assert view["scroll_width"] == view["width"] == view["asked"], where
        assert not view["wide"] and not view["scrolls"], (where, view)
        assert not view["broken"], (where, view["broken"])


@pytest.mark.parametrize("name", PAGES)
def test_nothing_bars_a_reader(name, seen):
    assert seen["measured"][name]["violations"] == [] and seen["measured"][name]["errors"] == []


@pytest.mark.parametrize("name", PAGES)
def test_it_prints_on_one_page(name, seen):
    assert seen["printed"][name] == 1


def test_values_are_read_by_keys_and_told(seen):
    tools = seen["tools"]
    assert tools["live"].startswith("text, step 1: train ")
    assert tools["beside"].startswith("step 1: train "), "all charts show the same step"


def test_a_line_is_hidden_by_its_key(seen):
    assert seen["tools"]["hidden"] and seen["tools"]["toggled"] == [1, 0]


def test_a_chart_is_enlarged_zoomed_smoothed_and_closed(seen):
    tools = seen["tools"]
    assert tools["open"] and tools["focused"] and tools["all"] == [0, STEPS]
    assert tools["zoomed"] == [300, 600] and tools["said"].startswith("step 600: train NaN")
    assert 0 < tools["dragged"][0] < tools["dragged"][1] < STEPS
    assert tools["points"] == tools["dragged"][1] - tools["dragged"][0] + 1, "every raw step is a point"
    assert tools["smoothed"] and tools["reset"] == [0, STEPS]
    assert tools["closed"] and tools["back"], "focus goes back to where it was"
    assert tools["errors"] == [] and tools["large_violations"] == []
    assert not tools["large_measured"]["wide"] and not tools["large_measured"]["broken"]


def test_a_chart_is_drawn_over_epochs_and_over_time(seen):
    over = seen["tools"]["over"]
    assert over["epoch"]["ticks"][-2] == "4" and over["epoch"]["said"].endswith(" · epoch 4")
    assert over["time"]["ticks"][-2] == "2 h" and over["time"]["said"].endswith(" · time 2.5 h"), "600 steps of 15 s"
    assert over["step"]["ticks"][-2] == "600" and "epoch" not in over["step"]["said"]
    steps, epochs = (np.array(re.findall(r"[\d.]+", over[kind]["line"]), float) for kind in ("step", "epoch"))
    assert np.allclose(steps, epochs, atol=0.2), "an epoch is always as long"


def test_a_page_has_the_axes_that_its_run_tells(tmp_path):
    assert axes(Run()) == {} and axes(Run.of({"steps_per_epoch": 7})) == {"epoch": 7}
    rows = [(1, 10.0, ""), (2, 11.0, ""), (2, 99.0, "resumed"), (2, 100.0, ""), (3, 102.0, "")]
    (tmp_path / "run.json").write_text('{"schema": 1, "facts": {}, "probes": {}}')
    told = (
        {"step": step, "time_s": at, **({"event": word} if word else {"train/loss": 1.0})} for step, at, word in rows
    )
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    assert axes(read_run(tmp_path)) == {"time": {"step": [1, 2, 3], "seconds": [0.0, 2.0, 4.0]}}


def test_a_chart_is_downloaded(seen):
    with open(seen["tools"]["csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    assert float(rows[0]["train"]) == pytest.approx(9, abs=0.6) and rows[-1]["train"] == "NaN"
    picture = ElementTree.parse(seen["tools"]["svg"]).getroot()
    drawn = [one for one in picture.iter("{http://www.w3.org/2000/svg}path") if one.get("stroke") == "rgb(0, 114, 178)"]
    assert drawn and not picture.findall(".//*[@class]"), "it needs no style sheet"


def test_a_page_shows_no_folder_of_the_machine(pages):
    text = pages["long"].read_text(encoding="utf-8")
    assert "/home/somebody" not in text and "…/xxx" in text


def test_a_long_series_is_thinned_and_says_so(pages):
    assert len(pages["long"].read_text(encoding="utf-8")) < 1_000_000


@pytest.mark.parametrize("name, scale", [("_runtime", 1), ("_timestamp", 1), ("timestamp", 1000)])
def test_a_foreign_log_with_times_and_epochs_has_these_axes(name, scale, tmp_path):
    since = 1.7e9 * scale if name != "_runtime" else 0
    rows = (f"{10 * n},{n / 4},{since + n * 3 * scale},{5 - n / 40}\n" for n in range(40))
    (tmp_path / "a.csv").write_text(f"step,epoch,{name},loss\n" + "".join(rows))
    found = axes(logs.read(tmp_path / "a.csv"))
    assert found["epoch"] == 40 and found["time"]["step"][-1] == 390 and found["time"]["seconds"][-1] == 117
