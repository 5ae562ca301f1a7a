"""Public trainers in miniature: our own code, on the same classes or the same shape of model, with the same mistake.

Each module holds the trainers of one family as `CASES`; ``CASES`` here holds all. A case bears the name of the trainer
that it stands for.
"""

from tests.trainers import csm, dia, higgs, moshi, musicgen, qwen3tts, single_stream, valle
from tests.trainers.case import Case

CASES: list[Case] = [
    case for family in (qwen3tts, dia, higgs, csm, moshi, single_stream, musicgen, valle) for case in family.CASES
]
