"""Which stream a call of a cross-entropy belongs to: the same line, called as often within a micro-batch, over as many
classes."""

from collections import Counter
from collections.abc import Mapping, Sequence

from earnest import streams
from earnest.loops.hooks import LossCall
from earnest.streams import AUDIO, TEXT, Codebook, Part, Stream

MUCH_LARGER = 4  # a vocabulary so many times that of the others is text's (assumed)
Place = tuple[str, int, int, int]  # file, line, number of the call within the micro-batch, classes


class Calls:
    """given: names of the streams, in the order in which their losses are computed."""

    def __init__(self, given: Sequence[str] = ()):
        self.given = [streams.parse(name) for name in given]
        self.named: dict[Place, Stream] = {}
        self._here: Counter[tuple[str, int]] = Counter()

    def begin(self) -> None:
        """A micro-batch begins."""
        self._here.clear()

    def stream(self, call: LossCall, trains: bool) -> Stream:
        """trains: the call is no evaluation, which may stand at a line of its own."""
        number = self._here[call.place]
        self._here[call.place] += 1
        place = (*call.place, number, int(call.logits.shape[1]))
        if place not in self.named:
            alike = list(dict.fromkeys(stream for known, stream in self.named.items() if known[2:] == place[2:]))
            self.named[place] = alike[0] if len(alike) == 1 and not trains else Part(f"call_{len(self.named)}")
        return self.named[place]

    def number(self, stream: Stream) -> int:
        """Which of the calls it is."""
        return list(dict.fromkeys(self.named.values())).index(stream)

    def name(self, traced: Mapping[Stream, int]) -> dict[Stream, Stream]:
        """Name what has been called so far; returns old name -> new one. traced: streams that were told from what was
        traced, and their classes."""
        sizes = [place[3] for place in self.named]
        names = self._of_trace(sizes, traced) or by_size(sizes)
        names[: len(self.given)] = self.given[: len(names)]
        changed = dict(zip(self.named.values(), names, strict=True))
        self.named = dict(zip(self.named, names, strict=True))
        return changed

    @staticmethod
    def _of_trace(sizes: Sequence[int], traced: Mapping[Stream, int]) -> list[Stream] | None:
        """The traced streams, if each of them has a call of its own."""
        if sorted(sizes) != sorted(traced.values()):
            return None
        left = dict(traced)
        names: list[Stream] = []
        for size in sizes:
            stream = next(stream for stream, own in left.items() if own == size)
            names.append(stream)
            del left[stream]
        return names


def by_size(sizes: Sequence[int]) -> list[Stream]:
    """Several of one size are codebooks, a single one of a much larger size is text, and one alone has no kind."""
    if len(sizes) == 1:
        return [Part("tokens")]
    text = [n for n, size in enumerate(sizes) if size >= MUCH_LARGER * min(sizes)]
    rest = [n for n in range(len(sizes)) if n not in text]
    names: list[Stream] = [TEXT] * len(sizes)
    for number, n in enumerate(text[1:], 2):
        names[n] = Part(f"text_{number}")
    for number, n in enumerate(rest):
        names[n] = AUDIO if len(rest) == 1 else Codebook(number)
    return names
