"""``python -m benchmarks.trainers --sources DIR [NAME ...]``: runs public trainers, and writes what was found."""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import earnest
from benchmarks.trainers.classes import CLASSES, Parts
from benchmarks.trainers.script import SOURCES, Script
from benchmarks.trainers.scripts import SCRIPTS
from earnest.errors import UserError
from earnest.loops.script import Options, check_script
from earnest.loops.stage import packages, replaced
from earnest.rules.finding import Diagnosis

RESULTS = Path(__file__).with_name("results.jsonl")
# What a path of this machine begins with, before the part that is the same on another one
HERE = re.compile(
    r"/\S*?/site-packages/|/\S*?/lib/python3\.\d+/|/\S*?/(?:trainer|earnest-check)-[^/\s]+/"
    r"|/\S*?/(?=(?:tests|benchmarks)/trainers/)"
)
PACKAGES = ("torch", "transformers", "accelerate", "lightning", "peft", "qwen-tts", "torchtune", "moshi")
NOT_COPIED = shutil.ignore_patterns(".git", "*.mp3", "*.mp4", "*.gif")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--keep", action="store_true", help="print everything, and write nothing")
    parser.add_argument("--miniatures", action="store_true", help="run those of tests/trainers, and nothing else")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    SOURCES.append(options.sources.resolve())
    for script in SCRIPTS:
        if not options.miniatures and (not options.names or any(name in script.name for name in options.names)):
            found = run(script, options.sources, options.keep)
            print(json.dumps(found, indent=1) if options.keep else f"{script.name}: {found['seen']}", flush=True)
            if not options.keep:
                store(found, options.sources)
    builds = miniatures() if options.miniatures else {name: ("own classes", build) for name, build in CLASSES.items()}
    for name, (how, build) in builds.items():
        if not options.names or any(one in name for one in options.names):
            found = {**of_classes(name, build, options.sources), "how": how}
            print(json.dumps(found, indent=1) if options.keep else f"{name}: {found['seen']}", flush=True)
            if not options.keep:
                store(found, options.sources)


def miniatures() -> dict[str, tuple[str, Callable[[Path], Parts]]]:
    """Those of the tests; transformers' own classes are in some."""
    from tests.trainers import CASES  # needs the newest transformers, as these do

    kinds = {case.name: "own classes" if case.name.startswith("transformers ") else "miniature" for case in CASES}
    return {case.name: (kinds[case.name], lambda _, case=case: case.build()) for case in CASES}


def run(script: Script, sources: Path, verbose: bool) -> dict[str, Any]:
    """Check one script in a copy of its repository."""
    with tempfile.TemporaryDirectory(prefix="trainer-") as name:
        tree = Path(name) / script.source
        shutil.copytree(sources / script.source, tree, ignore=NOT_COPIED, symlinks=True)
        folder = tree / script.cwd
        script.prepare(folder)
        os.chdir(folder)
        began = cpu_s()
        options = Options(config=tuple(map(Path, script.configs)), seconds=script.seconds)
        seen: dict[str, Any]
        try:
            checked = check_script(Path(script.script), script.args.split(), options)
            seen = {"seen": told(checked.diagnosis), "replaced": checked.run.notes}
            seen |= {"mapping": dict(checked.diagnosis.mapping)} if verbose else {}
        except UserError as error:
            seen = {"seen": {"refused": error.seen.replace(name, "")}, "replaced": []}
        finally:
            os.chdir("/")
        return {"name": script.name, "how": "unmodified", **seen, "cpu_s": round(cpu_s() - began, 1), **here()}


def of_classes(name: str, build: Callable[[Path], Parts], sources: Path) -> dict[str, Any]:
    """Check one trainer's own classes, in a process of its own."""
    reading, writing = os.pipe()
    began = cpu_s()
    if (child := os.fork()) == 0:
        packages.install()
        try:
            found = earnest.check(*build(sources.resolve()))
            seen: dict[str, Any] = {"seen": told(found), "mapping": dict(found.mapping)}
        except UserError as error:
            seen = {"seen": {"refused": error.seen.replace(str(sources), "")}}
        except Exception:
            traceback.print_exc()
            seen = {"seen": {"failed": traceback.format_exc(limit=-1).strip()}}
        os.write(writing, json.dumps({**seen, "replaced": replaced.told()}).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        result = json.loads(pipe.read())
    os.waitpid(child, 0)
    return {"name": name, **result, "cpu_s": round(cpu_s() - began, 1), **here()}


def told(diagnosis: Diagnosis) -> Mapping[str, str]:
    """Rule -> severity and what was seen."""
    return {finding.rule: f"{finding.severity}: {finding.summary}" for finding in diagnosis.findings}


def here() -> dict[str, Any]:
    """Versions, as installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "date": time.strftime("%Y-%m-%d")}


def cpu_s() -> float:
    """Of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def store(found: Mapping[str, Any], sources: Path) -> None:
    """Write a result in place of an older one of the same trainer, without this machine's paths."""
    kept = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    kept = [one for one in kept if (one["name"], one["how"]) != (found["name"], found["how"])]
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in [*kept, found])
    RESULTS.write_text(HERE.sub("", lines.replace(f"{sources.resolve()}/", "")))


if __name__ == "__main__":
    main()
