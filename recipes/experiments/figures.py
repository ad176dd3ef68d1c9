"""Records as figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from recipes.experiments.markdown import policy_name
from recipes.experiments.records import Record, cell, of_setting
from simulsa.evaluation.report import COLORS, MARKERS
from simulsa.files import atomic_write

COLUMNS = 4  # panels side by side
B0 = "rollback:0"
SLOWEST_S = 2.0  # where the figure of the front ends: beyond it little is gained


def plot_table(records: Sequence[Record], path: Path) -> None:
    """BLEU over LAAL, one panel per policy and one curve per system; bars show the spread over seeds, dashes are offline."""
    policies = list(dict.fromkeys(record.policy for record in records))
    columns = min(len(policies), COLUMNS)
    rows = -(-len(policies) // columns)
    figure = Figure(figsize=(3.5 * columns, 3.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    systems = list(dict.fromkeys(record.system for record in records))
    for axes, policy in zip(panels, policies, strict=False):
        for number, system in enumerate(systems):
            own = [record for record in records if (record.system, record.policy) == (system, policy)]
            _draw_curve(axes, own, COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)], system)
        axes.set_title(policy_name(policy), fontsize=11)
        axes.set_xlabel("LAAL in seconds")
        _tidy(axes)
    for axes in panels[::columns]:
        axes.set_ylabel("BLEU")
    for axes in panels[len(policies) :]:
        axes.set_visible(False)
    panels[len(policies) - 1].legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, path)


def plot_front(records: Sequence[Record], path: Path) -> None:
    """What each system reaches within a latency: a solid line through the settings that no faster setting of any policy
    matches, a dotted curve for b = 0, where the model alone decides what is final, and a mark on the right for offline."""
    figure = Figure(figsize=(7.4, 4.8), layout="constrained")
    axes = figure.subplots()
    last_s = 0.0
    for number, system in enumerate(dict.fromkeys(record.system for record in records)):
        color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        own = _points([record for record in records if record.system == system])
        alone = _points([record for record in records if (record.system, record.policy) == (system, B0)])
        axes.plot(*zip(*alone, strict=True), color=color, linestyle=":", marker=marker, markerfacecolor="none", markersize=5)
        front = [point for place, point in enumerate(own) if all(point[1] > bleu for _, bleu in own[:place])]
        axes.plot(*zip(*front, strict=True), color=color, marker=marker, markersize=5, label=f"{system}, best policy")
        last_s = max(last_s, front[-1][0], alone[-1][0])
        offline = [record.bleu for record in records if record.system == system and math.isinf(record.chunk_ms)]
        if offline:
            axes.axhline(mean(offline), xmin=0.97, color=color, linewidth=3)
    axes.set(xlabel="LAAL in seconds", ylabel="BLEU", xlim=(None, min(last_s, SLOWEST_S) + 0.15))
    handles, labels = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], color="#555555", linestyle=":", marker="o", markerfacecolor="none"))
    axes.legend(handles, [*labels, "the same, b = 0: the model alone decides"], frameon=False, fontsize=9, loc="lower right")
    axes.annotate("offline", (1, 1.0), xycoords="axes fraction", ha="right", va="top", fontsize=8)
    _tidy(axes)
    _save(figure, path)


def _points(records: Sequence[Record]) -> list[tuple[float, float]]:
    """LAAL in seconds and BLEU of every setting except offline, as means over the seeds, from fastest to slowest."""
    settings = dict.fromkeys((record.system, record.chunk_ms, record.policy) for record in records)
    cells = [cell(of_setting(records, *setting)) for setting in settings if math.isfinite(setting[1])]
    return sorted((own.laal_ms / 1000, own.bleu) for own in cells if own.laal_ms is not None)


def plot_lines(lines: dict[str, list[tuple[float, float]]], path: Path, title: str, x: str, marked: float) -> None:
    """Curves of `(x, y)` points on a logarithmic x axis; `marked` is the position of a dotted vertical line."""
    figure = Figure(figsize=(6.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        axes.plot(*zip(*sorted(points), strict=True), color=color, marker=marker, label=name)
    axes.set_xscale("log")
    axes.axvline(marked, color="#555555", linestyle=":")
    axes.set(title=title, xlabel=x, ylabel="BLEU")
    axes.legend(frameon=False, fontsize=9)
    _tidy(axes)
    _save(figure, path)


def plot_bars(bars: dict[str, list[float]], groups: Sequence[str], path: Path, title: str) -> None:
    """Groups of bars; `bars` has one value per group under each name."""
    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(bars)
    for number, (name, values) in enumerate(bars.items()):
        places = [group + (number - (len(bars) - 1) / 2) * width for group in range(len(groups))]
        axes.bar(places, values, width, color=COLORS[number % len(COLORS)], label=name)
    axes.set_xticks(range(len(groups)), groups)
    axes.set(title=title, ylabel="BLEU")
    axes.legend(frameon=False, fontsize=9, ncols=len(bars), loc="upper center", bbox_to_anchor=(0.5, -0.1))
    _tidy(axes)
    _save(figure, path)


def plot_points(curves: dict[str, list[tuple[str, float, float]]], path: Path, title: str) -> None:
    """Curves of `(label, LAAL in seconds, BLEU)`."""
    figure = Figure(figsize=(6.8, 4.6), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(curves.items()):
        color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        labels, laal, bleu = zip(*points, strict=True)
        axes.plot(laal, bleu, color=color, marker=marker, label=name)
        for label, x, y in zip(labels, laal, bleu, strict=True):
            axes.annotate(label, (x, y), (4, -10), textcoords="offset points", fontsize=8, color=color)
    axes.set(title=title, xlabel="LAAL in seconds", ylabel="BLEU")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    _tidy(axes)
    _save(figure, path)


def _draw_curve(axes: Any, records: Sequence[Record], color: str, marker: str, label: str) -> None:
    cells = {k: cell([r for r in records if r.chunk_ms == k]) for k in sorted({r.chunk_ms for r in records})}
    points = [(own.laal_ms / 1000, own.bleu, own.spread) for k, own in cells.items() if math.isfinite(k) and own.laal_ms]
    if points:
        laal, bleu, spread = zip(*points, strict=True)
        axes.errorbar(laal, bleu, yerr=spread, color=color, marker=marker, markersize=5, capsize=2, label=label)
    if math.inf in cells:
        axes.axhline(cells[math.inf].bleu, color=color, linestyle="--", linewidth=1, alpha=0.7)


def _tidy(axes: Any) -> None:
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)
