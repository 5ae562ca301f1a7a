"""An Arabic cloning corpus, to run the whole path on a right-to-left, diacritised script: synthetic, not intelligible
speech.

    python -m benchmarks.arabic FOLDER
    earnest train higgs-tiny --data.path FOLDER/conversations.json --data.held-out speakers \\
        --data.held-out-frac 0.13 --steps 80
    earnest generate RUN --text "..." --reference FOLDER/ar+f3/0.wav --reference-text "..." --out said.wav

Each of the texts below in eight voices of espeak-ng's `ar` (Whisper base makes nothing of it: word error rate above 1,
with or without diacritics), as an audiofolder, and as conversations.json in the form of the public Higgs trainers, each
clip after a reference of the same voice.
"""

import csv
import json
import sys
from pathlib import Path

from earnest.data.audio import write_wave
from earnest.data.layouts.sources import SAMPLE_RATE_HZ, Voice, speak

TEXTS = """\
صباح الخير
كَيْفَ حَالُكَ الْيَوْمَ
شكرا جزيلا
أَنَا أَتَعَلَّمُ الْعَرَبِيَّةَ
أين المحطة من فضلك
الْبَيْتُ كَبِيرٌ وَجَمِيلٌ
واحد اثنان ثلاثة
أَرْبَعَةٌ خَمْسَةٌ سِتَّةٌ
سبعة ثمانية تسعة
السَّمَاءُ زَرْقَاءُ
أحب القهوة مع الحليب
الْقِطَّةُ تَنَامُ عَلَى الْكُرْسِيِّ
الكتاب على الطاولة
ذَهَبْتُ إِلَى السُّوقِ
غدا نسافر إلى البحر
هَذَا صَدِيقِي الْجَدِيدُ
""".splitlines()
VOICES = [
    Voice(f"ar+{variant}", pitch=pitch)
    for variant, pitch in zip(("f1", "f2", "f3", "f4", "m1", "m2", "m3", "m7"), range(30, 70, 5), strict=True)
]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    talks = []
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        metadata = csv.writer(file)
        metadata.writerow(["file_name", "text", "speaker", "language"])
        for voice in VOICES:
            (folder / voice.name).mkdir()
            for number, text in enumerate(TEXTS):
                name = f"{voice.name}/{number}.wav"
                write_wave(folder / name, speak(text, voice), SAMPLE_RATE_HZ)
                metadata.writerow([name, text, voice.name, "ar"])
                before = (number - 1) % len(TEXTS)
                talks.append(
                    {
                        "messages": [
                            {"role": "system", "content": "Generate audio following instruction."},
                            {"role": "user", "content": TEXTS[before]},
                            {
                                "role": "assistant",
                                "content": {"type": "audio", "audio_url": f"{voice.name}/{before}.wav"},
                            },
                            {"role": "user", "content": text},
                            {"role": "assistant", "content": {"type": "audio", "audio_url": name}},
                        ],
                        "start_index": 3,
                        "speaker": voice.name,
                    }
                )
    (folder / "conversations.json").write_text(json.dumps(talks, ensure_ascii=False, indent=1), encoding="utf-8")
    print(f"{folder}: {len(talks)} clips")


if __name__ == "__main__":
    main()
