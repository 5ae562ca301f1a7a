"""``earnest watch train.py ARGS``: somebody's training script, unmodified, under watch."""

import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from earnest.errors import UserError
from earnest.loops.processes import place
from earnest.loops.settings import Settings
from earnest.loops.watching import TrainingStopped, Watch


def run_script(script: Path, args: Sequence[str], settings: Settings) -> bool:
    """Run the script as Python would, and watch it; returns whether the training was stopped, or something critical is
    believed. Of several processes the launcher would take that for a crash: there it is only whether it was stopped.

    The script's own exit code, and its traceback, are handed on as they are. Raises UserError if there is no such
    script.
    """
    if not script.is_file():
        raise UserError(f"no script {script}", "a Python file that trains", "check the path")
    watch = Watch({}, {}, settings)
    argv, path, how, stops = sys.argv, list(sys.path), "interrupted", False
    sys.argv, sys.path[0:0] = [str(script), *args], [str(script.resolve().parent)]
    try:
        runpy.run_path(str(script), run_name="__main__")
        how = "finished"
    except TrainingStopped as stopped:
        stops = True
        print(stopped, file=sys.stderr)
    except SystemExit as ended:
        how = "interrupted" if ended.code else "finished"
        if ended.code:
            raise
    except Exception as error:
        _print_own(error, script)
        raise SystemExit(1) from None
    finally:
        alone = place()[1] == 1
        sys.argv, sys.path[:] = argv, path
        watch.close(how)
    return stops or (alone and any(finding.severity == "critical" for finding in watch.findings))


def _print_own(error: Exception, script: Path) -> None:
    """The traceback from the script on, without the frames that started it."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != str(script):
        frame = frame.tb_next
    traceback.print_exception(type(error), error, frame or error.__traceback__)
