"""Share of a clip's codes that are others if it is padded for a batch: `python -m benchmarks.padding`.

DAC and the Higgs tokenizer of transformers, small and with random weights in the released formats; noise whose level
swells. `before` counts all frames but the last five."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import DacConfig, DacModel

from earnest.codecs.pretrained import load_pretrained
from earnest.data.store import codes_together
from tests.equipment.codecs import with_drawn_entries
from tests.equipment.released import Released

LENGTHS_S = (1.0, 1.5, 2.0)


def main() -> None:
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        released = Released(Path(folder))
        config = DacConfig(  # as released, a quarter as wide
            downsampling_ratios=[2, 4, 8, 8],
            encoder_hidden_size=16,
            decoder_hidden_size=32,
            n_codebooks=9,
            sampling_rate=44_100,
        )
        DacModel(config).save_pretrained(Path(folder) / "wide")
        higgs = with_drawn_entries(load_pretrained(released("higgs_codec")))
        codecs = {"dac": load_pretrained(str(Path(folder) / "wide")), "higgs": higgs}
        for name, codec in codecs.items():
            waves = list[np.ndarray]()
            for length_s in LENGTHS_S:
                time_s = np.arange(int(codec.sample_rate_hz * length_s)) / codec.sample_rate_hz
                noise_N = random.standard_normal(len(time_s)) * (1 + np.sin(9 * time_s))
                waves.append((0.2 * noise_N).astype(np.float32))
            for length_s, wave_N, codes_CT in zip(LENGTHS_S, waves, codes_together(waves, codec), strict=True):
                other_CT = codes_CT != codes_together([wave_N], codec)[0]
                print(
                    f"{name:<6} {length_s} s in a batch of {LENGTHS_S[-1]} s: {other_CT.mean():.1%} other codes, "
                    f"last five frames {other_CT[:, -5:].mean():.1%}, before {other_CT[:, :-5].mean():.1%}"
                )


if __name__ == "__main__":
    main()
