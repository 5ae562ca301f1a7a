"""One finding in a few lines, as a run that goes on tells it."""

from earnest.report import view
from earnest.rules.finding import Finding


def told(finding: Finding, step: int) -> str:
    """What, where and since when, and the way out: three lines, safe to print."""
    mark = view.MARK[finding.severity]
    return (
        f"earnest · step {step} · {mark} {finding.severity} {view.line(finding.rule)} {view.line(finding.name)}: "
        f"{view.line(finding.summary)}\n"
        f"  {view.about(finding)}\n"
        f"  fix: {view.line(finding.fix)}"
    )
