"""What the site has beside docs/: a gallery of the sick and the healthy log of every rule, each with its page.

A hook of mkdocs. Links that lead out of docs/ stand as plain text there.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from earnest.report import view
from earnest.report.page import render
from earnest.rules import diagnose
from earnest.rules.catalogue import FAMILIES, RULES
from tests.equipment.cases import CASES, case

SECTIONS = ("Sick", "Healthy")
LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#]*)(#[^)]*)?\)")


def gallery(codes: list[str] | None = None) -> Iterator[tuple[str, str]]:
    """(path in the site, text): a page for each log, then the list of them. codes: of these rules only."""
    rows: dict[str, list[str]] = {}
    for path in CASES:
        if codes is not None and path.stem not in codes:
            continue
        links: list[str] = []
        for section in SECTIONS:
            run = case(path, section)
            diagnosis = diagnose(run)
            name = f"{path.stem}-{section.lower()}.html"
            found = ", ".join(finding.rule for finding in view.in_order(diagnosis.findings)) or "nothing found"
            links.append(f'<a href="{name}">{section.lower()}</a>: {found}')
            yield f"gallery/{name}", render(run, diagnosis)
        rule = RULES[path.stem]
        rows.setdefault(path.stem[0], []).append(
            f"| [{rule.code}](../rules/{rule.code}.md) | {rule.name} | {' | '.join(links)} |"
        )
    parts = [
        "# Gallery",
        "What each rule finds, and a healthy run that looks much like it: the pages that `earnest diagnose` writes.",
    ]
    for letter, table in rows.items():
        parts.append(f"## {FAMILIES[letter][0].upper()}{FAMILIES[letter][1:]}")
        parts.append("\n".join(["| rule | fault | the sick log | the healthy log |", "|---|---|---|---|", *table]))
    yield "gallery/index.md", "\n\n".join(parts) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs."""
    from mkdocs.structure.files import File  # pyright: ignore[reportMissingImports]  # of the extra `docs`

    for path, text in gallery():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by mkdocs."""
    docs = Path(config["docs_dir"])
    here = docs / Path(page.file.src_uri).parent

    def inside(found: re.Match[str]) -> str:
        return found[0] if (here / found[2]).resolve().is_relative_to(docs.resolve()) else found[1]

    return LINK.sub(inside, markdown)
