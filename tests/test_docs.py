"""README and docs are true: links hold, python runs, generated pages are new, excerpts and numbers
are what is printed, and every word is explained."""

import math
import re
import shlex
from typing import get_args

import pytest

from earnest import explain, glossary
from earnest.cli import COMMANDS, FRONT, main
from earnest.commands import arguments
from earnest.commands.train import OUT, RESUME
from earnest.errors import UserError
from earnest.facts import FACTS
from earnest.rules import catalogue
from earnest.rules.finding import SEVERITIES, Word
from earnest.signals import SIGNALS
from tests.equipment import excerpt, site
from tests.equipment.documented import PAGES, ROOT, blocks, named

README = (ROOT / "README.md").read_text(encoding="utf-8")
LAYOUT = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
TREE = re.search(r"```text\n(earnest/.*?)```", LAYOUT, re.DOTALL)[1]
INLINE = re.compile(r"`earnest ((?!COMMAND)[^`]+)`")
RECIPE_OPTIONS = [("out", OUT, None), ("resume", RESUME, False)]


def test_commands_within_a_sentence_are_some_that_are_understood():
    """Those in blocks of shell run: tests/test_docs_commands.py. Words in capitals stand for something."""
    found = {(named(page), words) for page in PAGES for words in INLINE.findall(page.read_text(encoding="utf-8"))}
    assert len(found) > 30
    for page, words in found:
        name, *rest = shlex.split(words)
        assert name in (*COMMANDS, *FRONT), (page, words)
        if name == "explain" and rest and not rest[0].isupper():
            assert explain.explain(rest[0]), page
        if name == "train" and rest and rest[0] in explain.recipes():
            arguments.configured(rest[0], rest[1:], name, RECIPE_OPTIONS)


@pytest.mark.parametrize("page", ["docs/how-to/notebook.md", "docs/how-to/csm.md"])
def test_python_of_the_docs_runs(page, tmp_path, monkeypatch, capsys):
    codes = [code for of, code in blocks("python") if of == page and "IPython" not in code]
    assert codes
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    for code in codes:
        exec(compile(code, page, "exec"), {"__name__": "cell"})
    told = capsys.readouterr().out
    if page.endswith("notebook.md"):
        assert "critical A202" in told and "[('codebook_0', 'at-chance')]" in told and "['A203']" in told


def slug(heading: str) -> str:
    """The id that GitHub and mkdocs give a heading."""
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading)).strip().lower())


def links() -> list[tuple[str, str]]:
    found = [(named(page), link) for page in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())]
    return sorted({one for one in found if not re.match(r"\w+://|mailto:", one[1])})


@pytest.mark.parametrize("page", sorted({page for page, _ in links()}))
def test_links_lead_somewhere(page):
    for link in [link for of, link in links() if of == page]:
        place, _, anchor = link.partition("#")
        target = (ROOT / page).parent / place if place else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in map(slug, re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)), link


def test_the_readme_is_a_door():
    assert len(README.splitlines()) <= 100
    makefile = (ROOT / "Makefile").read_text()
    for target in {"demo", "test", *re.findall(r"make (\w+)", README)}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE) and f"make {target}" in README


def test_the_excerpt_is_what_the_command_prints(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    [(command, shown)] = excerpt.EXCERPT.findall(README)
    assert len(shown.splitlines()) > 10 and shown == excerpt.printed(command), "python -m tests.equipment.excerpt"


def test_every_page_is_in_the_site_and_no_other():
    listed = re.findall(r"(?:- |: )([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    there = {named(page).removeprefix("docs/") for page in PAGES if named(page).startswith("docs/")}
    assert {page for page in there if not re.match(r"rules/\w\d+\.md", page)} | {"gallery/index.md"} == set(listed)


@pytest.mark.parametrize("path", explain.pages())
def test_generated_pages_are_new(path):
    assert (ROOT / path).read_text(encoding="utf-8") == explain.pages()[path], "python -m earnest.explain"


def test_logarithms_in_the_docs_are_right():
    found = [
        (named(page), *one) for page in PAGES for one in re.findall(r"\bln (\d+) = (\d+\.(\d+))", page.read_text())
    ]
    assert len(found) > 5
    for page, size, value, decimals in found:
        assert f"{math.log(int(size)):.{len(decimals)}f}" == value, page


WORDS = [
    *(*get_args(Word), *SEVERITIES, "uniform", "unigram", "bigram", "stream", "baseline", "ladder", "confidence"),
    *("fact", "signal", "probe", "nats", "counted", "interval", "copy rate", "not checked", "running", "killed"),
]
NAMES = [*WORDS, *SIGNALS, *FACTS, *explain.recipes(), *explain.probes(), *(rule.code for rule in catalogue())]


def test_everything_is_explained():
    for name in NAMES:
        text = explain.explain(name)
        assert text.startswith("# ") and len(text.split()) > 5, name


# as people type them: (words, the first line of the answer)
TYPED = {
    "Learning Rate": "learning_rate", "grad norm": "grad_norm", "codebook collapse": "F301 codebook-collapse",
    "cross entropy": "cross-entropy", "warmup": "warm-up", "warm up": "warm-up", "epochs": "epoch", "top p": "top-p",
    "Classifier-Free Guidance": "cfg", "RTF": "rtf", "teacher forcing": "teacher forcing",
    "delay pattern": "delay pattern", "bits per token": "bits per token", "ignore index": "ignore_index",
    "perplexity": "perplexity", "CTC": "ctc", "validation loss": "held out", "overfit": "memorising", "-100":
    "ignore_index", "unigrams": "unigram", "LR": "learning_rate",
}  # fmt: skip


def test_words_are_found_as_people_type_them():
    for typed, title in TYPED.items():
        assert explain.explain(typed).splitlines()[0] == f"# {title}", typed
    for word in glossary.SYNONYMS:
        assert explain.explain(word), word


def test_recipes_are_those_that_can_be_trained():
    from earnest.recipes import RECIPES

    assert list(explain.recipes()) == list(RECIPES) and all(explain.recipes().values())


def test_concepts_and_reference_hold_every_word():
    text = "".join(explain.pages().values())
    for name in (*glossary.TERMS, *SIGNALS, *FACTS, *explain.recipes(), *explain.probes()):
        assert name in text, name


def test_a_word_of_nobody_is_answered_with_near_ones():
    with pytest.raises(UserError) as refused:
        explain.explain("unigrma")
    assert "unigram" in refused.value.fix


def test_the_terminal_shows_a_word(capsys):
    assert main(["explain", "At-Chance"]) == 0
    assert glossary.meaning("at-chance")[:40] in " ".join(capsys.readouterr().out.split())


def test_the_gallery_shows_both_logs():
    told = dict(site.gallery(["A201", "F102"]))
    index = told.pop("gallery/index.md")
    assert list(told) == [f"gallery/{code}-{kind}.html" for code in ("A201", "F102") for kind in ("sick", "healthy")]
    assert '<a href="A201-sick.html">sick</a>: A201' in index and '<a href="F102-healthy.html">healthy</a>' in index
    assert "labels-not-shifted" in told["gallery/A201-sick.html"]


def test_the_tree_names_every_part_of_the_package_and_nothing_else():
    parts = re.findall(r"^  (\S+)", TREE, re.MULTILINE)
    there = [path.name + "/" * path.is_dir() for path in (ROOT / "earnest").iterdir()]
    assert sorted(parts) == sorted(name for name in there if re.fullmatch(r"[a-z]\w*(\.py|/)", name))
    assert all(len(line.split(maxsplit=1)) == 2 for line in TREE.splitlines() if line.startswith("  "))
