"""Scores as Markdown tables and as a quality-latency plot."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from simulsa.evaluation.instances import chunk_name
from simulsa.evaluation.scores import Score
from simulsa.files import atomic_write

Evaluations = Mapping[str, Sequence[Score]]
"""Scores by the name that tables and plots give them, usually a model's."""

# Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow, which is too light for lines
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_DETAILS = {  # key -> heading, factor, format
    "bleu": ("BLEU", 1.0, ".1f"),
    "chrf": ("chrF", 1.0, ".1f"),
    "al_ms": ("AL s", 1e-3, ".2f"),
    "laal_ms": ("LAAL s", 1e-3, ".2f"),
    "ap": ("AP", 1.0, ".2f"),
    "dal_ms": ("DAL s", 1e-3, ".2f"),
    "yaal_ms": ("YAAL s", 1e-3, ".2f"),
    "ca_al_ms": ("AL-CA s", 1e-3, ".2f"),
    "ca_laal_ms": ("LAAL-CA s", 1e-3, ".2f"),
    "ca_ap": ("AP-CA", 1.0, ".2f"),
    "ca_dal_ms": ("DAL-CA s", 1e-3, ".2f"),
    "ca_yaal_ms": ("YAAL-CA s", 1e-3, ".2f"),
    "simultaneous_share": ("before the end %", 100.0, ".0f"),
    "empty": ("empty", 1.0, ".0f"),
}


def markdown_table(scores: Sequence[Score]) -> str:
    """BLEU @ LAAL for each rollback (rows) and chunk size (columns)."""
    return comparison_table({"": scores})


def comparison_table(evaluations: Evaluations) -> str:
    """BLEU @ LAAL for each rollback and evaluation (rows) and chunk size (columns)."""
    every = [score for scores in evaluations.values() for score in scores]
    chunks = sorted({float(score["chunk_ms"]) for score in every})
    named = any(evaluations)
    lines = [["b", *(["model"] if named else []), *(_chunk_heading(chunk) for chunk in chunks)]]
    for rollback in sorted({score["rollback"] for score in every}):
        for name, scores in evaluations.items():
            cells = {float(score["chunk_ms"]): _cell(score) for score in scores if score["rollback"] == rollback}
            if cells:
                lines.append([str(rollback), *([name] if named else []), *(cells.get(chunk, "") for chunk in chunks)])
    return markdown(lines) + "\nBLEU @ LAAL (length-adaptive average lagging, seconds)\n"


def markdown_report(scores: Sequence[Score]) -> str:
    """`markdown_table`, then every metric of every setting, then what was measured on what."""
    keys = [key for key in _DETAILS if any(key in score for score in scores)]
    heading = ["k", "b", *(_DETAILS[key][0] for key in keys)]
    details = [
        [_chunk_text(float(score["chunk_ms"])), str(score["rollback"]), *(_detail(score, key) for key in keys)]
        for score in scores
    ]
    first = scores[0]
    facts = {
        "model": first["model"],
        "utterances": f"{first['utterances']} ({first['skipped']} left out)",
        "BLEU": f"`{first['bleu_signature']}`",
        "chrF": f"`{first['chrf_signature']}`",
        "signature": f"`{first['signature'].rsplit('|k:', 1)[0]}`",
    }
    listed = "".join(f"- {name}: {value}\n" for name, value in facts.items())
    return f"{markdown_table(scores)}\n{markdown([heading, *details])}\n{listed}"


def plot_quality_latency(evaluations: Evaluations, path: str | Path) -> None:
    """Draw BLEU over LAAL, a curve per evaluation and rollback, offline dashed; the format is the path's (.png, .svg, .pdf)."""
    with atomic_write(path, "wb") as file:
        _figure(evaluations).savefig(file, format=Path(path).suffix.removeprefix(".") or "png", dpi=150)


def quality_latency_svg(evaluations: Evaluations) -> str:
    """The plot of `plot_quality_latency` as an `<svg>` element, to stand in a page."""
    buffer = io.StringIO()
    _figure(evaluations).savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _figure(evaluations: Evaluations) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    rollbacks = sorted({score["rollback"] for scores in evaluations.values() for score in scores})
    single = len(evaluations) == 1
    for number, (name, scores) in enumerate(evaluations.items()):
        for place, rollback in enumerate(rollbacks):
            curve = [score for score in scores if score["rollback"] == rollback]
            color = COLORS[(place if single else number) % len(COLORS)]
            label = f"b = {rollback}" if single else f"{name}, b = {rollback}"
            _draw_curve(axes, curve, color, MARKERS[place % len(MARKERS)], label)
        _draw_offline(axes, scores, "#555555" if single else COLORS[number % len(COLORS)], "" if single else f"{name}, ")
    axes.set_xlabel("LAAL in seconds (less is faster; points: k in ms)")
    axes.set_ylabel("BLEU (more is better)")
    if single:
        axes.set_title(next(iter(evaluations)), fontsize=11)
    axes.margins(x=0.08)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _draw_curve(axes: Any, curve: Iterable[Score], color: str, marker: str, label: str) -> None:
    points = sorted((float(s["chunk_ms"]), s["laal_ms"], s["bleu"]) for s in curve if s["laal_ms"] is not None)
    points = [point for point in points if math.isfinite(point[0])]
    if not points:
        return
    axes.plot([laal / 1000 for _, laal, _ in points], [bleu for *_, bleu in points], color=color, marker=marker, label=label)
    for chunk_ms, laal, bleu in points:
        axes.annotate(
            chunk_name(chunk_ms), (laal / 1000, bleu), (4, -11), textcoords="offset points", fontsize=8, color=color, alpha=0.9
        )


def _draw_offline(axes: Any, scores: Iterable[Score], color: str, prefix: str) -> None:
    bleu = next((score["bleu"] for score in scores if math.isinf(float(score["chunk_ms"]))), None)
    if bleu is not None:
        axes.axhline(bleu, color=color, linestyle="--", linewidth=1.2, label=f"{prefix}offline")


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of cells, the first line as its heading."""
    # a bar in a name would begin another column
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    rule = "|" + " --- |" * len(lines[0])
    return "\n".join([rows[0], rule, *rows[1:]]) + "\n"


def _chunk_text(chunk_ms: float) -> str:
    return "offline" if math.isinf(chunk_ms) else f"{chunk_name(chunk_ms)} ms"


def _chunk_heading(chunk_ms: float) -> str:
    return "offline" if math.isinf(chunk_ms) else f"k = {chunk_name(chunk_ms)} ms"


def _cell(score: Score) -> str:
    return f"{score['bleu']:.1f} @ {_detail(score, 'laal_ms')}"


def _detail(score: Score, key: str) -> str:
    _, factor, form = _DETAILS[key]
    value = score.get(key)
    return "–" if value is None else format(value * factor, form)
