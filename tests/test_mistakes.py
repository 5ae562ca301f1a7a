"""Mistakes on purpose: the command, its three lines, its exit code. Each line stands for a kind.

A mistake ends in three lines with both values and the way out, and exits with 2, which no finding does (1).
"""

import json
import shlex
import shutil
import zipfile

import numpy as np
import pytest
import soundfile

from earnest import cli
from earnest.cli import main
from earnest.logs.find import ADDRESSES


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "log.csv").write_text("step,loss\n" + "".join(f"{i},{6 - i / 30}\n" for i in range(60)))
    for name, count in {"one": 1, "broken": 4, "untold": 3}.items():
        (folder / name).mkdir()
        for index in range(count):
            soundfile.write(folder / name / f"{index}.wav", 0.1 * np.sin(np.arange(4000) / 9), 16000)
    (folder / "one/metadata.csv").write_text("file_name,text\n0.wav,one\n")
    (folder / "broken/metadata.csv").write_text("file_name,text\n" + "".join(f"{i}.wav,text {i}\n" for i in range(4)))
    for index in range(3):
        (folder / f"broken/{index}.wav").write_text("this is text")
    names = ("good", "hollow", "voiceless", "cut", "lost")  # the first can be trained on
    for name in names:
        (folder / name).mkdir()
        for index in range(0 if name == "lost" else 6):
            wave_N = 0.1 * np.sin(np.arange(0 if name == "voiceless" else 4000) / 9)
            soundfile.write(folder / name / f"{index}.wav", wave_N, 16000)
            if name == "hollow":
                (folder / name / f"{index}.txt").write_text(" \n")
        if name != "hollow":
            rows = "".join(f"{i}.wav,text {i}\n" for i in range(0 if name == "cut" else 6))
            (folder / name / "metadata.csv").write_text(f"file_name,text\n{rows}")
    six = [f"{i}.wav,text {i}" for i in range(6)]
    lists = {
        "twice": ["file_name,text", *six, six[0]],
        "open": ["file_name,text", *six[:4], '4.wav,"a text'],
        "swapped": ["text,file_name", *six],
        "invisible": ["file_name,text", *(f"{i}.wav,\u200b" for i in range(6))],
    }
    for name in (*lists, "numbers"):
        shutil.copytree(folder / "good", folder / name)
        (folder / name / "metadata.csv").unlink()
    for name, rows_of_list in lists.items():
        (folder / name / "metadata.csv").write_text("\n".join(rows_of_list), encoding="utf-8")
    (folder / "numbers/metadata.json").write_text("[1, 2]")
    for name in ("sheet", "german", "endless", "nameless"):
        shutil.copytree(folder / "good", folder / name)
        (folder / name / "metadata.csv").unlink()
    (folder / "sheet/texts.xlsx").write_bytes(b"PK")
    (folder / "german/metadata.csv").write_text("file_name,text\n0.wav,größer\n", encoding="cp1252")
    (folder / "endless/metadata.csv").write_text("file_name,text\n0.wav," + "word " * 40000 + "\n")
    (folder / "nameless/list.csv").write_text("filename,fold,heard_as\n0.wav,1,dog\n1.wav,1,cat\n")
    (folder / "zeros").mkdir()
    for index in range(3):
        (folder / f"zeros/{index}.wav").touch()
    (folder / "zeros/metadata.csv").write_text("file_name,text\n" + "".join(f"{i}.wav,text {i}\n" for i in range(3)))
    with zipfile.ZipFile(folder / "nested.zip", "w") as nested:
        nested.writestr("inside.zip", "PK")
    (folder / "shards").mkdir()
    for path in ("shard.tar", "shards/0.tar", "shards/1.tar", "good.zip", "set.rar", "bad.parquet"):
        (folder / path).write_text("packed")
    for name, text in CONFIGURATIONS.items():
        (folder / name).write_bytes(text)
    (folder / "empty").mkdir()
    (folder / "talks.json").write_text(json.dumps({"messages": []}))
    return folder


CONFIGURATIONS = {
    "typo.yaml": b"optimizer:\n  learnin_rate: 1\n",
    "other.yaml": b"shape:\n  encoder_width: 16\n",
    "flag.yaml": b"specials_count: maybe\n",
    "list.yaml": b"steps: [1, 2]\n",
    "tab.yaml": b"optimizer:\n\tlearning_rate: 1\n",
    "null.yaml": b"seed: null\n",
    "binary.yaml": bytes(range(256)),
}
T, G = "train higgs-tiny --out run", "generate run --text hi --out x.wav"
MISTAKES = [  # words, seen, expected, fix
    # facts
    ("diagnose log.csv --fact audio_vocab=abc", "fact audio_vocab = 'abc'", "a whole number", "vocab"),
    ("diagnose log.csv --fact text_vocab=-5", "fact text_vocab = -5", "a whole number >= 2", ""),
    ("diagnose log.csv --fact max_grad_norm=abc", "fact max_grad_norm = 'abc'", "a number", ""),
    ("diagnose log.csv --fact label_counts=[1,2,3]", "fact label_counts", "", ""),
    ("diagnose log.csv --fact eos_id=x", "fact eos_id = 'x'", "a whole number", ""),
    # numbers that cannot be
    (f"{T} --steps 0", "--steps 0", "a whole number, 1 or more", "--steps"),
    (f"{T} --steps -5", "--steps -5", "a whole number, 1 or more", "--steps"),
    (f"{T} --epochs 0", "--epochs 0", "a number, more than 0", "--epochs"),
    (f"{T} --epochs nan", "--epochs nan", "a finite number", "--epochs"),
    (f"{T} --data.held-out-frac 1.5", "--data.held-out-frac 1.5", "a share from 0 and below 1", ""),
    (f"{T} --data.held-out-frac 1", "--data.held-out-frac 1", "a share from 0 and below 1", ""),
    (f"{T} --data.limit 0", "--data.limit 0", "1 or more", ""),
    (f"{T} --optimizer.learning-rate -1", "--optimizer.learning-rate -1", "0 or more", ""),
    (f"{T} --optimizer.learning-rate inf", "--optimizer.learning-rate inf", "a finite number", ""),
    (f"{T} --optimizer.ema-decay 1", "--optimizer.ema-decay 1", "below 1", ""),
    (f"{T} --demos.temperatures 0 -1", "--demos.temperatures -1", "0 or more", ""),
    (f"{T} --text-weight -1", "--text-weight -1", "0 or more", ""),
    (f"{T} --seed -1", "--seed -1", "0 or more", ""),
    ("train dia-tiny --data.unconditional-frac 2", "--data.unconditional-frac 2", "from 0 to 1", ""),
    ("train amy-tiny --shape.codebooks 0", "--shape.codebooks 0", "1 or more", ""),
    ("check higgs-tiny --shape.layers 0", "--shape.layers 0", "a whole number, 1 or more", ""),
    # shapes that cannot be
    ("check higgs-tiny --shape.width 255", "--shape.width 255 for 4 heads", "an even width", "--shape.width 256"),
    ("check higgs-tiny --shape.heads 3", "--shape.width 256 for 3 heads", "an even width", "number of heads"),
    ("check dia-tiny --shape.kv-heads 3", "--shape.kv-heads 3 for 4 heads", "a divisor of 4", "--shape.kv-heads 4"),
    ("check dia-tiny --shape.encoder-heads 3", "--shape.encoder-width 128 for 3 heads", "an even width", ""),
    ("check mot-tiny --shape.width 30", "--shape.width 30 for 4 heads", "an even width", "--shape.width 32"),
    ("check amy-tiny --shape.hop-samples 321", "--shape.hop-samples 321", "an even number", ""),
    ("check amy-tiny --shape.phase-bins 999", "--shape.phase-bins 999 of a window of 640", "at most the 321", ""),
    # what is generated, and where to
    ("generate run --text '' --out x.wav", "an empty --text", "the words to say", "--text"),
    ("generate run --text ' ' --out x.wav", "an empty --text", "the words to say", "--text"),
    (f"{G} --temperature -1", "--temperature -1", "0 or more", ""),
    (f"{G} --top-k 0", "--top-k 0", "1 or more", ""),
    (f"{G} --top-p 0", "--top-p 0", "above 0 to 1", ""),
    (f"{G} --max-duration-s 0", "--max-duration-s 0", "more than 0", ""),
    ("generate run --text hi --out x.xyz", "x.xyz", "ends in .wav, .flac, .mp3 or .ogg", "rename"),
    ("generate run --text hi --out x", "x", "ends in .wav", "rename"),
    ("generate run --text hi --out gone/x.wav", "no directory gone", "a directory that is there", ""),
    ("generate nope --text hi", "no --out", "--out:", "--help"),
    ("generate nope --text hi --out x.wav", "no run.json in nope", "earnest train", ""),
    ("diagnose log.csv --out gone/x.html", "no such file or directory", "written to", "path"),
    # words
    ("diagnose log.csv --format md", "--format md", "markdown", "did you mean markdown?"),
    (f"{T} --mixed-precision fp16", "--mixed-precision fp16", "one of auto, bf16, no", "did you mean bf16?"),
    ("diagnose https://wandb.ai/a/b/runs/c", "the address https://wandb.ai/a/b/runs/c", "this machine", "wandb/"),
    ("diagnose https://www.example.org/x.csv", "the address https://www.example.org", "this machine", "download"),
    # data
    (f"{T} --data.path nope/x", "no folder nope/x, and the Hub gave no dataset", "can be reached", "check the name"),
    (f"{T} --data.path gone", "no folder gone", "a folder of audio files", "asterisk-en"),
    (f"{T} --data.path empty", "no audio file in empty", "", "check the path"),
    (f"{T} --data.path one", "1 clip(s): 1 to train on and 0 to hold out", "two at least", "add clips"),
    (f"{T} --data.path broken", "2 clips cannot be used", "at most 5%", "mend"),
    (f"{T} --data.path untold", "no metadata.csv or metadata.jsonl in untold", "LJSpeech", "write it"),
    (f"{T} --data.columns txt=a", "--data.columns txt=a", "ROLE=COLUMN", "audio=path"),
    (f"{T} --data.path hollow", "every text in hollow is empty", "the words", "fill it in"),
    (f"{T} --data.path voiceless", "voiceless/0.wav: no samples", "at most 5%", "mend"),
    (f"{T} --data.path cut", "cut/metadata.csv has no rows", "a line for each", "fill it in"),
    (f"{T} --data.path lost", "names 6 files that are not there", "each relative to lost", "remove their lines"),
    (f"{T} --data.path shard.tar", "shard.tar: ", "a whole archive", "download it again"),
    (f"{T} --data.path shards", "shards/0.tar: ", "a whole archive", "download it again"),
    (f"{T} --data.path good.zip", "good.zip: ", "a whole archive", "download it again"),
    (f"{T} --data.path set.rar", "set.rar, an archive", "a folder", "--data.path unpacked"),
    (f"{T} --data.path bad.parquet", "bad.parquet: ", "tables that", "check the files"),
    (f"{T} --data.path ~/gone/clips", "no folder /", "a folder of audio files", "asterisk-en"),
    (f"{T} --data.path good/0.wav", "a file at good/0.wav", "a folder of audio files", "check the path"),
    (f"{T} --data.path good --data.window-s 1000", "windows of 50000 frames", "shorter than the longest", "lower"),
    (f"{T} --data.path good --data.max-duration-s 0.01", "longer than 0.01 s", "at least one", "raise"),
    (f"{T} --data.path good --data.split nope", "split 'nope'", "good has none", "--data.split"),
    (f"{T} --data.path good --demos.speaker nobody", "--demos.speaker nobody", "names no speakers", "first speaker"),
    (f"{T} --data.path good --demos.texts ''", "an empty text among --demos.texts", "words to say", "every-steps 0"),
    (f"{T} --data.path good --codec nope", "codec 'nope'", "amy-tiny", "check the name"),
    (f"{T} --data.path good --model gone", "no model at gone", "config.json", "check the path"),
    ("train higgs-tiny --data.path good --out log.csv", "file exists: 'log.csv'", "written to", "path"),
    ("train higgs-tiny --data.path good --out log.csv/run", "not a directory", "written to", "permissions"),
    ("train higgs-tiny --data.path good --out /proc/run", "'/proc/run'", "written to", "permissions"),
    (
        f"{T} --data.path sheet",
        "no metadata.csv or metadata.jsonl in sheet",
        "a list",
        "save texts.xlsx as CSV in UTF-8",
    ),
    (f"{T} --data.path german", "text 0.wav,größer'", "UTF-8", "iconv"),
    (f"{T} --data.path endless", "field larger than", "a CSV table", "at most 131,072 characters"),
    (
        f"{T} --data.path nameless",
        "no text column (it has filename, fold, heard_as)",
        "named one of",
        "text=YOUR_COLUMN",
    ),
    (f"{T} --data.path zeros", "zeros/0.wav: an empty file, of 0 bytes", "at most 5%", "mend"),
    (f"{T} --data.path nested.zip", "nested.zip holds no audio and no list", "files of audio", "within an archive"),
    (f"{T} --data.path good --data.columns", "--data.columns without a value", "one value or more", "--help"),
    ("data check good --language english", "--language english", "a code: en", "the code"),
    ("data check good --limit 0", "--limit 0", "1 or more", ""),
    ("data check good --max-duration-s 0", "--max-duration-s 0", "more than 0", ""),
    ("data check shards", "shards/0.tar: ", "a whole archive", "download it again"),
    (f"{T} --data.path twice", "twice/metadata.csv names 0.wav a second time", "one line for each", "remove"),
    (f"{T} --data.path open", "open/metadata.csv, after line", "a CSV table", "close the double quote"),
    (f"{T} --data.path swapped", "names 6 files that are not there", "", "--data.columns audio=COLUMN"),
    (f"{T} --data.path numbers", "'1' is no object", "one JSON object a line", "mend"),
    (f"{T} --data.path invisible", "every text in invisible/metadata.csv is empty", "the words", "fill it in"),
    (f"{T} --data.path good --data.columns text:sentence", "text:sentence", "ROLE=COLUMN", "text=sentence"),
    (f"{T} --data.path good/metadata.cvs", "no folder good/metadata.cvs", "a list of them (.csv", "check the path"),
    (f"{T} --data.path https://huggingface.co/datasets/a/b", "the address https", "on the Hub", "pass a/b"),
    (f"{T} --data.colums text=a", "option --data.colums", "--data.columns", "--help"),
    (f"{T} --batch-size 8", "option --batch-size", "--data.positions-per-batch", "--help"),
    (f"{T} --max-steps 10", "option --max-steps", "--steps", "--help"),
    (f"{T} --num-train-epochs 3", "option --num-train-epochs", "--epochs", "--help"),
    (f"{T} --output-dir x", "option --output-dir", "--out", "--help"),
    (f"{T} --report-to wandb", "option --report-to", "--tracker", "--help"),
    (f"{T} --bf16", "option --bf16", "--mixed-precision", "--help"),
    (f"{T} --tracker wandbb", "--tracker wandbb", "wandb, tensorboard", "did you mean wandb?"),
    (f"{T} --tracker", "--tracker without a value", "one value or more", "--help"),
    (f"{T} --tracker --steps 2", "--tracker without a value", "one value or more", "--help"),
    ("diagnose log.csv --fact", "--fact without a value", "one value or more", "--help"),
    ("generate run --text --out x.wav", "--text", "", ""),
    (f"{T} --save-every-steps 0", "--save-every-steps 0", "1 or more", ""),
    ("train ./good", "./good, a directory", "higgs-tiny", "earnest train higgs-tiny --data.path ./good"),
    ("check log.csv", "log.csv, which is no recipe", "or a script: SCRIPT.py", "earnest diagnose log.csv"),
    ("check gone.csv", "gone.csv, which is no recipe, and no file", "or a script: SCRIPT.py", "earnest check"),
    ("check good", "good, a directory and no recipe", "or a script: SCRIPT.py", "earnest diagnose good"),
    ("watch torchrun --nproc-per-node 2 train.py", "torchrun, which starts", "earnest within", "-m earnest watch"),
    ("diagnose gone.py", "gone.py, a program", "a log that a training wrote", "earnest watch gone.py while it trains"),
    ("encode good x.safetensors", "good: a directory", "a readable audio file", "check the file"),
    ("compare log.csv", "1 run", "2 to 12", "earnest compare A B"),
    ("diagnose log.csv --map loss", "--map loss", "COLUMN=SIGNAL", "put = between"),
    ("diagnose good", "good holds no log", "a training log", "pass the log"),
    # memory, and numbers too large
    ("check higgs-tiny --shape.width 1000000000", "memory ran out", "AdamW", "--data.positions-per-batch"),
    ("check higgs-tiny --shape.layers 100000000", "--shape.layers 1e+08", "at most 1,000", ""),
    (f"{T} --seed 99999999999999999999", "--seed 1e+20", "at most 4,294,967,295", ""),
    (f"{T} --keep-checkpoints 0", "--keep-checkpoints 0", "1 or more", ""),
    # configurations
    (f"{T} --config typo.yaml", "optimizer.learnin_rate in the configuration", "learning_rate", "did you mean"),
    (f"{T} --config other.yaml", "shape.encoder_width in the configuration", "one of width", "take it out"),
    (f"{T} --config flag.yaml", "specials_count: maybe", "true or false", "specials_count: true"),
    (f"{T} --config list.yaml", "steps: [1, 2]", "one value", "steps: None"),
    (f"{T} --config tab.yaml", "tab.yaml: ", "a configuration as", "check the path and the file"),
    (f"{T} --config null.yaml", "--seed None", "a whole number", ""),
    (f"{T} --config binary.yaml", "binary.yaml: ", "a configuration as", "check the path and the file"),
    (f"{T} --config empty", "--config empty: is a directory", "a configuration as", "check the path"),
    (f"{T} --optimizer.learning-rate 1,5", "--optimizer.learning-rate 1,5", "a number", ""),
    (f"{T} --steps 1e3", "--steps 1e3", "a whole number", ""),
    # commands
    ("diagnos log.csv", "command 'diagnos'", "train, diagnose", "did you mean earnest diagnose?"),
    ("--verison", "command '--verison'", "train, diagnose", "did you mean earnest --version?"),
    ("help", "command 'help'", "train, diagnose", "did you mean earnest --help?"),
    ("qqq", "command 'qqq'", "train, diagnose", "earnest --help"),
    ("explain", "no TOPIC", "TOPIC", "earnest explain --help"),
    ("explain qqqqqq", "no word or topic 'qqqqqq'", "a rule's code", "try one of A101, words"),
    ("explain A999", "no word or topic 'A999'", "a rule's code", "try one of"),
    ("diagnose log.csv --fail-on never2", "--fail-on never2", "critical, warning", "--help"),
    ("diagnose log.csv --model gpt9", "model 'gpt9'", "csm-1b", "--config PATH"),
    ("diagnose log.csv log2.csv", "'log2.csv'", "no further word", "--help"),
    ("compare log.csv gone.csv", "no such file: gone.csv", "a log file", ". holds"),
    ("check gone.py", "no file gone.py", "a training script", "earnest check train.py"),
    ("data nope out", "source 'nope'", "asterisk-en", "earnest data asterisk-en OUT"),
    ("data asterisk-de out", "language 'de'", "en, es, fr, it, ru", "choose"),
    ("train higgs_tiny", "recipe 'higgs_tiny'", "higgs-tiny", "earnest train higgs-tiny"),
    (f"{T} --lr 1e-4", "option --lr", "--optimizer.learning-rate", "--help"),
    (f"{T} --gradient-accumulation-steps 0", "option --gradient", "--optimizer.accumulation-steps", "--help"),
    (f"{T} good", "'good'", "no further word", "--help"),
    # runs that are none
    ("generate gone --text hi --out x.wav --checkpoint best", "no run.json in gone", "earnest train", ""),
    ("merge gone out", "no run.json in gone", "a run directory", "earnest train"),
    ("export empty out", "no run.json in empty", "a run directory", "earnest train"),
    ("train --resume --out log.csv", "no run in log.csv to resume", "earnest runs", ""),
    ("runs log.csv", "no directory log.csv", "holds runs or logs", ""),
    ("encode log.csv x.safetensors", "log.csv: unreadable", "a readable audio file", "check the file"),
    ("encode good/0.wav gone/x.safetensors", "no such file or directory: '", "written to", "path"),
    ("decode log.csv x.wav", "log.csv: ", "codes_CT", "earnest encode"),
    ("diagnose s3://bucket/log.csv", "the address s3://bucket/log.csv", "this machine", "download"),
    ("diagnose log.csv --config empty", "--config empty: is a directory", "a model's config.json", "check the path"),
    ("train amy-tiny --data.path '' --out run", "no data", "a folder of audio", "--data.path"),
    ("train amy-tiny --data.path log.csv --out run", "log.csv:1 has no column that names audio", "column", "audio="),
]


@pytest.mark.parametrize(("words", "seen", "expected", "fix"), MISTAKES, ids=lambda part: part[:60])
def test_a_mistake_ends_in_three_lines_and_2(words, seen, expected, fix, here, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(here)
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path))
    monkeypatch.setattr("earnest.training.clips.EMBEDDED", {})  # what is not refused fails at once, and trains nothing
    code = main(shlex.split(words))
    told = capsys.readouterr().err.strip()
    assert code == 2, told
    seen_part, _, rest = told.rpartition("seen:")[2].partition("\nexpected:")
    expected_part, _, fix_part = rest.partition("\nfix:")
    assert seen.lower() in seen_part.lower() and expected in expected_part and fix in fix_part, told
    assert seen_part.strip() and expected_part.strip() and fix_part.strip() and "Traceback" not in told
    assert not (here / "run").exists() and not (here / "x.wav").exists()


def test_a_fault_of_our_own_exits_with_3_and_says_where_to_report_it(here, monkeypatch, capsys):
    monkeypatch.setattr("earnest.logs.read", lambda *args, **named: {}["missing"])
    assert main(["diagnose", str(here / "log.csv")]) == 3
    assert "report it as a bug" in capsys.readouterr().err


def test_every_exit_code_is_written_down_once(capsys):
    main(["--help"])
    told = capsys.readouterr().out
    for code in (0, cli.EXIT_FOUND, cli.EXIT_MISTAKE, cli.EXIT_FAULT, 129, 130, 141, 143):
        assert f" {code} " in told[told.index("Exit codes:") :]


def test_every_known_host_has_a_way_to_its_log(capsys):
    for host, way in ADDRESSES.items():
        assert main(["diagnose", f"https://{host}/x/y"]) == 2
        assert way in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["mp3", "flac", "ogg", "wav", "aiff", "opus"])
def test_audio_is_written_in_the_format_that_its_name_asks_for(suffix, tmp_path):
    from earnest.data.audio import read_wave, write_pieces, write_wave

    wave_N = (0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype(np.float32)
    write_wave(tmp_path / f"a.{suffix}", wave_N, 16000)
    list(write_pieces(tmp_path / f"b.{suffix}", [wave_N[:8000], wave_N[8000:]], 16000))
    for name in "ab":
        spectrum_F = np.abs(np.fft.rfft(read_wave(tmp_path / f"{name}.{suffix}", 16000)[4000:12000]))
        assert spectrum_F.argmax() * 2 == 440
