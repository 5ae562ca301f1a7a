"""The README's excerpt of output: ``python -m tests.equipment.excerpt`` writes it anew, in the repository's root."""

import io
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path

from earnest.cli import main

README = Path(__file__).parent.parent.parent / "README.md"
EXCERPT = re.compile(r"```text\n\$ earnest (.*?)\n(.*?)```", re.DOTALL)
END = "\nTo judge more\n", "\nNot checked\n"  # what follows is left out


def printed(command: str) -> str:
    """What a command prints in 100 columns, up to its end; call it in the repository's root."""
    with redirect_stdout(io.StringIO()) as told:
        main(shlex.split(command))
    text = "\n".join(line.rstrip() for line in told.getvalue().splitlines()) + "\n"
    return text[: min(place for end in END if (place := text.find(end)) >= 0)].rstrip() + "\n"


if __name__ == "__main__":
    import os

    os.environ["COLUMNS"] = "100"
    text = README.read_text(encoding="utf-8")
    new = EXCERPT.sub(lambda found: f"```text\n$ earnest {found[1]}\n{printed(found[1])}```", text)
    README.write_text(new, encoding="utf-8")
