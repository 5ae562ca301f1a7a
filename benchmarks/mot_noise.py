"""The music corpus with white noise in place of its audio: `python -m benchmarks.mot_noise OUT`.

Same captions, splits, number and lengths of clips; every clip is noise of its own, so nothing can be learnt of it but
how often each code comes, and what the codec makes follow from the codes before. SLM-MoT was trained on such a
stand-in, and its plateau taken for a learning rate that was too low. To compare:

    earnest train mot-tiny --out runs/music
    earnest train mot-tiny --data.path OUT --out runs/noise      # E205: 16 of 16 training clips are stationary noise
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

from earnest.data.clip import Clip
from earnest.data.layouts.paths import Source
from earnest.data.layouts.sources import SAMPLE_RATE_HZ, write_folder
from earnest.training.clips import find_clips


def main(out: Path) -> None:
    random = np.random.default_rng(0)

    def rows():
        for clip in find_clips(Source("music")):
            assert isinstance(clip, Clip)
            samples = round(soundfile.info(clip.path).duration * SAMPLE_RATE_HZ)
            yield clip.name, random.normal(0, 0.1, samples).astype(np.float32), clip.text, clip.tags

    print(write_folder(out, rows(), "White noise, made by benchmarks/mot_noise.py.\n", Counter(), ("text", "tags")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
