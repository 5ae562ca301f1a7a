"""Counts the errors of pyright's strict mode in the package; CONTRIBUTING.md states how many are allowed.

``python .ci/strict.py`` prints the count by folder. Lower the number in CONTRIBUTING.md when it has fallen.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    command = ["pyright", "--project", ".ci/strict.json", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{"):
        print(done.stdout, done.stderr, file=sys.stderr)
        return 2
    errors = [entry for entry in json.loads(done.stdout)["generalDiagnostics"] if entry["severity"] == "error"]
    parts = Counter(Path(entry["file"]).relative_to(ROOT / "earnest").parts[0] for entry in errors)
    found = re.search(r"strict[^.]*?(\d+) errors", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert found is not None, "CONTRIBUTING.md states no number"
    allowed = int(found[1])
    print(
        f"pyright strict: {len(errors)} errors, {allowed} allowed;",
        ", ".join(f"{n} {p}" for p, n in parts.most_common()),
    )
    return int(len(errors) > allowed)


if __name__ == "__main__":
    sys.exit(main())
