"""Tables with user-defined column names: the meaning of each column, and rows made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulsa import strict_json
from simulsa.corpora.build import CorpusConfig
from simulsa.corpora.layout import CorpusError, seconds
from simulsa.manifest import FIELDS, Utterance


@dataclass(frozen=True)
class ColumnsConfig(CorpusConfig):
    """A table with user-defined column names."""

    audio_column: str = "audio"
    """column with the audio"""
    target_column: str = "target_text"
    """column with the translation; a dot selects a field of a nested column, e.g. translation.de"""
    source_column: str | None = None
    """column with the transcript, if there is one"""
    id_column: str | None = None
    """column with the id; without it, the table's name and the row number"""
    start_column: str | None = None
    """column with the start of the row in its audio, in seconds"""
    duration_column: str | None = None
    """column with the duration of the row, in seconds"""
    extra_columns: tuple[str, ...] = ()
    """further columns to keep in the manifest, e.g. speaker"""

    def __post_init__(self) -> None:
        super().__post_init__()
        taken = [name for name in self.extra_columns if name in FIELDS]
        if taken:
            raise ValueError(
                f"extra_columns has {', '.join(taken)}, which is a field of every row already; rename it in the table"
            )

    def named_columns(self) -> list[str]:
        """The columns that the table must have."""
        named = (
            self.audio_column,
            self.target_column,
            self.source_column,
            self.id_column,
            self.start_column,
            self.duration_column,
            *self.extra_columns,
        )
        return [name for name in named if name]


def row_of(values: Mapping[str, Any], config: ColumnsConfig, audio: str, name: str, where: str) -> Utterance:
    """The `Utterance` that a table's row describes.

    `audio` is its file, `name` the id if no column has one; `where` names the row in the `CorpusError` raised if a value cannot
    be used.
    """

    def text(column: str | None) -> str | None:
        found = None if column is None else value_of(values, column, where)
        return None if found is None else str(found).strip()

    extra = {column: _plain(value_of(values, column, where)) for column in config.extra_columns}
    try:
        strict_json.dumps(extra)
    except strict_json.NumberError as error:
        raise CorpusError(f"{where}: extra column {error} in the table, or leave the column out") from error
    start, duration = text(config.start_column), text(config.duration_column)
    return Utterance(
        id=text(config.id_column) or name,
        audio=audio,
        source_lang=config.source_lang,
        target_lang=config.target_lang,
        target_text=text(config.target_column) or "",
        source_text=text(config.source_column) or None,
        start_s=seconds(start, where) if start else 0.0,
        duration_s=seconds(duration, where) if duration else None,
        extra=extra,
    )


def _plain(value: Any) -> Any:
    """The value in a form that JSON can hold; dates, for example, become text, in nested columns too."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def value_of(values: Mapping[str, Any], column: str, where: str) -> Any:
    """The value of `column`; a dot selects a field of a nested mapping, unless a column has exactly that name.

    Raises `CorpusError`, with a message that starts with `where`, if there is no such value.
    """
    if column in values:
        return values[column]
    found: Any = values
    for part in column.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise CorpusError(f"{where}: no {column!r}; the columns are {', '.join(values)}")
        found = found[part]
    return found
