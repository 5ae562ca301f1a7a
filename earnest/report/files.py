"""Files of a run that the report shows."""

from pathlib import Path

from earnest.run import Artifact, Run


def inside(run: Run, artifact: Artifact) -> Path:
    """The artifact's file. Raises ValueError if it lies outside the run's directory: a run may not name others."""
    home = (run.path or Path()).resolve()
    path = (home / artifact.path).resolve()
    if run.path is None or not path.is_relative_to(home):
        raise ValueError("it lies outside the run directory")
    return path
