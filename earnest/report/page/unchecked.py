"""What could not be checked, and what it needs."""

from earnest.report import view
from earnest.report.page.fragment import Fragment, fill
from earnest.report.page.rule import rule_page
from earnest.rules.finding import Diagnosis
from earnest.run import Run


def section(run: Run, diagnosis: Diagnosis) -> Fragment:
    groups = [(needs, [rule_page(code) for code in rules]) for rules, needs in view.lacking(diagnosis)]
    html = fill("unchecked.html", diagnosis=diagnosis, groups=groups, helpful=view.most_helpful(diagnosis))
    return Fragment("not-checked", "Not checked", html)
