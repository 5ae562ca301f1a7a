"""Scripts that are run unmodified: their arguments, and the data that they are given."""

import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trainers import data, later, unseen
from benchmarks.trainers.script import SOURCES, Script

QWEN = (
    "--init_model_path Qwen/Qwen3-TTS-12Hz-1.7B-Base --output_model_path out --train_jsonl train.jsonl --batch_size 3"
)


def qwen(folder: Path) -> None:
    """A configuration of the published shape, and clips with 16 codebooks."""
    special = {
        "codec_eos_token_id": 2150,
        "codec_pad_id": 2148,
        "codec_bos_id": 2149,
        "codec_think_id": 2154,
        "codec_nothink_id": 2155,
        "codec_think_bos_id": 2156,
        "codec_think_eos_id": 2157,
    }
    rope = {"rope_type": "default", "type": "default", "mrope_section": [24, 20, 20], "interleaved": True}
    talker = {
        "num_code_groups": 16,
        "vocab_size": 3072,
        "text_vocab_size": 151936,
        "text_hidden_size": 2048,
        "spk_id": {},
        "spk_is_dialect": {},
        "codec_language_id": {},
    }
    talker |= special | {"rope_scaling": rope, "code_predictor_config": {"vocab_size": 2048, "num_code_groups": 16}}
    config = {"model_type": "qwen3_tts", "tts_model_type": "base", "tokenizer_type": "qwen3_tts_tokenizer_12hz"}
    checkpoint = folder / "Qwen3-TTS-12Hz-1.7B-Base"
    checkpoint.mkdir()
    data.lines(checkpoint / "config.json", [config | {"talker_config": talker, "speaker_encoder_config": {}}])
    rows = []
    for clip in range(6):
        data.sound(folder / f"{clip}.wav", 1, 24000)
        name, codes = f"{clip}.wav", data.codes(clip, 16, 2048)
        rows.append({"audio": name, "text": data.text(clip), "ref_audio": name, "audio_codes": codes})
    data.lines(folder / "train.jsonl", rows)


SMALL_DIA = {"n_layer": 1, "n_embd": 64, "n_hidden": 128, "n_head": 2, "head_dim": 32, "gqa_query_heads": 2}
SMALL_DIA |= {"cross_query_heads": 2, "kv_heads": 2, "gqa_head_dim": 32, "cross_head_dim": 32}


def dia(folder: Path) -> None:
    """Six short clips; the configuration made small."""
    data.changed(folder / "dia" / "config.json", **SMALL_DIA, text_length=64, audio_length=128)
    for clip in range(400):
        data.sound(folder / f"{clip}.wav", 0.3 + 0.1 * (clip % 5), 44100)
    (folder / "clips.csv").write_text("".join(f"{clip}.wav|{data.text(clip)}\n" for clip in range(400)))


def llasa(folder: Path) -> None:
    """Rows of the published form: text, the start of speech, codes, the end of speech, padding."""
    # ids of the stand-in tokenizer: 4 special tokens, 256 bytes, then the tokens that the script adds, in its order
    start, end, speech, width = 260 + 4, 260 + 5, 268, 64
    rows = np.full((6, width), 1, dtype=np.int32)
    for clip in range(6):
        codes = [speech + code[0] for code in data.codes(clip, 1, 65536)]
        row = [*range(40, 45 + clip), start, *codes, end]
        rows[clip, : len(row)] = row
    rows.tofile(folder / "train_input_ids.memmap")
    np.save(folder / "train_input_ids_shape.npy", np.array(rows.shape))
    arguments = {"data_path": ".", "output_dir": "out", "per_device_train_batch_size": 3, "model_max_length": 64}
    data.lines(folder / "args.json", [arguments])


def orpheus(folder: Path) -> None:
    """Rows of equal length, as the published collator wants them."""
    (folder / "data").mkdir()
    rows = [[1, *range(20, 26), *(c[0] + 300 for c in data.codes(clip, 1, 4096)), 2] for clip in range(6)]
    rows = [row[:16] for row in rows]
    data.lines(folder / "data" / "train.jsonl", [{"input_ids": row, "labels": row} for row in rows])
    config = folder / "config.yaml"
    config.write_text(
        config.read_text().replace("<PATH_TO_YOUR_DATASET>", "data").replace("batch_size: 1", "batch_size: 3")
    )


def sovits(folder: Path) -> None:
    """Phonemes and semantic tokens of six clips; two layers of width 64."""
    settings = (folder / "configs" / "s1longer-v2.yaml").read_text()
    for name, number in (("n_layer", 2), ("hidden_dim", 64), ("embedding_dim", 64), ("head", 4), ("linear_units", 128)):
        settings = re.sub(rf"(?m)^  {name}: .*", f"  {name}: {number}", settings)
    paths = "output_dir: out\ntrain_semantic_path: semantic.tsv\ntrain_phoneme_path: phonemes.txt\n"
    more = "  if_save_latest: true\n  if_save_every_weights: false\n  half_weights_save_dir: out\n  exp_name: six\n"
    (folder / "args.yaml").write_text(paths + settings.replace("train:\n", f"train:\n{more}"))
    codes = {clip: " ".join(str(code[0]) for code in data.codes(clip, 1, 1024)) for clip in range(6)}
    (folder / "semantic.tsv").write_text("item\tcodes\n" + "".join(f"clip{n}\t{each}\n" for n, each in codes.items()))
    (folder / "phonemes.txt").write_text("".join(f"clip{n}\t{'b a1 m a1 ' * 2}SP\t-\t-\n" for n in codes))


def moss(folder: Path) -> None:
    """Codes of 32 codebooks."""
    rows = [{"text": data.text(clip), "audio_codes": data.codes(clip, 32, 1024)} for clip in range(6)]
    data.lines(folder / "train.jsonl", rows)


def sesame(folder: Path) -> None:
    """Clips of 32 codebooks in HDF5, an .env file, and the released model's configuration."""
    import h5py  # type: ignore[import-not-found]

    repository = folder.parent / "csm"
    shutil.copytree(SOURCES[0] / "csm", repository, ignore=shutil.ignore_patterns(".git"))
    (folder / ".env").write_text(f"WANDB_API_KEY=none\nAUDIO_NUM_CODEBOOKS=32\nCSM_REPO_PATH={repository}\n")
    (folder / "csm-1b").mkdir()
    flavors = {"backbone_flavor": "llama-1B", "decoder_flavor": "llama-100M"}
    sizes = {"text_vocab_size": 128256, "audio_vocab_size": 2051, "audio_num_codebooks": 32}
    data.lines(folder / "csm-1b" / "config.json", [flavors | sizes])
    kind = h5py.vlen_dtype(np.int32)
    with h5py.File(folder / "tokens.hdf5", "w") as file:
        for split in ("train", "val"):
            audio, text, length = (
                file.create_dataset(f"{split}/{name}", (6,), dtype=each)
                for name, each in (("audio", kind), ("text", kind), ("length", np.int32))
            )
            for clip in range(6):
                audio[clip] = 1 + np.array(data.codes(clip, 32, 2047), dtype=np.int32).T.reshape(-1)
                text[clip] = np.arange(10, 16 + clip, dtype=np.int32)
                length[clip] = data.FRAMES[clip] + 6 + clip


def slm_mot(folder: Path) -> None:
    """A small Llama of its own kind, captions, and codes of four codebooks."""
    checkpoint = folder.parent / "Llama-3.2-1B"
    checkpoint.mkdir()
    data.lines(checkpoint / "params.json", [{"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 128256}])
    captions = folder / "google" / "MusicCaps"
    captions.mkdir(parents=True)
    data.lines(captions / "train.jsonl", [{"ytid": str(clip), "caption": data.text(clip)} for clip in range(6)])
    encoded = folder / "pre_encoded_audio"
    encoded.mkdir()
    files = {str(clip): {"encoded_file": f"pre_encoded_audio/{clip}.npy"} for clip in range(6)}
    data.lines(encoded / "metadata.json", [files])
    for clip in range(6):
        np.save(encoded / f"{clip}.npy", np.array(data.codes(clip, 4, 2048)).T[None])


def itsit(folder: Path) -> None:
    """Raw DAC codes of clips; nari-labs' dia beside, its configuration small."""
    shutil.copytree(SOURCES[0] / "nari" / "dia", folder / "dia")
    (folder / "Dia-1.6B").mkdir()
    shutil.copy(SOURCES[0] / "dia" / "dia" / "config.json", folder / "Dia-1.6B")
    data.changed(folder / "Dia-1.6B" / "config.json", **SMALL_DIA, text_length=128, audio_length=256)
    (folder / "crying" / "dac_tokens").mkdir(parents=True, exist_ok=True)
    rows = "".join(f"crying/wav_44k/{clip}.wav,{data.text(clip)}\n" for clip in range(6))
    (folder / "crying" / "manifest.csv").write_text("path,text\n" + rows)
    for clip in range(6):
        np.save(folder / "crying" / "dac_tokens" / f"{clip}.npy", np.array(data.codes(clip, 9, 1024)))


def turkish(folder: Path) -> None:
    """Clips as files of codes; the configuration of Qwen3-TTS."""
    qwen(folder)
    rows = [{"token_file": f"{n}.npy", "text": data.text(n), "n_frames": data.FRAMES[n]} for n in range(6)]
    for clip in range(6):
        np.save(folder / f"{clip}.npy", np.array(data.codes(clip, 16, 2048)))
    for split in ("Train", "Test"):
        (folder / f"{split}_metadata.json").write_text(json.dumps(rows))


def whisper(folder: Path) -> None:
    """Features and labels on disk, as its own preparation leaves them."""
    import datasets

    def rows() -> Iterator[dict[str, Any]]:
        for clip in range(6):
            labels = [50257, *(300 + code[0] for code in data.codes(clip, 1, 4000)), 50256]
            yield {"input_features": np.zeros((80, 3000), dtype=np.float32), "labels": labels}

    half = datasets.Dataset.from_list(list(rows()))
    datasets.DatasetDict({"train": half, "test": half}).save_to_disk(folder / "data")


def marvis(folder: Path) -> None:
    """One shard of a web dataset, and a configuration without a checkpoint."""
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "0.tar", "w") as shard:
        for clip in range(6):
            row = {"audio_tokens": np.array(data.codes(clip, 32, 2047)).T.tolist(), "text": data.text(clip)}
            text = json.dumps(
                row | {"text_tokens": list(range(10, 16 + clip)), "text_tokens_length": 6 + clip}
            ).encode()
            entry = tarfile.TarInfo(f"{clip}.json")
            entry.size = len(text)
            shard.addfile(entry, io.BytesIO(text))
    settings = {"backbone_flavor": "llama-100M", "decoder_flavor": "llama-60M", "tokenizer": "llama3"}
    settings |= {"dataset_repo_id": str(folder / "shards")}
    data.lines(folder / "args.json", [settings])


def hifi_gan(folder: Path) -> None:
    """Noise, and the smallest published generator in batches of two short segments."""
    for clip in range(6):
        data.sound(folder / f"{clip}.wav", 1, 22050)
    (folder / "files.txt").write_text("".join(f"{clip}|{data.text(clip)}\n" for clip in range(6)))
    small = {"batch_size": 2, "segment_size": 2048, "num_workers": 0, "upsample_initial_channel": 32}
    data.changed(folder / "config_v3.json", **small)


SCRIPTS = [
    Script("Qwen3-TTS sft_12hz (HEAD)", "qwen", "finetuning", "sft_12hz.py", QWEN, qwen),
    Script("Qwen3-TTS sft_12hz (680d4e9)", "qwen680", "finetuning", "sft_12hz.py", QWEN, qwen),
    Script("Qwen3-TTS PR #278", "qwen278", "finetuning", "sft_12hz.py", QWEN, qwen),
    Script(
        "tablerst Qwen3-TTS-Fine LoRA",
        "tablerst",
        ".",
        "lora_finetuning/sft_12hz_lora.py",
        "--base_model Qwen/Qwen3-TTS-12Hz-1.7B-Base --train_jsonl train.jsonl --batch_size 3 --output_root out "
        "--gradient_accumulation_steps 2",
        qwen,
    ),
    Script("bc-dunia finetune-studio", "bcdunia", "third_party/Qwen3-TTS/finetuning", "sft_12hz.py", QWEN, qwen),
    Script(
        "stlohrey dia-finetuning",
        "dia",
        ".",
        "dia/finetune.py",
        "--csv_path clips.csv --audio_root . --config dia/config.json",
        dia,
    ),
    Script(
        "LLaSA_training train_tts.py",
        "llasa",
        ".",
        "train_tts.py",
        "args.json",
        llasa,
    ),
    Script("Orpheus finetune/train.py", "orpheus", "finetune", "train.py", "", orpheus),
    Script("GPT-SoVITS s1", "sovits", "GPT_SoVITS", "s1_train.py", "-c args.yaml", sovits),
    Script(
        "MOSS-TTS delay SFT",
        "moss",
        ".",
        "moss_tts_delay/finetuning/sft.py",
        "--train-jsonl train.jsonl --per-device-batch-size 3",
        moss,
    ),
    Script(
        "knottwill sesame-finetune",
        "sesame",
        ".",
        "train.py",
        "--data tokens.hdf5",
        sesame,
        configs=("csm-1b/config.json",),
    ),
    Script("SLM-MoT train_adapter.py", "slmmot", "llama3/adapter_training", "train_adapter.py", "", slm_mot),
    Script("itsitgroup dia-finetune", "itsit", ".", "04_finetune.py", "", itsit, configs=("Dia-1.6B/config.json",)),
    Script(
        "hcfk qwen3-tts-turkish",
        "x_qwen3-tts-turkish",
        ".",
        "train.py",
        "--model_dir Qwen3-TTS-12Hz-1.7B-Base --data_dir . --output_dir out --sample_every 0",
        turkish,
    ),
    Script("ByErenOzer Whisper_Finetune", "x_Whisper_Finetune", ".", "finetune_lora.py", "", whisper),
    Script("sethdford marvis", "x_marvis", ".", "train.py", "args.json", marvis),
    Script(
        "jik876 hifi-gan",
        "x_hifi-gan",
        ".",
        "train.py",
        "--config config_v3.json --input_wavs_dir . --input_training_file files.txt --input_validation_file files.txt",
        hifi_gan,
    ),
    *unseen.SCRIPTS,
    *later.SCRIPTS,
]
