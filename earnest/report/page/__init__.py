"""The report as one HTML page that needs nothing but itself: no network, no other file.

The page carries a content security policy that allows only its own style and script (by their hashes) and
embedded pictures and audio, so text from a hostile log can neither run nor fetch anything even if it
slipped past the escaping. Each section is a function (run, diagnosis) -> `Fragment` in a module of its own.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from earnest.errors import fault
from earnest.report import view
from earnest.report.page import curves, findings, head, predictions, record, sound, streams, unchecked
from earnest.report.page.axes import axes
from earnest.report.page.fragment import Fragment, fill
from earnest.rules.finding import Diagnosis
from earnest.run import Run

NO_AXES: Mapping[str, Any] = MappingProxyType({})
Section = Callable[[Run, Diagnosis], Fragment]
SECTIONS: tuple[Section, ...] = (
    findings.section,
    streams.section,
    curves.losses,
    curves.optimisation,
    sound.section,
    predictions.section,
    curves.signals,
    unchecked.section,
    record.section,
)


def fragments(run: Run, diagnosis: Diagnosis) -> list[Fragment]:
    """The sections that have something to show, from top to bottom."""
    return [part for section in SECTIONS if (part := _made(section, run, diagnosis)).html]


def _made(section: Section, run: Run, diagnosis: Diagnosis) -> Fragment:
    """One section; if a fault of earnest keeps it from being made, its place says so."""
    try:
        return section(run, diagnosis)
    except Exception as error:
        name = section.__module__.rpartition(".")[2]
        return Fragment(f"{name}-fault", name, Markup('<section><p class="soft">{}</p></section>').format(fault(error)))


def render(run: Run, diagnosis: Diagnosis) -> str:
    """The whole page."""
    return whole(view.title(run), head.section(run, diagnosis).html, fragments(run, diagnosis), axes(run))


def whole(title: str, top: str, parts: list[Fragment], axes: Mapping[str, Any] = NO_AXES) -> str:
    """A page of any sections. axes: what its charts may be drawn over beside steps."""
    marked = [part._replace(html=Markup(part.html)) for part in parts]
    return fill("shell.html", title=title, head=Markup(top), parts=marked, axes=dict(axes))
