"""Any table of Hugging Face `datasets`: saved to disk, as parquet, JSON or CSV files, or on the hub."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulsa.audio import AudioError, decode_audio
from simulsa.corpora.build import Unwritten
from simulsa.corpora.columns import ColumnsConfig, row_of, value_of
from simulsa.corpora.layout import CorpusError, check_columns
from simulsa.extras import optional
from simulsa.manifest import Utterance

_FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".arrow": "arrow"}


@dataclass(frozen=True)
class DatasetsConfig(ColumnsConfig):
    """A table of Hugging Face datasets as a manifest (needs `simulsa[datasets]`); embedded audio is written as FLAC."""

    data: Path = Path()
    """a folder written by save_to_disk, a file or folder of parquet, JSON or CSV, or a hub id such as google/fleurs"""
    name: str | None = None
    """the configuration, if a hub id has several"""
    split: str = "train"
    """the split"""
    audio_root: Path | None = None
    """base folder of relative audio paths, if it is not the table's"""


def read_datasets(config: DatasetsConfig) -> Sequence[Utterance | Unwritten]:
    """The table's rows, each read on access.

    Raises `CorpusError` if there is no such table, split or column, and `RuntimeError` if `datasets` is not installed.
    """
    datasets = optional("datasets", "datasets", "this corpus")
    table = _load(datasets, config)
    check_columns(config.data, table.column_names, config.named_columns())
    if isinstance(table.features.get(config.audio_column), datasets.Audio):
        # soundfile decodes, so no second decoder is needed
        table = table.cast_column(config.audio_column, datasets.Audio(decode=False))
    return _Table(table, config)


def _load(datasets: Any, config: DatasetsConfig) -> Any:
    path = config.data
    try:
        if (path / "dataset_dict.json").is_file():
            splits = datasets.load_from_disk(str(path))
            if config.split not in splits:
                raise CorpusError(f"{path}: no split {config.split!r}; it has {', '.join(splits)}")
            return splits[config.split]
        if (path / "state.json").is_file():
            return datasets.load_from_disk(str(path))
        if path.is_file():
            return _load_file(datasets, path)
        return _load_table(datasets, config.split, path.as_posix(), config.name)
    except CorpusError:
        raise
    except Exception as error:  # the library passes on whatever its readers raise
        what = "" if path.exists() else " (there is no such file or folder here, so it was looked up on the hub)"
        raise CorpusError(f"{path}: cannot be loaded as split {config.split!r} of a table{what}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """The root cause of a chain of errors: the library's last error only says that an error occurred."""
    return _cause(error.__cause__) if error.__cause__ else f"{type(error).__name__}: {error}"


def _load_file(datasets: Any, path: Path) -> Any:
    if path.suffix not in _FORMATS:
        raise CorpusError(f"{path}: a table must be one of {', '.join(_FORMATS)}")
    options = {"sep": "\t"} if path.suffix == ".tsv" else {}
    return _load_table(datasets, "train", _FORMATS[path.suffix], data_files=str(path), **options)  # a file has only this split


def _load_table(datasets: Any, split: str, *arguments: Any, **options: Any) -> Any:
    """`datasets.load_dataset`, but CSV columns are read as text: `null` is German for zero, `NA` a word, and `007` is not 7.

    Quotation marks enclose a value in CSV, and are text where tabs separate the values.
    """
    found = datasets.load_dataset_builder(*arguments, **options).config
    if hasattr(found, "na_filter") and split in found.data_files:  # only CSV configurations have na_filter
        pandas = optional("pandas", "datasets", "this corpus")
        quoting = csv.QUOTE_NONE if found.sep == "\t" else csv.QUOTE_MINIMAL
        columns = pandas.read_csv(found.data_files[split][0], sep=found.sep, quoting=quoting, nrows=0).columns
        text = datasets.Features({name: datasets.Value("string") for name in columns})
        options |= {"features": text, "na_filter": False, "quoting": quoting}
    return datasets.load_dataset(*arguments, split=split, **options)


class _Table(Sequence[Utterance | Unwritten]):
    """The rows of a table, by their numbers; there are no slices."""

    def __init__(self, table: Any, config: DatasetsConfig) -> None:
        self._table = table
        self._config = config
        self._root = config.audio_root or (config.data if config.data.is_dir() else config.data.parent)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Utterance | Unwritten:  # type: ignore[override]
        values = self._table[index]
        where = f"{self._config.data}, row {index}"
        file = _file_of(value_of(values, self._config.audio_column, where), self._root)
        name = f"{self._config.data.stem}-{self._config.split}-{index:06d}"
        row = row_of(values, self._config, file or where, name, where)
        return row if file else Unwritten(row, lambda: self._sound(index, where))

    def _sound(self, index: int, where: str) -> tuple[np.ndarray, int]:
        # read again when it is written: the audio of a whole table would not fit into memory
        return _decoded(value_of(self._table[index], self._config.audio_column, where), where)


def _file_of(audio: Any, root: Path) -> str | None:
    """The file that a table's value names, if the value holds no audio itself or the file exists; otherwise `None`."""
    if isinstance(audio, str):
        return str(root / audio)
    if not isinstance(audio, Mapping) or not audio.get("path"):
        return None
    path = Path(audio["path"])
    if audio.get("bytes") is None and audio.get("array") is None:
        return str(root / path)
    # next to embedded audio, a relative path is only the original file name
    return str(path) if path.is_absolute() and path.is_file() else None


def _decoded(audio: Any, where: str) -> tuple[np.ndarray, int]:
    """Samples (float32 `[samples]` or `[samples, channels]`) and rate of a table's value."""
    values = audio if isinstance(audio, Mapping) else {}
    if values.get("bytes") is not None:
        return decode_audio(values["bytes"], where)
    if values.get("array") is None or not values.get("sampling_rate"):
        raise AudioError(f"{where}: no audio; it must be a path, encoded bytes, or an array with its sampling_rate")
    try:
        samples, rate = np.asarray(values["array"]), int(values["sampling_rate"])
        if samples.dtype.kind != "i":  # integers are left as they are, to be rejected with other invalid audio
            samples = samples.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise AudioError(f"{where}: the array is not readable as samples ({error})") from error
    # Hugging Face puts channels first
    return samples.T if samples.ndim == 2 and len(samples) < samples.shape[1] else samples, rate
