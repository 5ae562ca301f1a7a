"""When each English word is spoken: `python -m benchmarks.align FOLDER OUT`; OUT is FOLDER with a column `words` in its
metadata.

Forced alignment of the transcript by pocketsphinx (pip install pocketsphinx; its US English model, BSD). Clips that it
cannot align, because they are not English or a word is not in its dictionary, keep their text without times. Audio is
linked, not copied.
"""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earnest.data.audio import read_wave
from earnest.data.layouts.folder import load_clips

RATE_HZ, TICK_S, SILENCE_S = 16_000, 0.01, 0.1
Spans = list[tuple[str, float, float]]


@dataclass(frozen=True)
class Alignment:
    """(name, start_s, end_s) of words and of phones, without silences and noises."""

    words: Spans
    phones: Spans


class Aligner:
    def __init__(self):
        from pocketsphinx import Decoder  # pyright: ignore[reportMissingImports]

        self.decoder = Decoder(samprate=RATE_HZ, loglevel="FATAL", lm=None)

    def __call__(self, wave_N: np.ndarray, text: str) -> Alignment | None:
        """wave_N at 16 kHz; None where the text cannot be aligned."""
        edge_N = np.zeros(round(SILENCE_S * RATE_HZ))  # the aligner wants silence at both ends
        pcm = (np.r_[edge_N, wave_N, edge_N].clip(-1, 1) * 32767).astype(np.int16).tobytes()
        try:
            self.decoder.set_align_text(" ".join(re.sub("[^a-z' ]", " ", text.lower()).split()))
            for phones in (False, True):
                if phones:
                    self.decoder.set_alignment()
                self.decoder.start_utt()
                self.decoder.process_raw(pcm, full_utt=True)
                self.decoder.end_utt()
            found = [(_named(word), [_named(phone) for phone in word]) for word in self.decoder.get_alignment()]
        except (RuntimeError, TypeError):  # a word outside the dictionary; no path through the audio
            return None
        said = [(word, phones) for word, phones in found if word[0][0] not in "<["]
        return Alignment([word for word, _ in said], [phone for _, phones in said for phone in phones])


def _named(entry) -> tuple[str, float, float]:
    """Copied at once: an entry that outlives its place in the iteration is freed memory."""
    start_s, end_s = entry.start * TICK_S - SILENCE_S, (entry.start + entry.duration) * TICK_S - SILENCE_S
    return entry.name.split("(")[0], max(0.0, start_s), max(0.0, end_s)


def main(folder: Path, out: Path) -> None:
    aligner, rows = Aligner(), []
    for clip in load_clips(folder, needed=()):
        alignment = (
            aligner(read_wave(clip.path, RATE_HZ), clip.text) if clip.text and clip.language in ("", "en") else None
        )
        (out / clip.name).parent.mkdir(parents=True, exist_ok=True)
        (out / clip.name).symlink_to(clip.path.resolve())
        row = {"file_name": clip.name, "text": clip.text, "speaker": clip.speaker, "language": clip.language}
        rows.append(row | ({"words": alignment.words} if alignment else {}))
    (out / "metadata.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{out}: {len(rows)} clips, {sum('words' in row for row in rows)} with the times of their words")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
