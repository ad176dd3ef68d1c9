"""A table of tab-separated values with columns of any name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simulsa.corpora.columns import ColumnsConfig, row_of, value_of
from simulsa.corpora.layout import CorpusError, need, read_tsv
from simulsa.manifest import Utterance


@dataclass(frozen=True)
class TsvConfig(ColumnsConfig):
    """A tab-separated table as a manifest; its first line names the columns."""

    data: Path = Path()
    """the table (.tsv); quotation marks are literal"""
    audio_root: Path | None = None
    """base folder of relative audio paths, if it is not the table's"""


def read_tsv_table(config: TsvConfig) -> list[Utterance]:
    """The table's rows. Raises `CorpusError` for a missing column or an unusable line."""
    path = need(config.data, "--data must be the table")
    if path.is_dir():
        raise CorpusError(f"{path} is a folder; --data must be the table, a .tsv file")
    root = config.audio_root or path.parent
    rows = []
    for number, values in read_tsv(path, config.named_columns()):
        where = f"{path}:{number}"
        audio = root / value_of(values, config.audio_column, where)
        rows.append(row_of(values, config, str(audio), f"{path.stem}-{number:06d}", where))
    return rows
