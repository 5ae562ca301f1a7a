"""docs/finding.png, the page of the README's run in Chromium: ``python -m tests.equipment.picture`` draws it anew."""

import subprocess
import tempfile
from pathlib import Path

from earnest import logs, report
from earnest.rules import diagnose

ROOT = Path(__file__).parents[2]
RUN, PICTURE = Path("tests/logs/hf_labels_unshifted"), ROOT / "docs" / "finding.png"
WIDTH, HEIGHT = 960, 960


def main() -> None:
    run = logs.read(ROOT / RUN)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        report.html(run, diagnose(run), page)
        command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]
        subprocess.run([*command, f"--screenshot={PICTURE}", page.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main()
