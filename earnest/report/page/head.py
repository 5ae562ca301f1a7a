"""What run this is, and what is said of it in one line."""

from earnest.report import view
from earnest.report.page.fragment import Fragment, fill
from earnest.rules.finding import Diagnosis
from earnest.run import Run


def section(run: Run, diagnosis: Diagnosis) -> Fragment:
    """The head of the page: title, headline, and where the run comes from."""
    return Fragment("head", "Head", fill("head.html", run=run, diagnosis=diagnosis, origin=view.origin(run)))
