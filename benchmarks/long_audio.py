"""Memory of everything that takes a long recording: data check, a training's store of codes, encode, a voice to clone.

    python -m benchmarks.long_audio [MINUTES]      # 180; stereo, 44.1 kHz, its samples a hole on the disk

Each is a process of its own; its largest resident memory is compared with that of the same on one minute.
"""

import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RATE_HZ, FRAME_BYTES = 44100, 4  # of two channels of 16 bits
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


def recording(path: Path, minutes: float) -> None:
    """A .wav of silence, the samples of which take no room."""
    size = round(minutes * 60 * RATE_HZ) * FRAME_BYTES
    form = struct.pack("<HHIIHH", 1, 2, RATE_HZ, RATE_HZ * FRAME_BYTES, FRAME_BYTES, 16)
    head = b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt " + struct.pack("<I", len(form)) + form
    with open(path, "wb") as file:
        file.write(head + b"data" + struct.pack("<I", size))
        file.truncate(len(head) + 8 + size)


def measured(program: str) -> tuple[float, float]:
    """(largest resident memory in MB, seconds) of a program in a process of its own."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, program
    return usage.ru_maxrss / 1024, time.monotonic() - began


def main(minutes: float) -> None:
    print(f"| a stereo recording of 44.1 kHz | 1 minute, MB | {minutes:g} minutes, MB | s |\n|---|---|---|---|")
    for name, way in WAYS.items():
        figures: list[tuple[float, float]] = []
        for length in (1, minutes):
            with tempfile.TemporaryDirectory() as folder:
                wav = Path(folder) / "a.wav"
                recording(wav, length)
                figures.append(measured(way.format(folder=folder, wav=str(wav), out=str(Path(folder) / "out.html"))))
        (short_mb, _), (long_mb, seconds) = figures
        print(f"| {name} | {short_mb:,.0f} | {long_mb:,.0f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main(float([*sys.argv, "180"][1]))
