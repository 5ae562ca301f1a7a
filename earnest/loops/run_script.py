"""``earnest watch train.py ARGS``: somebody's training script, unmodified, under watch."""

import runpy
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from earnest.errors import UserError
from earnest.loops.watching import TrainingStopped, Watch
from earnest.rules.finding import Severity


@dataclass(frozen=True)
class Options:
    """What stands before the script.

    Args:
        out: The run directory; one that is taken gets a number.
        every: Steps between two rows, after the first 20.
        stop_on: End the training once a finding of this severity is believed.
        alert: Tell the tracker in use too (W&B, Trackio, MLflow, TensorBoard).
        streams: Names of the losses of tokens, in the order in which they are computed.
    """

    out: Path = Path("runs/watch")
    every: int = 10
    stop_on: Severity | None = None
    alert: bool = True
    streams: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()


def run_script(script: Path, args: Sequence[str], options: Options) -> bool:
    """Run the script as Python would, and watch it; returns whether something critical is believed.

    The script's own exit code, and its traceback, are handed on as they are. Raises UserError if there is no such
    script.
    """
    if not script.is_file():
        raise UserError(f"no script {script}", "a Python file that trains", "check the path")
    watch = Watch({}, {}, options.out, options.every, options.streams, options.stop_on, options.alert)
    argv, path, how = sys.argv, list(sys.path), "interrupted"
    sys.argv, sys.path[0:0] = [str(script), *args], [str(script.resolve().parent)]
    try:
        runpy.run_path(str(script), run_name="__main__")
        how = "finished"
    except TrainingStopped as stopped:
        print(stopped, file=sys.stderr)
    except SystemExit as ended:
        how = "interrupted" if ended.code else "finished"
        if ended.code:
            raise
    except Exception as error:
        _print_own(error, script)
        raise SystemExit(1) from None
    finally:
        sys.argv, sys.path[:] = argv, path
        watch.close(how)
    return any(finding.severity == "critical" for finding in watch.findings)


def _print_own(error: Exception, script: Path) -> None:
    """The traceback from the script on, without the frames that started it."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != str(script):
        frame = frame.tb_next
    traceback.print_exception(type(error), error, frame or error.__traceback__)
