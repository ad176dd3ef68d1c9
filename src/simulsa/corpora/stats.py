"""Statistics of a manifest: rows, hours, languages, and the distributions of durations and target lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from simulsa.audio import AudioError, samples_to_s
from simulsa.corpora.lengths import audio_lengths
from simulsa.files import atomic_write, write_json
from simulsa.manifest import Utterance

KINDS = {"offline": "#0072B2", "simultaneous": "#D55E00"}  # kinds of rows, with their colours
_JOBS = 8  # threads that read headers
_BINS = 40


@dataclass(frozen=True)
class Group:
    """The rows of one direction and kind: float64 `[rows]` seconds and int64 `[rows]` characters of the target."""

    source_lang: str
    target_lang: str
    kind: str
    durations_s: np.ndarray
    target_chars: np.ndarray

    @property
    def hours(self) -> float:
        """The total duration of the group's speech."""
        return float(self.durations_s.sum()) / 3600

    @property
    def chars_per_s(self) -> np.ndarray:
        """Characters of the target per second of speech, float64 `[rows]`."""
        return np.asarray(self.target_chars / self.durations_s)


@dataclass(frozen=True)
class Measured:
    """A manifest's groups, and the number of rows left out of them because their audio cannot be read."""

    groups: tuple[Group, ...]
    unreadable: int


def durations_s(rows: Sequence[Utterance]) -> list[float | None]:
    """Each row's duration, from the manifest if given there, otherwise from its file; `None` if the file cannot be read."""
    lengths = audio_lengths((row.audio for row in rows if row.duration_s is None), _JOBS)

    def duration(row: Utterance) -> float | None:
        if row.duration_s is not None:
            return row.duration_s
        length = lengths[row.audio]
        rest = 0.0 if isinstance(length, AudioError) else samples_to_s(length) - row.start_s
        return rest if rest > 0 else None

    return [duration(row) for row in rows]


def measure(rows: Sequence[Utterance]) -> Measured:
    """Group rows by languages and kind (offline, or simultaneous: made by augmentation)."""
    found: dict[tuple[str, str, str], list[tuple[float, int]]] = {}
    unreadable = 0
    for row, duration in zip(rows, durations_s(rows), strict=True):
        if duration is None:
            unreadable += 1
            continue
        key = (row.source_lang, row.target_lang, "simultaneous" if row.is_augmented else "offline")
        found.setdefault(key, []).append((duration, len(row.target_text)))
    groups = [
        Group(*key, np.array([d for d, _ in values]), np.array([chars for _, chars in values]))
        for key, values in sorted(found.items())
    ]
    return Measured(tuple(groups), unreadable)


def write_stats(measured: Measured, folder: Path) -> None:
    """Write `stats.json` and `stats.png`."""
    values = {
        "rows": sum(len(group.durations_s) for group in measured.groups) + measured.unreadable,
        "unreadable": measured.unreadable,
        "hours": sum(group.hours for group in measured.groups),
        "groups": [_group_values(group) for group in measured.groups],
    }
    write_json(folder / "stats.json", values)
    with atomic_write(folder / "stats.png", "wb") as file:
        _figure(measured.groups).savefig(file, format="png", dpi=150)


def stats_table(measured: Measured) -> Table:
    """The groups as a table for the terminal: rows, hours, and median with 5th and 95th percentiles of each distribution."""
    table = terminal_table(("languages", "kind"), ("rows", "hours", "seconds", "chars", "chars/s"))
    table.caption, table.caption_justify = "median (5th to 95th percentile)", "right"
    for group in measured.groups:
        table.add_row(
            f"{group.source_lang}→{group.target_lang}",
            group.kind,
            f"{len(group.durations_s):,}",
            f"{group.hours:.2f}",
            _spread(group.durations_s, ".1f"),
            _spread(group.target_chars, ".0f"),
            _spread(group.chars_per_s, ".0f"),
        )
    if measured.unreadable:
        table.add_row("", "unreadable", f"{measured.unreadable:,}", "", "", "", "")
    return table


def terminal_table(names: Sequence[str], numbers: Sequence[str]) -> Table:
    """An empty table for the terminal, with the headings of columns of names, on the left, and of numbers."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for heading in names:
        table.add_column(heading)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _spread(values: np.ndarray, form: str) -> str:
    low, middle, high = (format(value, form) for value in np.percentile(values, [5, 50, 95]))
    return f"{middle} ({low}–{high})"


def _group_values(group: Group) -> dict[str, Any]:
    measures = {"duration_s": group.durations_s, "target_chars": group.target_chars, "chars_per_s": group.chars_per_s}
    return {
        "source_lang": group.source_lang,
        "target_lang": group.target_lang,
        "kind": group.kind,
        "rows": len(group.durations_s),
        "hours": group.hours,
        **{name: _distribution(values) for name, values in measures.items()},
    }


def _distribution(values: np.ndarray) -> dict[str, float]:
    places = {"min": 0, "p5": 5, "median": 50, "p95": 95, "max": 100}
    found = {name: float(value) for name, value in zip(places, np.percentile(values, list(places.values())), strict=True)}
    return {**found, "mean": float(values.mean())}


def _figure(groups: Sequence[Group]) -> Any:
    """Two histograms, each kind in percent of its own rows, because only one row in a hundred may be simultaneous."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = {"duration in seconds": "durations_s", "target length in characters": "target_chars"}
    for place, (label, name) in enumerate(panels.items(), start=1):
        axes: Any = figure.add_subplot(1, 2, place)
        values = {kind: [getattr(group, name) for group in groups if group.kind == kind] for kind in KINDS}
        present = {kind: np.concatenate(arrays) for kind, arrays in values.items() if arrays}
        bins = np.histogram_bin_edges(np.concatenate([*present.values(), [0.0]]), _BINS)
        for kind, array in present.items():
            weights = np.full(len(array), 100 / len(array))
            axes.hist(array, bins, weights=weights, label=f"{kind} ({len(array):,} rows)", color=KINDS[kind], alpha=0.5)
        axes.set_xlabel(label)
        axes.set_ylabel("percent of rows")
        axes.spines[["top", "right"]].set_visible(False)
        if present:
            axes.legend(frameon=False, fontsize=9, loc="upper right")  # "best" is slow with many rows
    return figure
