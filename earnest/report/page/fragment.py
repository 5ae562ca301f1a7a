"""`Fragment`: one section of the page, and how its template is filled.

A template stands beside the section's module under the same name; `macros.html` holds what several of them draw with.
"""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from earnest import glossary
from earnest.report import charts, view
from earnest.report.page.tables import LABELS, LONG, WIDTHS


class Fragment(NamedTuple):
    """A section: the id of its element, its name in the list of sections, and its HTML; empty if there is nothing to
    show. A live page sends the fragments whose HTML has changed."""

    id: str
    title: str
    html: str


def fill(template: str, **values: Any) -> Markup:
    """A template of this directory with its values: text is escaped, made safe to print, and shows no folder of the
    machine."""
    return Markup(_environment().get_template(template).render(**values))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {
        "clean": text,
        "prose": prose,
        "number": view.number,
        "shown": view.shown,
        "csp_hash": csp_hash,
        "word": word,
    }
    environment.globals |= {
        "view": view,
        "size": (charts.WIDTH, charts.HEIGHT),
        "WIDTHS": WIDTHS,
        "LABELS": LABELS,
        "LONG": LONG,
        "meaning": glossary.meaning,
    }
    return environment


def text(value: Any) -> str:
    """Text of a stranger, safe to print and without the folders of the machine."""
    return view.private(view.clean(value))


def prose(value: Any) -> Markup:
    """Text in which `code` between backticks is set as code."""
    parts = re.split(r"`([^`]+)`", text(value))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )


def word(value: str, words: str | None = None) -> Markup:
    """A word of the glossary, with its meaning where it stands. words: what is written, if that is more than it."""
    meaning = glossary.meaning(value) or glossary.meaning(value.lower())
    shown = words or value
    return Markup('<abbr title="{}">{}</abbr>').format(meaning, shown) if meaning else escape(shown)


def csp_hash(code: str) -> str:
    """How a content security policy names a style or script that it allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(str(code).encode()).digest()).decode()}'"
