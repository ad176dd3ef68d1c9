"""Filters for rows that are too short, too long, badly matched, empty or repeated."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table

from simulsa.corpora.build import new_output
from simulsa.corpora.layout import CorpusError, tsv_line
from simulsa.corpora.stats import durations_s, terminal_table
from simulsa.files import atomic_write
from simulsa.manifest import Utterance, read_manifest, write_manifest

Duplicates = Literal["keep", "audio", "text"]


@dataclass(frozen=True)
class FilterConfig:
    """Which rows to remove. Text filters apply to offline rows only: the text of a simultaneous row is partial by design."""

    min_duration_s: float | None = None
    """minimum duration"""
    max_duration_s: float | None = None
    """maximum duration"""
    min_target_chars: int | None = None
    """minimum number of characters in the translation"""
    max_target_chars: int | None = None
    """maximum number of characters in the translation"""
    min_chars_per_s: float | None = None
    """minimum characters of translation per second of speech"""
    max_chars_per_s: float | None = None
    """maximum characters of translation per second of speech"""
    max_length_ratio: float | None = None
    """maximum ratio of the longer to the shorter text, in characters, for rows with a source text"""
    drop_empty: bool = True
    """remove rows whose translation, or source text if given, has no letter or digit"""
    duplicates: Duplicates = "audio"
    """remove rows that repeat an earlier row's audio and translation (audio) or both texts (text), or none (keep)"""
    overwrite: bool = False
    """replace an existing manifest"""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, float) and math.isnan(value):
                raise ValueError(f"{name} is nan; it must be a number, or be left out")
        for name in ("duration_s", "target_chars", "chars_per_s"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name} is {low} and max_{name} {high}; the minimum must not exceed the maximum")
        if self.max_length_ratio is not None and self.max_length_ratio < 1:
            raise ValueError(f"max_length_ratio is {self.max_length_ratio}; it must be 1 or more: longer over shorter text")


@dataclass(frozen=True)
class Dropped:
    """A removed row: its id, the filter that removed it, and the value that failed."""

    id: str
    filter: str
    found: str


def filter_manifest(manifest: Path, out: Path, config: FilterConfig) -> tuple[list[Utterance], list[Dropped]]:
    """Write the rows that pass to `out` and the others, with their reasons, to `<out>.dropped.tsv`; returns both.

    Raises `CorpusError` if no row passes or `out` exists, and `ManifestError` for a broken manifest.
    """
    new_output(out, config.overwrite)
    rows = read_manifest(manifest, empty_targets=True)
    kept, dropped = filter_rows(rows, config)
    if not kept:
        ((name, count),) = collections.Counter(row.filter for row in dropped).most_common(1)
        raise CorpusError(f"{manifest}: none of {len(rows)} rows passes; {count} fail by {name}: loosen the filters")
    with atomic_write(out.with_name(out.name + ".dropped.tsv")) as file:
        file.write(tsv_line("id", "filter", "found"))
        file.writelines(tsv_line(row.id, row.filter, row.found) for row in dropped)
    write_manifest(out, kept)
    return kept, dropped


def filter_rows(rows: Sequence[Utterance], config: FilterConfig) -> tuple[list[Utterance], list[Dropped]]:
    """The rows that pass, and the removed ones, each under the first filter it fails.

    A simultaneous row is removed along with its parent (filter `parent`), whichever comes first.
    """
    dropped: dict[str, Dropped] = {}
    seen: dict[Hashable, str] = {}
    for row, duration in zip(rows, _durations_s(rows, config), strict=True):
        failed = _failed(row, duration, config) or _repeated(row, config.duplicates, seen)
        if failed is not None:
            dropped[row.id] = Dropped(row.id, *failed)
    for row in rows:
        if row.id not in dropped and row.parent_id in dropped:
            dropped[row.id] = Dropped(row.id, "parent", f"parent {row.parent_id} is removed")
    return [row for row in rows if row.id not in dropped], list(dropped.values())


def filter_table(kept: Sequence[Utterance], dropped: Sequence[Dropped]) -> Table:
    """The number of rows that each filter removed, as a table for the terminal."""
    total = len(kept) + len(dropped)
    table = terminal_table(("filter",), ("rows removed", "%"))
    for name, count in collections.Counter(row.filter for row in dropped).most_common():
        table.add_row(name, f"{count:,}", f"{100 * count / total:.1f}")
    table.add_row("all", f"{len(dropped):,}", f"{100 * len(dropped) / total:.1f}")
    return table


def _durations_s(rows: Sequence[Utterance], config: FilterConfig) -> Sequence[float | None]:
    """Durations, if a filter needs them (files may have to be opened); otherwise NaN, which is never used."""
    bounds = (config.min_duration_s, config.max_duration_s, config.min_chars_per_s, config.max_chars_per_s)
    return [math.nan] * len(rows) if bounds == (None,) * 4 else durations_s(rows)


def _failed(row: Utterance, duration_s: float | None, config: FilterConfig) -> tuple[str, str] | None:
    """The first filter that a row fails and the value that failed; `None` if it passes all."""
    if duration_s is None:
        return "audio", f"{row.audio} cannot be read"
    source, target = (row.source_text or "").strip(), row.target_text.strip()
    if config.drop_empty and not row.is_augmented:
        if not _says_something(target):
            return "empty", f"translation {target!r}"
        if row.source_text is not None and not _says_something(source):
            return "empty", f"source {source!r}"
    bounds = [("duration", duration_s, config.min_duration_s, config.max_duration_s)]
    if not row.is_augmented:
        rate = len(target) / duration_s
        bounds.append(("target length", len(target), config.min_target_chars, config.max_target_chars))
        bounds.append(("characters per second", rate, config.min_chars_per_s, config.max_chars_per_s))
        if source and target:
            ratio = max(len(source) / len(target), len(target) / len(source))
            bounds.append(("length ratio", ratio, None, config.max_length_ratio))
    for name, value, low, high in bounds:
        if (low is not None and value < low) or (high is not None and value > high):
            return name, f"{value:.6g}"
    return None


def _repeated(row: Utterance, duplicates: Duplicates, seen: dict[Hashable, str]) -> tuple[str, str] | None:
    if duplicates == "keep":
        return None
    slice_ = (row.audio, row.start_s, row.duration_s)
    # simultaneous rows cut from the same text differ in where they are cut
    what = slice_ if duplicates == "audio" or row.is_augmented else row.source_text or slice_
    first = seen.setdefault((what, row.target_lang, row.target_text, row.is_augmented), row.id)
    return None if first == row.id else ("duplicate", f"as {first}")


def _says_something(text: str) -> bool:
    return any(character.isalnum() for character in text)
