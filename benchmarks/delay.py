"""The delay pattern, applied and reverted: `python -m benchmarks.delay`, a minute on one core.

Peers: transformers' processors of Higgs Audio v2 and Dia; boson-ai/higgs-audio and facebookresearch/audiocraft where
they are installed (only their one file of functions is loaded: `pip install --no-deps` is enough). Batches of 8 clips
of 1500 frames, int64, and of one clip of 250. Every peer's tokens and codes are asserted equal to ours.
"""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers.models.dia.processing_dia import DiaProcessor
from transformers.models.higgs_audio_v2.processing_higgs_audio_v2 import HiggsAudioV2Processor

from benchmarks.side_by_side import Comparison, show
from earnest.data.patterns import delay, undelay

BOS, EOS = 1024, 1025
EVEN, DIA = list(range(8)), [0, 8, 9, 10, 11, 12, 13, 14, 15]


@dataclass(frozen=True)
class Peer:
    name: str
    delays: list[int]
    apply: Callable[[Tensor], Tensor]  # codes_BCT -> tokens_BCS
    revert: Callable[[Tensor], Tensor]
    behind: int = EOS


def peers() -> list[Peer]:
    higgs: Any = SimpleNamespace(audio_stream_bos_id=BOS, audio_stream_eos_id=EOS)
    found = [
        Peer(
            "transformers Higgs",
            EVEN,
            lambda codes_BCT: HiggsAudioV2Processor.build_delay_pattern(higgs, codes_BCT),
            lambda tokens_BCS: torch.stack(
                [HiggsAudioV2Processor.revert_delay_pattern(higgs, one.T).T for one in tokens_BCS]
            ),
        ),
        transformers_dia(),
    ]
    if boson := module_of("boson_multimodal", "model/higgs_audio/utils.py"):
        found.append(
            Peer(
                "boson",
                EVEN,
                lambda codes_BCT: boson.build_delay_pattern_mask(codes_BCT, BOS, EOS)[0],
                lambda tokens_BCS: torch.stack([boson.revert_delay_pattern(one) for one in tokens_BCS]),
            )
        )
    if audiocraft := module_of("audiocraft", "modules/codebooks_patterns.py"):
        kept = audiocraft.DelayedPatternProvider(len(EVEN))
        found.append(audiocraft_peer("audiocraft, a length that it has seen", lambda frames: kept.get_pattern(frames)))
        found.append(
            audiocraft_peer(
                "audiocraft, a new length",
                lambda frames: audiocraft.DelayedPatternProvider(len(EVEN)).get_pattern(frames),
            )
        )
    return found


def transformers_dia() -> Peer:
    """Its processor lays out (B, T, C), and reads behind the audio from a copy padded in advance."""

    def apply(codes_BCT: Tensor) -> Tensor:
        clips, _, frames = codes_BCT.shape
        padded_BSC = torch.nn.functional.pad(codes_BCT.transpose(1, 2), (0, 0, 0, max(DIA)), value=EOS)
        indices = DiaProcessor.build_indices(clips, frames + max(DIA), len(DIA), DIA, revert=False)
        return DiaProcessor.apply_audio_delay(padded_BSC, EOS, BOS, indices).transpose(1, 2)

    def revert(tokens_BCS: Tensor) -> Tensor:
        clips, _, positions = tokens_BCS.shape
        indices = DiaProcessor.build_indices(clips, positions, len(DIA), DIA, revert=True)
        codes_BSC = DiaProcessor.apply_audio_delay(tokens_BCS.transpose(1, 2), EOS, BOS, indices)
        return codes_BSC[:, : positions - max(DIA)].transpose(1, 2)

    return Peer("transformers Dia", DIA, apply, revert)


def audiocraft_peer(name: str, pattern_of: Callable[[int], Any]) -> Peer:
    """Its patterns begin with one special position more, and have one special token for both sides."""

    def revert(tokens_BCS: Tensor) -> Tensor:
        tokens_BCS = torch.nn.functional.pad(tokens_BCS, (1, 0), value=BOS)
        return pattern_of(tokens_BCS.shape[-1] - len(EVEN)).revert_pattern_sequence(tokens_BCS, BOS)[0]

    return Peer(
        name,
        EVEN,
        lambda codes_BCT: pattern_of(codes_BCT.shape[-1]).build_pattern_sequence(codes_BCT, BOS)[0][..., 1:],
        revert,
        BOS,
    )


def module_of(package: str, file: str) -> ModuleType | None:
    """One file of an installed package, without what the package imports; says so and is None where there is none."""
    try:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise ImportError("not installed")
        spec = importlib.util.spec_from_file_location(
            f"{package}_file", Path(found.submodule_search_locations[0]) / file
        )
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        print(f"SKIPPED {package}: {error}")
        return None
    return module


def comparisons() -> Iterator[Comparison]:
    for peer in peers():
        for clips, frames in ((8, 1500), (1, 250)):
            codes_BCT = torch.randint(0, 1024, (clips, len(peer.delays), frames))
            tokens_BCS = delay(codes_BCT, peer.delays, BOS, peer.behind)
            assert torch.equal(peer.apply(codes_BCT), tokens_BCS) and torch.equal(peer.revert(tokens_BCS), codes_BCT)
            assert torch.equal(undelay(tokens_BCS, peer.delays), codes_BCT)
            yield Comparison(
                f"delay and its undoing, codes [{clips}, {len(peer.delays)}, {frames}]",
                peer.name,
                partial(both, peer, codes_BCT, tokens_BCS),
                lambda peer=peer, codes_BCT=codes_BCT, tokens_BCS=tokens_BCS: (
                    peer.apply(codes_BCT),
                    peer.revert(tokens_BCS),
                ),
                "tokens and codes equal",
                turns=9,
                calls=30,
            )


def both(peer: Peer, codes_BCT: Tensor, tokens_BCS: Tensor) -> tuple[Tensor, Tensor]:
    """With the codes copied out of their view, as a codec wants them."""
    tokens = delay(codes_BCT, peer.delays, BOS, peer.behind)
    return tokens, undelay(tokens_BCS, peer.delays).contiguous()


if __name__ == "__main__":
    show(comparisons())
