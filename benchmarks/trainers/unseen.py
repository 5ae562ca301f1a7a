"""Scripts that nobody had run when the check was written: their arguments, and the data that they are given."""

import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.trainers import data
from benchmarks.trainers.script import Script

SMALL = "--batch_size=4 --block_size=64 --n_layer=2 --n_head=4 --n_embd=64"


def random_ids(path: Path, classes: int) -> None:
    """A file of 16-bit ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.random.default_rng(0).integers(0, classes, 20_000).astype(np.uint16).tofile(path)


def nano_gpt(folder: Path) -> None:
    """Ids of 65 characters."""
    prepared = folder / "data" / "shakespeare_char"
    for split in ("train", "val"):
        random_ids(prepared / f"{split}.bin", 65)
    (prepared / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 65, "itos": {}, "stoi": {}}))


def llama2_c(folder: Path) -> None:
    """Three shards of ids."""
    for shard in range(3):
        random_ids(folder / "data" / "TinyStories_all_data" / f"data{shard:02d}.bin", 32_000)


def min_gpt(folder: Path) -> None:
    """A text, beside the repository's package."""
    (folder / "input.txt").write_text("to be, or not to be: that is the question\n" * 60)
    (folder / "chargpt.py").write_bytes((folder / "projects" / "chargpt" / "chargpt.py").read_bytes())


def neutts(folder: Path) -> None:
    """Codes of one codebook, and the checkpoint's configuration."""
    rows = [{"__key__": str(n), "text": f"{data.text(n)}.", "codes": flat(n, 1, 65536)} for n in range(12)]
    (folder / "neuphonic" / "emilia-yodas-english-neucodec").mkdir(parents=True)
    data.lines(folder / "neuphonic" / "emilia-yodas-english-neucodec" / "train.jsonl", rows)
    heads = {"num_attention_heads": 14, "num_key_value_heads": 2, "hidden_size": 896, "intermediate_size": 4864}
    data.lines(
        folder / "qwen2.json", [{"model_type": "qwen2", "vocab_size": 217_652, "num_hidden_layers": 24, **heads}]
    )
    settings = folder / "finetune_config.yaml"
    settings.write_text(settings.read_text().replace("max_seq_len: 2048", "max_seq_len: 320"))


def vyvo(folder: Path) -> None:
    """Text and eight codebooks as ids behind the vocabulary of LFM2, saved by datasets; its path in the settings."""
    import datasets

    rows = [row(n, 64_400, 8, 2048, (3,), (4, 5, 1), (2, 6)) for n in range(12)]
    datasets.Dataset.from_list([{**one, "labels": one["input_ids"]} for one in rows]).save_to_disk(folder / "clips")
    settings = folder / "vyvotts" / "configs" / "train" / "lfm2_5_ft.yaml"
    settings.write_text(re.sub('TTS_dataset: ".*"', 'TTS_dataset: "./clips"', settings.read_text()))


def orpheus_pretrain(folder: Path) -> None:
    """Text and seven codes a frame as ids behind the vocabulary of Llama 3; questions and answers of text alone."""
    settings = (folder / "config.yaml").read_text()
    for unset, value in (
        ("<see read me to choose value>", "2"),
        ("<speech input-ids>", "questions"),
        ("<text-input-ids>", "clips"),
        ("number_processes: 8", "number_processes: 1"),
    ):
        settings = settings.replace(unset, value)
    (folder / "config.yaml").write_text(settings)
    for name in ("questions", "clips"):
        codebooks = 7 if name == "clips" else 0
        (folder / name).mkdir()
        rows = [row(n, 128_256, codebooks, 4096, (3, -256), (-247, 4, 5, 1), (2, 6)) for n in range(30)]
        data.lines(folder / name / "train.jsonl", [{"input_ids": one["input_ids"]} for one in rows])


def csm(folder: Path) -> None:
    """Clips of noise, what they say, as the script keeps it, and the released model's configuration."""
    (folder / "audio_data").mkdir()
    said: dict[str, str] = {}
    for clip in range(9):  # 8 make a step
        path = folder / "audio_data" / f"{clip}.wav"
        data.sound(path, 0.5 + 0.1 * clip, 24_000)
        said[f"{path.relative_to(folder)}_{path.stat().st_mtime}_{path.stat().st_size}"] = data.text(clip)
    data.lines(folder / "audio_data" / "transcription_cache.json", [said])
    flavors = {"backbone_flavor": "llama-1B", "decoder_flavor": "llama-100M"}
    sizes = {"text_vocab_size": 128_256, "audio_vocab_size": 2051, "audio_num_codebooks": 32}
    data.lines(folder / "csm.json", [flavors | sizes])


def whisper(folder: Path) -> None:
    """Clips of noise with a sentence each, saved by datasets."""
    import datasets

    paths = [folder / f"{clip}.wav" for clip in range(6)]
    for path in paths:
        data.sound(path, 1, 16_000)
    rows = {"audio": [str(path) for path in paths], "sentence": [data.text(clip) for clip in range(6)]}
    datasets.Dataset.from_dict(rows).save_to_disk(folder / "clips")


def speech_gpt(folder: Path) -> None:
    """Units between their beginning and end, a clip a line."""
    units = ["".join(f"<{one}>" for one in flat(n, 1, 1000)) for n in range(40)]
    (folder / "train.txt").write_text("".join(f"<sosp>{one}<eosp>\n" for one in units))


def flat(clip: int, codebooks: int, classes: int) -> list[int]:
    """A clip's codes, frame by frame, each codebook with ids of its own."""
    return [code + c * classes for frame in data.codes(clip % 6, codebooks, classes) for c, code in enumerate(frame)]


def row(clip: int, base: int, codebooks: int, classes: int, *marks: Sequence[int]) -> dict[str, list[int]]:
    """Text, then codes, as ids: codes follow ten special ones from `base` on, of which `marks` stand before the text,
    between the two, and behind."""
    before, between, behind = ([base + one for one in each] for each in marks)
    text, codes = list(range(100, 108 + clip % 5)), [base + 10 + one for one in flat(clip, codebooks, classes)]
    ids = [*before, *text, *between, *codes, *behind]
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}


WHISPER = "--model_name openai/whisper-small --language English --num_proc 1 --train_strategy steps --num_steps 5"
SCRIPTS = [
    Script("karpathy nanoGPT", "nanoGPT", ".", "train.py", f"config/train_shakespeare_char.py {SMALL}", nano_gpt),
    Script("karpathy minGPT", "minGPT", ".", "chargpt.py", "", min_gpt),
    Script("karpathy llama2.c", "llama2.c", ".", "train.py", "--batch_size=8 --n_layers=2 --max_seq_len=64", llama2_c),
    Script(
        "neuphonic neutts-air", "neutts-air", "examples", "finetune.py", "finetune_config.yaml", neutts, ("qwen2.json",)
    ),
    Script("VyvoTTS finetune", "VyvoTTS", ".", "vyvotts/train/finetune/train.py", "", vyvo),
    Script("VyvoTTS LoRA", "VyvoTTS", ".", "vyvotts/train/finetune/lora.py", "", vyvo),
    Script("Orpheus pretrain/train.py", "orpheus", "pretrain", "train.py", "", orpheus_pretrain),
    Script("davidbrowne17 csm-streaming", "csm-streaming", ".", "lora.py", "", csm, ("csm.json",)),
    Script(
        "vasistalodagala whisper-finetune",
        "whisper-finetune",
        ".",
        "train/fine-tune_on_custom_dataset.py",
        f"{WHISPER} --train_datasets clips --eval_datasets clips",
        whisper,
    ),
    Script(
        "SpeechGPT ma_pretrain",
        "SpeechGPT",
        "speechgpt",
        "src/train/ma_pretrain.py",
        "--model_name_or_path meta-llama/Llama-2-7b --train_file train.txt --do_train --output_dir out "
        "--cache_dir cache --block_size 64",
        speech_gpt,
    ),
]
