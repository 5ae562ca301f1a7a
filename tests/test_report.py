"""The report: all formats say the same, survive hostile text, and need nothing but themselves."""

import html
import io
import json
import math
import re
import sys
import time
import zlib
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from rich.console import Console

from earnest import report
from earnest.report import charts, sounds, view
from earnest.report.as_json import plain
from earnest.rules import diagnose
from earnest.rules.finding import Baseline, Diagnosis, NotChecked, Word
from earnest.run import Artifact, Run, Series
from earnest.streams import Codebook, parse
from tests.equipment.report_fixture import ARABIC, STEPS, make_diagnosis, make_run, tone

MARK = re.compile(r'class="mark-name" x="[\d.]+" y="[\d.]+" text-anchor')
SCHEMA = json.loads((Path(report.__file__).parent / "schema.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "fixture")


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.html(run, make_diagnosis(), path)
    return path.read_text(encoding="utf-8")


def terminal(run, diagnosis, width=80, **settings):
    console = Console(file=io.StringIO(), width=width, **settings)
    report.terminal(run, diagnosis, console)
    return console.file.getvalue()


def words(text):
    """Text without the spaces that wrapping puts in."""
    return re.sub(r"\s+", "", text)


def words_apart(text):
    return " ".join(text.split())


class Reader(HTMLParser):
    """The text and the tags of a page, as a browser takes them."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags, self._skip = "", [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._skip = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._skip = False

    def handle_data(self, data):
        self.text += "" if self._skip else data


def valid(value, schema):
    """A small JSON Schema validator: the words that schema.json uses, and no others."""
    known = {"$schema", "$defs", "$ref", "title", "description", "type", "required", "properties", "items"}
    known |= {"additionalProperties", "enum", "const", "anyOf", "minItems", "maxItems", "minimum", "maximum"}
    assert schema.keys() <= known, schema.keys()
    if "$ref" in schema:
        return valid(value, SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]])
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    types = schema.get("type", [])
    checks = [
        not types or any(isinstance(value, kinds[kind]) for kind in ([types] if isinstance(types, str) else types)),
        "const" not in schema or value == schema["const"],
        "enum" not in schema or value in schema["enum"],
        "anyOf" not in schema or any(valid(value, one) for one in schema["anyOf"]),
    ]
    if isinstance(value, dict):
        checks.append(set(schema.get("required", [])) <= value.keys())
        fallback = schema.get("additionalProperties", {})
        checks += [valid(item, schema.get("properties", {}).get(name, fallback)) for name, item in value.items()]
    if isinstance(value, list):
        checks += [schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf)]
        checks += [valid(item, schema.get("items", {})) for item in value]
    if isinstance(value, int | float):
        checks.append(schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf))
    return all(checks)


def test_all_formats_say_the_same(run, page):
    diagnosis = make_diagnosis()
    said = {
        "terminal": words(terminal(run, diagnosis)),
        "markdown": words(html.unescape(re.sub(r"\\([\\`*\[\]|~#!_])", r"\1", report.markdown(run, diagnosis)))),
        "html": words(Reader(page).text).replace("`", ""),
        "json": words(" ".join(strings(json.loads(report.json(run, diagnosis))))),
    }
    expected = [
        field
        for finding in diagnosis.findings
        for field in (finding.rule, finding.name, finding.severity, finding.summary, finding.fix)
    ]
    expected += [field for finding in diagnosis.findings for field in (finding.next_probe, *finding.causes)]
    expected += [
        field for verdict in diagnosis.verdicts for field in (str(verdict.stream), verdict.verdict, verdict.why)
    ]
    expected += [field for ask in diagnosis.asks for field in (ask.what, ask.where, ask.command, *ask.hints)]
    expected += [*diagnosis.mapping, *diagnosis.mapping.values(), *run.notes]
    for name, text in said.items():
        for field in expected:
            shown = words(field if name == "json" else view.clean(field))
            assert (shown.replace("`", "") if name == "html" else shown) in text, (name, field)
    for rule in diagnosis.not_checked:
        assert all(rule.rule in text for name, text in said.items() if name != "terminal")
        assert all(rule.needs in text for text in said.values())
    numbers = [view.number(verdict.value) for verdict in diagnosis.verdicts] + ["97%", "[6.38,6.444]", "0.83"]
    for name in ("terminal", "markdown", "html"):
        assert all(words(number) in said[name] for number in numbers), name


def strings(value):
    if isinstance(value, dict):
        return [text for name, item in value.items() for text in [name, *strings(item)]]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [str(value)]


def test_findings_come_most_important_first(run, page):
    order = ["D501", "D402", "E105"]
    said = [
        terminal(run, make_diagnosis()),
        report.markdown(run, make_diagnosis()),
        report.json(run, make_diagnosis()),
        page,
    ]
    for text in said:
        places = [text.index(rule) for rule in order]
        assert places == sorted(places)
    assert page.index('id="findings"') < page.index('id="streams"') < page.index('id="loss"') < page.index('id="sound"')


def test_json_keeps_its_contract(run):
    said = json.loads(
        report.json(run, make_diagnosis()), parse_constant=lambda name: pytest.fail(f"{name} is no strict JSON")
    )
    assert valid(said, SCHEMA)
    assert list(said) == ["schema", "run", "verdicts", "findings", "not_checked", "mapping", "checked", "asks"]
    assert said["verdicts"][0]["value"] == "NaN" and said["findings"][0]["evidence"][0]["value"] == "NaN"
    assert said["verdicts"][1]["baseline"] == {"name": "bigram", "value": 5.71, "interval": [5.6, 5.82]}
    assert not valid(said | {"schema": 1}, SCHEMA) and not valid({**said, "findings": [{}]}, SCHEMA)


def test_schema_knows_every_verdict():
    word = SCHEMA["properties"]["verdicts"]["items"]["properties"]["verdict"]
    assert set(word["enum"]) == set(get_args(Word)) == set(view.LEVEL)


def test_json_takes_any_value():
    odd = {
        ("a", 1): np.float32("inf"),
        "b": np.array([1.0, math.nan]),
        "c": Path("x"),
        "d": {1},
        "e": "\udc80",
        "f": True,
        "g": -math.inf,
    }
    assert plain(odd) == {
        "('a', 1)": "Infinity",
        "b": [1.0, "NaN"],
        "c": "x",
        "d": [1],
        "e": "?",
        "f": True,
        "g": "-Infinity",
    }


def test_hostile_text_stays_text(run, page):
    tags = Reader(page).tags
    assert [tag for tag, _ in tags].count("script") == 1  # our own
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert "<script>alert" not in page
    for text in (
        page,
        terminal(run, make_diagnosis()),
        report.markdown(run, make_diagnosis()),
        report.json(run, make_diagnosis()),
    ):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "[red]" in terminal(run, make_diagnosis(), force_terminal=False)  # not taken for rich's markup
    assert "<script>" not in report.markdown(run, make_diagnosis())


def test_page_needs_no_network(page):
    """Nothing to fetch, and a policy that forbids it; the policy's hashes are those of the style and the script."""
    from hashlib import sha256

    sources = [
        value
        for _, attributes in Reader(page).tags
        for name, value in attributes.items()
        if name in ("src", "href", "action", "data", "poster")
    ]
    assert sources and all(source.startswith(("data:image/png", "data:audio/wav", "#")) for source in sources)
    assert not re.search(r"url\((?!#)", page) and "@import" not in page and "style=" not in page
    policy = html.unescape(
        next(tag[1]["content"] for tag in Reader(page).tags if tag[1].get("http-equiv") == "Content-Security-Policy")
    )
    assert "default-src 'none'" in policy
    for kind in ("style", "script"):
        (body,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.S)
        (hashed,) = re.findall(rf"{kind}-src 'sha256-([^']+)'", policy)
        assert sha256(body.encode()).digest() == b64decode(hashed)


def test_page_can_be_read_without_eyes_or_mouse(page):
    tags = Reader(page).tags
    assert ("html", {"lang": "en"}) in tags
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert all(
        attributes.keys() & {"aria-label", "aria-labelledby", "aria-hidden"} for tag, attributes in tags if tag == "svg"
    )
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    targets = [attributes["href"][1:] for tag, attributes in tags if tag == "a"]
    assert len(ids) == len(set(ids)) and set(targets) <= set(ids)


def test_page_draws_losses_with_their_baselines(page):
    tags = Reader(page).tags
    described = [tag[1]["aria-label"] for tag in tags if tag[1].get("class") == "chart" and tag[1].get("role") == "img"]
    codebook = next(words for words in described if words.startswith("codebook_0"))
    assert all(word in codebook for word in ("train", "eval", "uniform 6.933", "unigram 6.412", "bigram 5.71"))
    charts_drawn = [json.loads(attributes["data-chart"]) for _, attributes in tags if "data-chart" in attributes]
    chart = next(one for one in charts_drawn if one["title"] == "codebook_0")
    assert [line["name"] for line in chart["lines"]] == ["train", "eval"]
    assert chart["lines"][1]["step"] == {"from": 50, "by": 50, "count": STEPS // 50}
    assert [(rung["label"], rung["band"]) for rung in chart["rungs"]][1] == ("unigram 6.412", [6.38, 6.444])
    assert "clipped at 1" in page and "learning rate" in page
    assert "20 of 600 values are not finite, the first at step 581" in page
    assert "train NaN at step 600" in page


def test_page_plays_demos(run, page):
    """Every demo inside the run directory is embedded, at 16 kHz, with a picture; one outside is refused."""
    tags = Reader(page).tags
    sounds_embedded = [b64decode(attributes["src"].split(",")[1]) for tag, attributes in tags if tag == "audio"]
    assert len(sounds_embedded) == 19  # 3 steps, 2 prompts, 3 temperatures, 1 reference
    assert all(int.from_bytes(sound[24:28], "little") == 16_000 for sound in sounds_embedded)
    assert [tag for tag, _ in tags].count("img") == 19
    assert "../outside.wav cannot be played: it lies outside the run directory" in page
    assert ARABIC in page and "temperature 0.5" in page


def test_sound_over_the_limit_is_left_out_and_named(run, monkeypatch):
    from earnest.report.page import render, sound

    monkeypatch.setattr(sound, "MOST_BYTES", 400_000)
    page = render(run, make_diagnosis())
    embedded = [tag for tag, _ in Reader(page).tags].count("audio")
    (left_out,) = re.findall(r"(\d+) clips are not embedded", page)
    assert 0 < embedded < 19 and embedded + int(left_out) == 19
    assert "step_0000200" in page  # the oldest are named, not embedded


def test_page_shows_when_each_temperature_became_the_clip(run, tmp_path):
    demos = [
        Artifact("demo", f"{step}_{temperature}.wav", step, {"temperature": temperature, "match_frac": match})
        for step, matches in ((10, (0.1, 0.0)), (20, (0.95, 0.2)), (30, (1.0, 0.97)))
        for temperature, match in zip((0, 1), matches, strict=True)
    ]
    page = tmp_path / "page.html"
    report.html(replace(run, artifacts=demos), diagnose(run), page)
    words = page.read_text(encoding="utf-8")
    assert (
        "demos against the nearest training clip over steps: temperature 0 1 at step 30 · temperature 1 0.97 at step 30"
        in words
    )
    report.html(replace(run, artifacts=[]), diagnose(run), page)
    assert "nearest training clip" not in page.read_text(encoding="utf-8")


def test_unreadable_demos_are_told(run, tmp_path):
    for name, data in {
        "empty.wav": b"",
        "text.wav": b"not a wav at all",
        "cut.wav": (run.path / "references" / "seven.wav").read_bytes()[:30],
    }.items():
        (tmp_path / name).write_bytes(data)
    tone(tmp_path / "none.wav", 0.0)
    artifacts = [
        Artifact("demo", name, 1)
        for name in ("empty.wav", "text.wav", "cut.wav", "none.wav", "absent.wav", "/etc/passwd.wav")
    ]
    report.html(Run(path=tmp_path, artifacts=artifacts), Diagnosis([], [], []), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().count("cannot be played") == len(artifacts)


def test_terminal_fits_80_columns_without_colour(run):
    text = terminal(run, make_diagnosis(), no_color=True)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert "\x1b[" in terminal(run, make_diagnosis(), force_terminal=True, color_system="standard")
    assert max(len(line) for line in terminal(run, make_diagnosis(), width=40).splitlines()) <= 40


def test_terminal_of_any_encoding_can_print_it(run):
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    report.terminal(run, make_diagnosis(), Console(file=file, width=80))
    file.flush()
    assert b"worse-than-chance" in file.buffer.getvalue()


def test_terminal_names_few_of_many_columns():
    diagnosis = Diagnosis([], [], [], {f"column{index}": f"train/column{index}" for index in range(5000)})
    text = terminal(Run(), diagnosis)
    assert "and 4988 more" in text and len(text.splitlines()) < 30


def test_an_empty_run_has_a_report(tmp_path):
    for path in report.write(Run(), Diagnosis([], [], []), tmp_path / "new"):
        assert path.read_text(encoding="utf-8")
    assert "no streams · no findings" in terminal(Run(), Diagnosis([], [], []))


def test_write_leaves_no_half_of_a_report(run, tmp_path, monkeypatch):
    report.write(run, make_diagnosis(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["report.html", "report.json", "report.md"]
    monkeypatch.setattr(view, "headline", lambda diagnosis: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(Run(), make_diagnosis(), tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_million_steps_make_a_small_page_in_seconds(tmp_path):
    random, step = np.random.default_rng(0), np.arange(1, 1_000_001)
    names = [f"train/ce_nats/codebook_{codebook}" for codebook in range(8)] + ["train/grad_norm"]
    series = {name: Series(step, 6 + random.normal(size=len(step))) for name in names}
    series[names[0]].value[123_456] = 40.0
    start_s = time.process_time()
    report.html(Run.of(series=series), Diagnosis([], [], []), tmp_path / "report.html")
    assert time.process_time() - start_s < 10
    text = (tmp_path / "report.html").read_text()
    assert len(text) < 1_000_000
    assert "40" in text  # the one spike is kept


def test_thousands_of_columns_are_cut_short_and_counted(tmp_path):
    names = (
        [f"train/loss/part_{index}" for index in range(1500)]
        + [f"train/metric_{index}" for index in range(1500)]
        + ["no/such/place", "train/odd"]
    )
    run = Run.of(series={name: Series(np.arange(50), np.linspace(1, 2, 50)) for name in names})
    start_s = time.process_time()
    report.html(run, Diagnosis([], [], []), tmp_path / "report.html")
    assert time.process_time() - start_s < 10
    text = (tmp_path / "report.html").read_text()
    assert len(text) < 1_500_000
    assert "1420 more streams are not drawn" in text and "1422 more signals are not drawn" in text


def test_bins_keep_the_extremes_and_the_mean():
    random = np.random.default_rng(1)
    series = Series(np.sort(random.choice(10**6, 5000, replace=False)), random.normal(size=5000))
    step, mean, low, high = charts.binned(series)
    assert len(step) <= charts.BINS and np.all(np.diff(step) > 0)
    assert low.min() == series.value.min() and high.max() == series.value.max()
    assert np.all(low <= mean) and np.all(mean <= high)


@pytest.mark.parametrize(
    "values", [[1.0], [0.0, 0.0], [math.nan, math.nan], [math.inf, 1.0], [1e-12, 1e12], [-5.0, 3.0], [1e300, -1e300]]
)
def test_any_series_can_be_drawn(values):
    series = Series(np.arange(len(values), dtype=np.int64), np.array(values))
    for ladder in (
        [],
        [Baseline("uniform", 7.0, (6.9, math.nan)), Baseline("unigram", 7.0, (6.9, 7.1)), Baseline("odd", math.nan)],
    ):
        for may_log in (False, True):
            chart = charts.chart("x", {"train": series}, 10, ladder=ladder, may_log=may_log)
            assert chart is not None
            drawn = json.dumps(chart.data, allow_nan=False) + "".join(line.path for line in chart.lines)
            assert "nan" not in drawn.lower() and "inf" not in drawn.lower()
            names = [rung.label_y for rung in chart.rungs]
            assert all(gap >= charts.LABEL_GAP - 1e-6 for gap in np.diff(names))


def test_ladder_puts_higher_to_the_right():
    picture = charts.ladder(5.0, [Baseline("unigram", 6.0), Baseline("uniform", 7.0, (6.9, 7.1))])
    assert picture is not None and picture.value is not None
    places = {name.split()[0]: x for x, name, _, _ in picture.rungs}
    assert picture.value < places["unigram"] < places["uniform"]
    assert charts.ladder(5.0, []) is None


@pytest.mark.parametrize(
    "value, said",
    [
        (None, "—"),
        (math.nan, "NaN"),
        (-math.inf, "−∞"),
        (0.0, "0"),
        (0, "0"),
        (5.43219, "5.432"),
        (6.0, "6"),
        (3e-4, "3e-4"),
        (12_345, "12,345"),
        (12_345.6, "12,346"),
        (1.5e9, "1.5e9"),
        (True, "yes"),
        ("two\nlines", "two lines"),
    ],
)
def test_numbers_are_written_one_way(value, said):
    assert view.number(value) == said


def test_silence_and_full_scale_are_told(tmp_path):
    tone(tmp_path / "silent.wav", 0.5, loudness=0.0)
    tone(tmp_path / "loud.wav", 0.5, loudness=9.0)
    tone(tmp_path / "long.wav", 31.0, rate_hz=8000)
    assert sounds.load(tmp_path / "silent.wav").said == "0.5 s · silent"
    assert "reaches full scale" in sounds.load(tmp_path / "loud.wav").said
    assert "first 30 s" in sounds.load(tmp_path / "long.wav").said


def test_spectrogram_puts_a_tone_at_its_frequency():
    """A 2 kHz sine is brightest a quarter of the way up an image of 0..8 kHz, for the whole second."""
    wave_N = 0.5 * np.sin(2 * np.pi * 2000 * np.arange(16_000) / 16_000)
    png = sounds.spectrogram(wave_N)
    width, height = int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
    assert height == 128 and abs(width - 100) <= 2
    data = png[png.index(b"IDAT") + 4 : png.index(b"IEND") - 8]
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, width + 1)[:, 1:]
    assert abs(int(rows[:, width // 2].argmax()) - 96) <= 1


def test_report_needs_no_torch():
    assert not any("torch" in name for name in imports())


def imports():
    """Modules that the report loads, in a fresh interpreter."""
    import subprocess

    code = "import sys; from earnest.report import as_json, as_markdown, as_terminal, page; print(*sys.modules)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_long_names_of_baselines_stay_inside_the_drawing():
    series = Series(np.arange(10), np.arange(10.0))
    chart = charts.chart(
        "x", {"train": series}, 10, ladder=[Baseline("a predictor that has learnt nothing of the kind", 7.0)]
    )
    assert chart is not None and len(chart.rungs[0].label) <= charts.LONGEST_LABEL and "…" in chart.rungs[0].label
    assert chart.window["right"] + 5 + len(chart.rungs[0].label) * charts.LETTER <= charts.WIDTH


def finding(**changes):
    return replace(make_diagnosis().findings[0], **changes)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "whole run"),
        ("text", "text"),
        ("codebook_1,codebook_2", "codebook_1, codebook_2"),
        ("codebook_1,codebook_2,codebook_3", "codebook_1 to codebook_3"),
        ("codebook_1,codebook_3,codebook_4", "codebook_1, codebook_3, codebook_4"),
        ("text,codebook_0,codebook_1,codebook_2", "text, codebook_0, codebook_1, codebook_2"),
    ],
)
def test_streams_of_a_finding_are_told_in_short(written, said):
    streams = tuple(parse(name) for name in written.split(",") if name)
    assert view.about(finding(streams=streams, since_step=0)) == f"{said} · from the start · confidence 0.70"


def test_evidence_of_one_kind_stands_together():
    """Rows of the same quantities are one table; a long list is cut on the terminal, with a word on it."""
    rows = [{}, {"x": None}, {"stream": None, "seen": "4 drops"}, *({"step": step, "drop": 0.1} for step in range(20))]
    first, second = view.evidence(finding(evidence=rows))
    assert first.lines == ["seen 4 drops"] and second.names == ["step", "drop"] and len(second.values) == 20
    odd = [{"step": index, f"value_{index}": 1.0} for index in range(30)]
    text = terminal(Run(), Diagnosis([], [finding(evidence=odd)], []))
    assert "value_8" in text and "value_9" not in text and "and 21 more lines in the other formats" in text


def test_rules_that_lack_the_same_stand_together():
    lacking = [
        NotChecked("A1", "x"),
        NotChecked("A2", "x"),
        NotChecked("E1", "5 points of y"),
        NotChecked("E1", "5 points of z"),
    ]
    assert view.not_checked(Diagnosis([], [], lacking)) == [
        ("A1, A2", "x"),
        ("E1", "5 points of y (and 1 more like it)"),
    ]
    many = Diagnosis([], [], [NotChecked(f"X{index}", f"signal {index % 7}") for index in range(40)])
    said = words_apart(terminal(Run(), many))
    assert "40 rules not checked" in said and "signal 0 (6 rules)" in said and "--format html lists all" in said
    assert "3 rules not checked" in view.headline(Diagnosis([], [], lacking))


def test_a_finding_on_several_streams_is_marked_in_the_chart_of_each(run, tmp_path):
    several = finding(rule="E204", streams=(Codebook(3), Codebook(5)), since_step=100)
    report.html(run, Diagnosis([], [several], []), tmp_path / "report.html")
    assert len(MARK.findall((tmp_path / "report.html").read_text())) == 2


def test_rules_and_report_fit_together(run, tmp_path):
    """The real doctor's diagnosis of a run can be written in every format, and its JSON keeps the contract."""
    diagnosis = diagnose(run)
    assert diagnosis.verdicts and diagnosis.findings
    *_, path = report.write(run, diagnosis, tmp_path)
    assert valid(json.loads(path.read_text()), SCHEMA)
    assert max(len(line) for line in terminal(run, diagnosis).splitlines()) <= 80


def test_a_finding_on_the_whole_run_is_marked_on_the_total_and_the_optimisation(run, tmp_path):
    report.html(run, Diagnosis([], [finding(streams=(), since_step=100)], []), tmp_path / "report.html")
    marked = MARK.findall((tmp_path / "report.html").read_text())
    assert len(marked) == 3, "the total, the learning rate and the gradient norm"


def test_the_step_of_a_verdict_is_said_once():
    verdict = make_diagnosis().verdicts[0]
    assert view.why(verdict) == "not a number since step 581"
    assert view.why(replace(verdict, why="not a number")) == "not a number (since step 581)"
    assert view.why(replace(verdict, why="low", since_step=1)) == "low"
