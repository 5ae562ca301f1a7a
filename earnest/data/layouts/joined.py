"""Lists that are spread over several files, joined line by line or by name: Kaldi's and ESPnet's `wav.scp`, `text`,
`utt2spk` and `segments`; fairseq's `train.tsv` and `train.wrd` or `train.ltr`."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from earnest.data.layouts.opened import full_lines
from earnest.data.layouts.roles import names_audio

WAVES = "wav.scp"
PARTS_OF_KALDI = frozenset({"text", "segments", "utt2spk", "spk2utt", "utt2dur", "utt2lang", "reco2dur", "spk2gender"})
LETTERS, WORDS = ".ltr", ".wrd"  # fairseq: letters between blanks and words between bars; words
Row = dict[str, str]


def is_part(path: Path) -> bool:
    """Whether a file is read together with the one that names the audio."""
    return path.name in PARTS_OF_KALDI and (path.parent / WAVES).is_file()


def kaldi_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """wav.scp: `id path`, or a command that reads the path; `segments`: `id recording start end`."""
    folder = path.parent
    waves = {name: _named(words) for name, words in _pairs(path).items()}
    texts, speakers, languages = (_pairs(folder / name) for name in ("text", "utt2spk", "utt2lang"))
    parts = {name: words.split() for name, words in _pairs(folder / "segments").items()}
    parts = {name: words for name, words in parts.items() if len(words) == 3} or {name: [name] for name in waves}
    for number, (name, (recording, *times)) in enumerate(parts.items(), 1):
        row = {"audio": waves.get(recording, recording)}
        if texts:
            row["text"] = texts.get(name, "")
        row |= {"speaker": speakers[name]} if name in speakers else {}
        row |= {"language": languages[name]} if name in languages else {}
        row |= dict(zip(("start_s", "end_s"), times, strict=True)) if times else {}
        yield number, row


def _pairs(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    split = (text.split(None, 1) for _, text in full_lines(path))
    return {words[0]: words[1].strip() if len(words) > 1 else "" for words in split if words}


def _named(words: str) -> str:
    """The file of a wav.scp's line, which may be a command: `sph2pipe -f wav -p a.sph |`, `flac -c -d -s a.flac |`."""
    if not words.endswith("|"):
        return words
    return next((word for word in words.split() if names_audio(word)), words)


def is_fairseq(path: Path) -> bool:
    """Whether a .tsv is fairseq's manifest: the root of the files, then `path, samples`."""
    if path.suffix.lower() != ".tsv":
        return False
    head = [text for _, text in islice(full_lines(path), 2)]
    return len(head) == 2 and "\t" not in head[0] and re.fullmatch(r"[^\t]+\t\d+", head[1]) is not None


def fairseq_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of the manifest, each with the text on the same line of the file beside it."""
    beside = next((file for end in (WORDS, LETTERS) if (file := path.with_suffix(end)).is_file()), None)
    texts = [text for _, text in full_lines(beside)] if beside else []
    for place, (number, line) in enumerate(pair for pair in full_lines(path) if pair[0] > 1):
        row = {"audio": line.partition("\t")[0]}
        if beside:
            said = texts[place] if place < len(texts) else ""
            of_letters = beside.suffix == LETTERS
            row["text"] = " ".join(said.replace(" ", "").replace("|", " ").split()) if of_letters else said
        yield number, row
