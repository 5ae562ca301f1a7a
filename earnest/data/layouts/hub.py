"""Tables with audio inside (local parquet, `save_to_disk`, data sets on the Hub) -> a folder of audio in the cache."""

import hashlib
import json
import logging
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

from earnest.data.audio import AUDIO_SUFFIXES
from earnest.data.layouts.paths import Source
from earnest.data.layouts.roles import NAMES, chosen_columns, plain_name
from earnest.errors import UserError
from earnest.files import whole_directory

TABLE_SUFFIXES = (".parquet", ".arrow")
SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk writes


def is_table(path: str) -> bool:
    """Whether a path names a table of audio: a file, a folder with nothing but tables, or a data set on the Hub."""
    name, _, config = path.rpartition(":") if ":" in path else (path, "", "")
    here = Path(path)
    if here.is_file():
        return here.suffix.lower() in TABLE_SUFFIXES
    if here.is_dir():
        if any((here / saved).is_file() for saved in SAVED):
            return True
        suffixes = {file.suffix.lower() for file in here.rglob("*") if file.is_file()}
        return bool(suffixes & set(TABLE_SUFFIXES)) and not suffixes & AUDIO_SUFFIXES
    if here.exists():
        return False
    owner = (name or path).partition("/")[0]
    # If a folder `owner` is here, it is a mistyped path.
    on_hub = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name or path) is not None and not Path(owner).exists()
    return on_hub or (bool(config) and Path(name).is_dir())


def laid_out(wanted: Source) -> Path:
    """The data set as an audiofolder in the datasets cache, made once per version of it."""
    from datasets.config import HF_DATASETS_CACHE

    splits, version = _splits(wanted)
    digest = hashlib.sha256(repr((version, wanted)).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]+", "--", wanted.path)[-80:]
    folder = Path(HF_DATASETS_CACHE) / "earnest" / f"{name}-{digest}"
    if not folder.exists():
        lay_out(splits, wanted.path, folder, wanted)
    return folder


def _splits(wanted: Source) -> tuple[Mapping[str, Any], str]:
    """(split -> table or stream of rows, what tells this version from others)."""
    import datasets

    path = Path(wanted.path)
    try:
        if path.is_file():
            tables = {"train": _table_of_file(path)}
        elif any((path / saved).is_file() for saved in SAVED):
            loaded: Any = datasets.load_from_disk(str(path))
            tables = loaded if isinstance(loaded, datasets.DatasetDict) else {str(loaded.split or "train"): loaded}
        else:
            tables = _loaded(wanted)
    except UserError:
        raise
    except Exception as error:  # datasets raises OSError, ValueError and classes of its own: one thing to a user
        raise _refused(wanted, error) from error
    tables = cast(Mapping[str, Any], tables)
    if wanted.split and wanted.split not in tables and path.exists():
        raise UserError(f"split {wanted.split!r}", f"one of {', '.join(tables)}, which {path} has", "name one of these")
    kept = {split: table for split, table in tables.items() if not wanted.split or split == wanted.split}
    kept = kept or tables
    if wanted.streaming:
        return kept, _version(wanted.path)
    version = "-".join(kept[split]._fingerprint for split in sorted(kept))
    if wanted.limit is not None:
        kept = {split: table.select(range(min(wanted.limit, len(table)))) for split, table in kept.items()}
    return kept, version


def _table_of_file(path: Path) -> Any:
    import datasets

    with _quiet():
        if path.suffix.lower() == ".arrow":
            return datasets.Dataset.from_file(str(path))
        return datasets.load_dataset("parquet", data_files=str(path), split="train")


def _loaded(wanted: Source) -> Any:
    """A data set of the Hub, or a local copy of its repository, with its configuration."""
    import datasets

    name, _, config = wanted.path.rpartition(":") if ":" in wanted.path else (wanted.path, "", "")
    name = name or wanted.path
    folder = Path(name)
    arrows = sorted(folder.rglob("*.arrow")) if folder.is_dir() else []
    if arrows:  # F5-TTS writes raw.arrow
        return {"train": datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in arrows])}
    options: dict[str, Any] = {"streaming": wanted.streaming, "split": wanted.split or None}
    with _quiet(), _offline_if_unreachable(name):
        loaded: Any = datasets.load_dataset(name, _configuration(name, config), **options)
    return {re.sub(r"\W", "_", wanted.split): loaded} if wanted.split else loaded


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Silence the libraries' warnings on retries and fallbacks: a failure is told in three lines (`_refused`)."""
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub", "fsspec")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _offline_if_unreachable(name: str) -> Generator[None, None, None]:
    """Ask the Hub once for a data set. If it cannot be reached, the block runs offline, on what was downloaded before:
    otherwise the libraries would retry for half a minute. Raises the Hub's error for a data set that it lacks."""
    from datasets import config as datasets_config
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    offline = False
    if not Path(name).exists():
        try:
            HfApi().dataset_info(name, timeout=10)
        except RepositoryNotFoundError:
            raise
        except Exception:  # no network, a proxy's refusal, offline by choice
            offline = True
    before = constants.HF_HUB_OFFLINE, datasets_config.HF_HUB_OFFLINE
    if offline:
        constants.HF_HUB_OFFLINE = datasets_config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets_config.HF_HUB_OFFLINE = before


def _configuration(name: str, config: str) -> str | None:
    """The configuration's full name: `ar` means `ar_eg` if no other name begins with it. Raises UserError for one that
    the data set lacks, or an ambiguous beginning."""
    if not config:
        return None
    from datasets import get_dataset_config_names

    known = get_dataset_config_names(name)
    beginning = [each for each in known if each.startswith(config)]
    if config in known or len(beginning) == 1:
        return config if config in known else beginning[0]
    raise UserError(
        f"configuration {config!r} of {name}", f"one of {', '.join(beginning or known)[:400]}", "name one of these"
    )


def _refused(wanted: Source, error: Exception) -> UserError:
    """The three lines for a table that cannot be read, or a name that is neither a folder nor on the Hub."""
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if Path(wanted.path).exists() or Path(wanted.path.rpartition(":")[0] or "-").exists():
        return UserError(
            f"{wanted.path}: {reason}", "tables that the datasets library reads", "check the files, and --data.split"
        )
    return UserError(
        f"no folder {wanted.path}, and the Hub gave no dataset of that name ({reason})",
        "a folder, or a dataset that can be reached",
        "check the name, its configuration (owner/name:configuration), --data.split and the network, or download the "
        "dataset and pass its folder",
    )


def _version(name: str) -> str:
    """What tells one version of a streamed data set from another, as far as that is known without its rows."""
    folder = Path(name.rpartition(":")[0] or name)
    if folder.is_dir():
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        return repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    try:
        from huggingface_hub import HfApi

        return str(HfApi().dataset_info(name.partition(":")[0], timeout=10).sha)
    except Exception:  # offline: the rows came from a cache
        return name


def lay_out(splits: Mapping[str, Any], name: str, folder: Path, wanted: Source | None = None) -> None:
    """Write the splits of a data set (name -> `datasets.Dataset`, or a stream) as an audiofolder, whole or not at all.

    The audio bytes are copied as they are, not decoded. Raises UserError if the dataset has no audio column.
    """
    wanted = wanted or Source(name)
    with whole_directory(folder) as aside:
        for split, table in splits.items():
            (aside / split).mkdir()
            _write_split(table, name, aside / split, wanted)


def _write_split(table: Any, name: str, folder: Path, wanted: Source) -> None:
    import datasets

    columns = list(table.column_names or (table.features or {}))
    chosen = chosen_columns(wanted.columns)
    for role, column in chosen.items():
        if column not in columns:
            raise UserError(
                f"--data.columns {role}={column}", f"a column of {name}: {', '.join(columns)}", "name one of these"
            )
    audio_column = chosen.get("audio") or _audio_column(table, columns, name)
    if isinstance(table.features[audio_column], datasets.Audio):
        table = table.cast_column(audio_column, datasets.Audio(decode=False))
    known = {plain_name(each) for names in NAMES.values() for each in names}
    kept = [each for each in columns if each != audio_column and (plain_name(each) in known or each in chosen.values())]
    names = {column: NAMES[role][0] for role, column in chosen.items()}  # chosen ones under the first name of the role
    labels = {
        column: table.features[column] for column in kept if isinstance(table.features[column], datasets.ClassLabel)
    }
    beside = Path(wanted.path).parent if Path(wanted.path).is_file() else Path(wanted.path)
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as metadata:
        for index, row in enumerate(islice(table, wanted.limit)):
            audio, suffix = _bytes(row[audio_column], f"{name}, row {index + 1}", beside)
            # a name without a known suffix gets one: libsndfile goes by content
            file_name = f"{index:07d}{suffix if suffix in AUDIO_SUFFIXES else '.wav'}"
            (folder / file_name).write_bytes(audio)
            fields = {names.get(column, column): row[column] for column in _in_order(kept, names)}
            # the names of the table's own files would be taken for these
            fields = {column: value for column, value in fields.items() if plain_name(column) not in NAMES["audio"]}
            line = {"file_name": file_name, **{name: _plain(value, labels.get(name)) for name, value in fields.items()}}
            metadata.write(json.dumps(line, ensure_ascii=False) + "\n")


def _in_order(columns: Sequence[str], names: Mapping[str, str]) -> Iterable[str]:
    """The columns, those that the user chose at the end: they replace another that has the same name already."""
    return sorted(columns, key=lambda column: column in names)


def _audio_column(table: Any, columns: Sequence[str], name: str) -> str:
    import datasets

    features = table.features or {}
    audio = [column for column in columns if isinstance(features.get(column), datasets.Audio)]
    # parquet that another library wrote: {bytes, path}; or names of files
    audio += [column for column in columns if isinstance(features.get(column), dict) and "bytes" in features[column]]
    if not audio:
        by_name = {plain_name(column): column for column in columns}
        audio = [by_name[each] for each in NAMES["audio"] if each in by_name and each not in ("id", "key")]
    if not audio:
        raise UserError(
            f"{name} has columns {', '.join(columns)}",
            "a column of audio",
            "take a speech or music dataset, or say which column it is: --data.columns audio=COLUMN",
        )
    return audio[0]


def _bytes(audio: Any, where: str, beside: Path) -> tuple[bytes, str]:
    """(bytes, suffix) of the audio file in a cell: {bytes, path}, or a path. No bytes if the file is missing."""
    cell: Mapping[str, Any] = audio if isinstance(audio, Mapping) else {"path": audio}
    path = str(cell.get("path") or "")
    suffix = Path(path).suffix.lower()
    if cell.get("bytes"):
        return cell["bytes"], suffix
    file = beside / path
    if not path or not file.is_file():
        return b"", suffix  # which reading counts as a broken clip
    return file.read_bytes(), suffix


def _plain(value: Any, label: Any = None) -> Any:
    """A cell as JSON can hold it; the number of a class becomes its name, by the `ClassLabel` of its column."""
    if label is not None and isinstance(value, int):
        return label.int2str(value) if value >= 0 else None
    return value if isinstance(value, str | int | float | bool | list | None) else str(value)
