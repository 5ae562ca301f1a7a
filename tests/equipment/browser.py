"""A browser for tests of pages: Debian's Chromium, driven by playwright-core from npm; tests are skipped without."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

MODULES = ("playwright-core@1.61.1", "axe-core@4.12.1")
SCRIPT = Path(__file__).parent / "browser.mjs"
SCHEMES = ("light", "dark")


def look_at(
    pages: Mapping[str, Path], folder: Path, tools: str | None = None, pictures: bool = False
) -> dict[str, Any]:
    """What is measured of pages in a browser at 390, 768 and 1440 px.

    axe looks at the first page in both schemes, and at the others in one of them. tools: the page whose chart tools
    are used; what they download lies in `folder`, and so do the pictures. Skips the test if a program is missing,
    except in CI, which installs them.
    """
    programs = {name: shutil.which(name) for name in ("node", "npm", "chromium")}
    if missing := [name for name, path in programs.items() if path is None]:
        skip(f"no {', '.join(missing)}")
    job = {
        "modules": str(modules(folder)),
        "chromium": programs["chromium"],
        "pages": {
            name: {"file": str(path), "schemes": SCHEMES if index == 0 else [SCHEMES[index % 2]]}
            for index, (name, path) in enumerate(pages.items())
        },
        "tools": tools,
        "pictures": pictures,
        "folder": str(folder),
    }
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run(["node", SCRIPT, folder / "job.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def skip(why: str) -> None:
    if os.environ.get("BROWSER") == "required":
        pytest.fail(why)
    pytest.skip(why)


def modules(folder: Path) -> Path:
    """A folder with the two packages: $BROWSER_MODULES if it is set, else a fresh one."""
    if "BROWSER_MODULES" in os.environ:
        return Path(os.environ["BROWSER_MODULES"])
    into = folder / "modules"
    into.mkdir()
    (into / "package.json").write_text("{}")
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", *MODULES]
    done = subprocess.run(command, cwd=into, capture_output=True, text=True)
    if done.returncode:
        skip(f"npm cannot install {', '.join(MODULES)}: {done.stderr[-200:]}")
    return into
