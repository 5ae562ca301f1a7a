"""More scripts that nobody had run before: what is known of each was read in its source first."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trainers import data
from benchmarks.trainers.script import Script
from benchmarks.trainers.unseen import SMALL, random_ids

MINIMIND = "--hidden_size 64 --num_hidden_layers 2 --max_seq_len 96 --batch_size 4 --data_path rows.jsonl"
SENTENCES = "to be, or not to be: that is the question\n" * 400


def nano_rwkv(folder: Path) -> None:
    """Ids of 65 characters."""
    for split in ("train", "val"):
        random_ids(folder / "data" / "shakespeare_char" / f"{split}.bin", 65)


def build_nanogpt(folder: Path) -> None:
    """Two shards of ids."""
    (folder / "edu_fineweb10B").mkdir()
    for split in ("train", "val"):
        ids = np.random.default_rng(0).integers(0, 50_257, 300_000).astype(np.uint16)
        np.save(folder / "edu_fineweb10B" / f"edufineweb_{split}_000000.npy", ids)


def talk(clip: int) -> list[dict[str, str]]:
    """A question and an answer."""
    return [{"role": "user", "content": f"say {clip}"}, {"role": "assistant", "content": data.text(clip)}]


def minimind(folder: Path) -> None:
    """Sentences, and the same as answers; the longer of two answers is the better one."""
    keys = ("reasoning_content", "tools", "tool_calls")
    rows: list[dict[str, Any]] = []
    for clip in range(8):
        whole = [{**turn, **dict.fromkeys(keys, "")} for turn in talk(clip)]
        rows.append({"text": data.text(clip), "conversations": whole, "chosen": talk(clip), "rejected": talk(clip + 1)})
    data.lines(folder / "rows.jsonl", rows)
    data.lines(folder / "talks.jsonl", [{"conversations": row["conversations"]} for row in rows])


def trl_sft(folder: Path) -> None:
    """Questions and answers."""
    (folder / "talks").mkdir()
    data.lines(folder / "talks" / "train.jsonl", [{"messages": talk(clip)} for clip in range(8)])


def trl_dpo(folder: Path) -> None:
    """Questions, and two answers to each."""
    (folder / "pairs").mkdir()
    rows = [{"chosen": talk(clip), "rejected": [talk(clip)[0], talk(clip + 1)[1]]} for clip in range(8)]
    data.lines(folder / "pairs" / "train.jsonl", rows)


def glue(folder: Path) -> None:
    """Pairs of sentences that mean the same, or do not."""
    (folder / "nyu-mll" / "glue" / "mrpc").mkdir(parents=True)
    rows = [{"sentence1": data.text(n), "sentence2": data.text(n + n % 2), "label": n % 2, "idx": n} for n in range(8)]
    for split in ("train", "validation"):
        data.lines(folder / "nyu-mll" / "glue" / "mrpc" / f"{split}.jsonl", rows)
    card = "---\nconfigs:\n- config_name: mrpc\n  data_dir: mrpc\n---\n"
    (folder / "nyu-mll" / "glue" / "README.md").write_text(card)


def wikitext(folder: Path) -> None:
    """Sentences, as a data set of two halves."""
    (folder / "wikitext" / "raw").mkdir(parents=True)
    (folder / "logs").mkdir(exist_ok=True)
    for split in ("train", "validation"):
        data.lines(folder / "wikitext" / "raw" / f"{split}.jsonl", [{"text": data.text(n) * 3} for n in range(8)])
    card = "---\nconfigs:\n- config_name: wikitext-103-raw-v1\n  data_dir: raw\n---\n"
    (folder / "wikitext" / "README.md").write_text(card)


def clips(folder: Path, rate_hz: int, seconds: float = 1.0) -> list[str]:
    """Six clips of noise; their names."""
    for clip in range(6):
        data.sound(folder / f"{clip}.wav", seconds + 0.1 * clip, rate_hz)
    return [f"{clip}.wav" for clip in range(6)]


def big_vgan(folder: Path) -> None:
    """Noise, and the smallest published generator, its segments short."""
    clips(folder, 24_000)
    (folder / "files.txt").write_text("".join(f"{clip}|{data.text(clip)}\n" for clip in range(6)))
    (folder / "none.txt").write_text("")
    small = {"batch_size": 2, "segment_size": 8192, "num_workers": 0, "upsample_initial_channel": 64}
    data.changed(folder / "configs" / "bigvgan_base_24khz_100band.json", **small)


def speech_tokenizer(folder: Path) -> None:
    """Noise, and features of a teacher; a small encoder."""
    rows = []
    for name in clips(folder, 16_000, 3.2):
        np.save(folder / f"{name}.npy", np.random.default_rng(0).standard_normal((1, 150, 768)).astype(np.float32))
        rows.append(f"{name}\t{name}.npy\n")
    for name in ("train_file_list.txt", "dev_file_list.txt"):
        (folder / name).write_text("".join(rows))
    data.changed(folder / "config" / "spt_base_cfg.json", n_filters=4, dimension=64, batch_size=2, segment_size=16000)


def matcha(folder: Path) -> None:
    """Noise, and what is said; a small model, and hydra's plain logging."""
    names = clips(folder, 22_050)
    for split in ("train", "val"):
        path = folder / "data" / "LJSpeech-1.1" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{folder / name}|{data.text(n)}\n" for n, name in enumerate(names)))


def vocos(folder: Path) -> None:
    """Noise; a small backbone, and short windows in batches of two."""
    (folder / "files.txt").write_text("".join(f"{folder / name}\n" for name in clips(folder, 24_000)))
    path = folder / "configs" / "vocos.yaml"
    settings = path.read_text().replace("???", "files.txt").replace("batch_size: 16", "batch_size: 2")
    path.write_text(re.sub("(num_samples: )\\d+", "\\g<1>8192", settings.replace("num_layers: 8", "num_layers: 1")))


def char_rnn(folder: Path) -> None:
    """A text."""
    (folder / "text.txt").write_text(SENTENCES)


def mamba_integer(folder: Path) -> None:
    """Ids, and a small model."""
    random_ids(folder / "scripts" / "tinystories_train.bin", 4096)
    path = folder / "configs" / "config_mamba_integer_l4.json"
    settings = json.loads(path.read_text()) | {"d_model": 96, "n_layer": 2}
    settings["ssm_cfg"] |= {"n_heads": 3, "d_head": 64, "dt_rank": 6}
    settings["training"] |= {"seq_len": 64}
    path.write_text(json.dumps(settings))


def trm(folder: Path) -> None:
    """Codes of 32 codebooks with their texts."""
    import torch

    (folder / "clips").mkdir()
    for clip in range(12):
        codes = torch.tensor(data.codes(clip % 6, 32, 2048)).T
        torch.save({"tokens": codes, "text": data.text(clip), "speaker_id": clip % 2}, folder / "clips" / f"{clip}.pt")


SCRIPTS = [
    Script("BlinkDL nanoRWKV", "nanoRWKV", ".", "train.py", f"config/train_shakespeare_char.py {SMALL}", nano_rwkv),
    Script("karpathy build-nanogpt", "build-nanogpt", ".", "train_gpt2.py", "", build_nanogpt),
    Script("MiniMind pretrain", "minimind", "trainer", "train_pretrain.py", MINIMIND, minimind),
    Script(
        "MiniMind full_sft",
        "minimind",
        "trainer",
        "train_full_sft.py",
        f"{MINIMIND} --data_path talks.jsonl --from_weight none",
        minimind,
    ),
    Script(
        "MiniMind lora",
        "minimind",
        "trainer",
        "train_lora.py",
        f"{MINIMIND} --data_path talks.jsonl --from_weight none",
        minimind,
    ),
    Script("MiniMind dpo", "minimind", "trainer", "train_dpo.py", f"{MINIMIND} --from_weight none", minimind),
    Script("LLMs-from-scratch gpt_train", "LLMs-from-scratch", "ch05/01_main-chapter-code", "gpt_train.py"),
    Script("Shakespeare GPT-2 124M", "ERAV4-Session11-shakespeare-gpt2-124M", ".", "train.py"),
    Script(
        "trl sft",
        "trl",
        ".",
        "trl/scripts/sft.py",
        "--model_name_or_path Qwen/Qwen2.5-0.5B --dataset_name talks --output_dir out",
        trl_sft,
    ),
    Script(
        "trl dpo",
        "trl",
        ".",
        "trl/scripts/dpo.py",
        "--model_name_or_path Qwen/Qwen2.5-0.5B --dataset_name pairs --output_dir out",
        trl_dpo,
    ),
    Script("accelerate nlp_example", "accelerate", "examples", "nlp_example.py", "", glue),
    Script("slm_training", "slm_training", ".", "train.py", "", wikitext),
    Script(
        "NVIDIA BigVGAN",
        "BigVGAN",
        ".",
        "train.py",
        "--config configs/bigvgan_base_24khz_100band.json --input_wavs_dir . --input_training_file files.txt "
        "--input_validation_file files.txt --list_input_unseen_wavs_dir ."
        " --list_input_unseen_validation_file files.txt",
        big_vgan,
    ),
    Script(
        "SpeechTokenizer",
        "SpeechTokenizer",
        ".",
        "scripts/train_example.py",
        "-c config/spt_base_cfg.json",
        speech_tokenizer,
    ),
    Script(
        "Matcha-TTS",
        "Matcha-TTS",
        ".",
        "matcha/train.py",
        "experiment=ljspeech hydra/hydra_logging=default hydra/job_logging=default data.batch_size=3",
        matcha,
    ),
    Script("gemelo-ai vocos", "vocos", ".", "train.py", "-c configs/vocos.yaml", vocos),
    Script("char-rnn.pytorch", "char-rnn.pytorch", ".", "train.py", "text.txt --chunk_len 40 --batch_size 4", char_rnn),
    Script("mamba-integer", "mamba-integer", ".", "scripts/train_mamba_integer.py", "", mamba_integer),
    Script(
        "TRM-RESEARCH train_tts",
        "TRM-RESEARCH",
        ".",
        "train_tts.py",
        "--token-dir clips --hidden-dim 64 --text-embed-dim 64 --audio-embed-dim 64 --num-heads 4 --batch-size 4",
        trm,
    ),
]
