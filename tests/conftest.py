import os

import pytest
from hypothesis import settings

from earnest import threads

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault(threads.THREADS, "1")  # each core has a worker
threads.choose(os.environ)
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may need the internet
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A busy machine fails no test: no deadlines. CI draws the same examples every time, a developer's machine new ones.
settings.register_profile("earnest", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("earnest")


@pytest.fixture(scope="session")
def released(tmp_path_factory):
    """Tiny checkpoints in the released formats: `released("higgs")` is the path of one."""
    from tests.equipment.released import Released

    return Released(tmp_path_factory.mktemp("released"))
