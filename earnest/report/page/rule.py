"""The text of a rule on the page, so that a reader need not look a code up elsewhere."""

import re
from functools import cache
from typing import NamedTuple

from markdown_it import MarkdownIt
from markupsafe import Markup

from earnest.rules.catalogue import RULES


class RulePage(NamedTuple):
    """A rule by code; a code that is no rule has no text."""

    code: str
    name: str = ""
    title: str = ""
    html: Markup = Markup("")


@cache
def rule_page(code: str) -> RulePage:
    """The page of a rule by its code; without a text if there is no such rule."""
    if code not in RULES:
        return RulePage(code)
    rule = RULES[code]
    body = re.sub(r"^## (.*)$", r"**\1**\n", rule.text.partition("\n")[2], flags=re.MULTILINE)
    return RulePage(code, rule.name, rule.title, Markup(MarkdownIt("commonmark", {"html": False}).render(body)))
