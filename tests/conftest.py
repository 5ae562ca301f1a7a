import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may need the internet
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A busy machine fails no test: no deadlines. CI draws the same examples every time, a developer's machine new ones.
settings.register_profile("earnest", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("earnest")
