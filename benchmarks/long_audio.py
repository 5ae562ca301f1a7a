"""Memory of everything that takes long audio: data check, a training's store of codes, encode, a voice to clone, and
the training of a language model and of a codec.

    python -m benchmarks.long_audio [MINUTES [WAY]]      # 180; all ways, or those whose name holds WAY

One recording is stereo, 44.1 kHz, its samples a hole on the disk; trainings get ten seconds of the same beside it, to
be held out, and a codec also as many clips of 10 s (noise, 16 kHz) as take so long. Each is a process of its own; its
largest resident memory is compared with that of the same on one minute.
"""

import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from tests.equipment.tiny_recipes import TINY

RATE_HZ, FRAME_BYTES = 44100, 4  # of two channels of 16 bits
CLIP_S, CLIP_HZ = 10, 16000
TRAIN = (
    "from earnest.cli import main\n"
    "raise SystemExit(main(['train', *{words!r}, '--data.path', {folder!r}, '--out', {out!r}]))"
)
WAYS = {
    "data check": "from earnest.cli import main; main(['data', 'check', {folder!r}, '--out', {out!r}])",
    "training's store": "from earnest.codecs import load_codec\n"
    "from earnest.data.clip import Clip\n"
    "from earnest.data.store import encode_clips\n"
    "from pathlib import Path\n"
    "encode_clips([Clip(Path({wav!r}), 'a.wav')], load_codec('amy-tiny'), Path({folder!r}) / 'cache')",
    "encode": "from earnest.cli import main; main(['encode', {wav!r}, {out!r}])",
    "generate --reference": "from earnest.codecs import load_codec\n"
    "from earnest.speech import reference_codes\n"
    "from pathlib import Path\n"
    "reference_codes(load_codec('amy-tiny'), Path({wav!r}))",
}
TRAININGS = {
    "train mot-tiny, one recording": ["mot-tiny", "--steps", "5", *TINY["mot-tiny"]],
    "train amy-tiny, one recording": ["amy-tiny", "--steps", "5", *TINY["amy-tiny"]],
    "train amy-tiny, clips of 10 s": ["amy-tiny", "--steps", "5", *TINY["amy-tiny"]],
}


def recording(path: Path, minutes: float) -> None:
    """A .wav of silence, the samples of which take no room."""
    size = round(minutes * 60 * RATE_HZ) * FRAME_BYTES
    form = struct.pack("<HHIIHH", 1, 2, RATE_HZ, RATE_HZ * FRAME_BYTES, FRAME_BYTES, 16)
    head = b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt " + struct.pack("<I", len(form)) + form
    with open(path, "wb") as file:
        file.write(head + b"data" + struct.pack("<I", size))
        file.truncate(len(head) + 8 + size)


def clips(folder: Path, minutes: float) -> None:
    """As many clips of noise as take so long."""
    random = np.random.default_rng(0)
    for index in range(round(minutes * 60 / CLIP_S)):
        soundfile.write(folder / f"{index}.wav", random.uniform(-0.3, 0.3, CLIP_S * CLIP_HZ), CLIP_HZ)


def beside(folder: Path) -> None:
    """What a training on one recording needs: a text of it, and a short clip to be held out."""
    recording(folder / "b.wav", CLIP_S / 60)
    (folder / "metadata.csv").write_text("file_name,text,split\na.wav,one,train\nb.wav,two,validation\n")


def measured(program: str) -> tuple[float, float]:
    """(largest resident memory in MB, seconds) of a program in a process of its own."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, program
    return usage.ru_maxrss / 1024, time.monotonic() - began


def figures_of(name: str, length: float) -> tuple[float, float]:
    """`measured` of a way on so many minutes."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["EARNEST_CACHE"] = str(Path(place) / "cache")
        folder = Path(place) / "audio"
        folder.mkdir()
        wav, out = folder / "a.wav", Path(place) / "out.html"
        if name.endswith("clips of 10 s"):
            clips(folder, length)
        else:
            recording(wav, length)
        if name in TRAININGS:
            if wav.exists():
                beside(folder)
            return measured(TRAIN.format(words=TRAININGS[name], folder=str(folder), out=str(out.with_suffix(""))))
        return measured(WAYS[name].format(folder=str(folder), wav=str(wav), out=str(out)))


def main(minutes: float, way: str) -> None:
    print(f"| a stereo recording of 44.1 kHz | 1 minute, MB | {minutes:g} minutes, MB | s |\n|---|---|---|---|")
    for name in (*WAYS, *TRAININGS):
        if way in name:
            (short_mb, _), (long_mb, seconds) = figures_of(name, 1), figures_of(name, minutes)
            print(f"| {name} | {short_mb:,.0f} | {long_mb:,.0f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main(float([*sys.argv, "180"][1]), [*sys.argv, "", ""][2])
