"""Scores as Markdown tables and as a quality-latency plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from simulsa.evaluation.front import OperatingPoint, pareto_front, setting_of
from simulsa.evaluation.instances import chunk_name
from simulsa.evaluation.scores import Score, policy_of_score
from simulsa.files import atomic_write
from simulsa.streaming.policies import Policy

Evaluations = Mapping[str, Sequence[Score]]
"""Scores by the name that tables and plots give them, usually a model's."""

# Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow, which is too light for lines
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("--", ":", "-.")

_DETAILS = {  # key -> heading, factor, format
    "bleu": ("BLEU", 1.0, ".1f"),
    "chrf": ("chrF", 1.0, ".1f"),
    "comet": ("COMET", 1.0, ".3f"),
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
    "truncated": ("truncated", 1.0, ".0f"),
}


def markdown_table(scores: Sequence[Score]) -> str:
    """BLEU @ LAAL for each policy (rows) and chunk size (columns)."""
    return comparison_table({"": scores})


def comparison_table(
    evaluations: Evaluations, bold: Container[OperatingPoint] = (), arrows: Mapping[OperatingPoint, str] | None = None
) -> str:
    """BLEU @ LAAL for each policy and evaluation (rows) and chunk size (columns), some `bold`, some followed by arrows.

    If one COMET model scored every setting, a table of COMET @ LAAL follows.
    """

    def cell(name: str, score: Score) -> str:
        setting = setting_of(name, score)
        arrow = (arrows or {}).get(setting, "")
        return f"**{at_latency(score)}**{arrow}" if setting in bold else f"{at_latency(score)}{arrow}"

    every = [score for scores in evaluations.values() for score in scores]
    table = markdown(grid(evaluations, cell)) + "\nBLEU @ LAAL (length-adaptive average lagging, seconds)\n"
    models = {score.get("comet_model") for score in every}
    if len(models) == 1 and None not in models:
        comet = markdown(grid(evaluations, lambda _, score: at_latency(score, "comet")))
        table += f"\n{comet}\nCOMET @ LAAL ({models.pop()})\n"
    return table


def grid(evaluations: Evaluations, cell: Callable[[str, Score], str]) -> list[list[str]]:
    """The lines of a table, its heading first: what `cell` makes of every score, by policy, evaluation and chunk size."""
    every = [score for scores in evaluations.values() for score in scores]
    chunks = sorted({float(score["chunk_ms"]) for score in every})
    named = any(evaluations)
    heading, names = _policy_column(every)
    lines = [[heading, *(["model"] if named else []), *(_chunk_heading(chunk) for chunk in chunks)]]
    for policy, policy_name in names.items():
        for name, scores in evaluations.items():
            cells = {float(score["chunk_ms"]): cell(name, score) for score in scores if policy_of_score(score) == policy}
            if cells:
                lines.append([policy_name, *([name] if named else []), *(cells.get(chunk, "") for chunk in chunks)])
    return lines


def front_list(front: Mapping[OperatingPoint, Score]) -> str:
    """The settings of a Pareto front as a list, with their latency and BLEU."""
    lines = [
        f"- {_detail(score, 'laal_ms')} s: BLEU {score['bleu']:.1f}, YAAL {_detail(score, 'yaal_ms')} s, "
        f"{name + ', ' if name else ''}{policy.label}, k = {chunk_name(chunk_ms)} ms"
        for (name, policy, chunk_ms), score in front.items()
    ]
    return "\n".join(lines) + "\n" if lines else "- none\n"


def markdown_report(scores: Sequence[Score]) -> str:
    """`markdown_table`, then every metric of every setting, then the model, test set size and signatures."""
    keys = [key for key in _DETAILS if any(key in score for score in scores)]
    policy_heading, names = _policy_column(scores)
    heading = ["k", policy_heading, *(_DETAILS[key][0] for key in keys)]
    details = [
        [_chunk_text(float(score["chunk_ms"])), names[policy_of_score(score)], *(_detail(score, key) for key in keys)]
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


def plot_quality_latency(
    evaluations: Evaluations, path: str | Path, latencies: Sequence[str] = ("laal_ms",), front: bool = False
) -> None:
    """Draw BLEU over latency: a panel for each of `latencies`, a curve per evaluation and policy, offline dashed.

    `front` also draws the Pareto front. The path's extension sets the format (.png, .svg, .pdf).
    """
    with atomic_write(path, "wb") as file:
        figure = _figure(evaluations, latencies, front)
        figure.savefig(file, format=Path(path).suffix.removeprefix(".") or "png", dpi=150)


class _Style(NamedTuple):
    """How a curve looks; without a label the legend leaves it out, and without `annotated` its points do not show their k."""

    color: str
    marker: str
    label: str = ""
    annotated: bool = True


def _styles(evaluations: Evaluations) -> dict[tuple[str, Policy], _Style]:
    """A style for every evaluation and policy: colours tell evaluations apart, or policies if there is only one evaluation.

    If there are more policies than markers, a colour stands for all policies of a name and a marker for an evaluation.
    """
    policies = policies_of(score for scores in evaluations.values() for score in scores)
    names = list(dict.fromkeys(policy.name for policy in policies))
    styles = {}
    for number, (evaluation, scores) in enumerate(evaluations.items()):
        named: set[str] = set()
        for policy in policies_of(scores):
            place = policies.index(policy)
            if len(policies) > len(MARKERS):
                label = f"{evaluation}, {policy.name}" if len(evaluations) > 1 else policy.name
                color = COLORS[names.index(policy.name) % len(COLORS)]
                style = _Style(color, MARKERS[number % len(MARKERS)], "" if policy.name in named else label, annotated=False)
                named.add(policy.name)
            elif len(evaluations) == 1:
                style = _Style(COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)], policy.label)
            else:
                label = f"{evaluation}, {policy.label}"
                style = _Style(COLORS[number % len(COLORS)], MARKERS[place % len(MARKERS)], label)
            styles[evaluation, policy] = style
    return styles


def _figure(evaluations: Evaluations, latencies: Sequence[str], front: bool) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(2.7 + 4.8 * len(latencies), 4.8), layout="constrained")
    panels = figure.subplots(1, len(latencies), sharey=True, squeeze=False)[0]
    styles = _styles(evaluations)
    points = "; points: k in ms" if any(style.annotated for style in styles.values()) else ""
    for axes, latency in zip(panels, latencies, strict=True):
        _draw_panel(axes, evaluations, styles, latency)
        if front:
            _draw_front(axes, evaluations, latency)
        axes.set_xlabel(f"{latency.removesuffix('_ms').upper()} in seconds (less is faster{points})")
    panels[0].set_ylabel("BLEU (more is better)")
    if len(evaluations) == 1:
        panels[0].set_title(next(iter(evaluations)), fontsize=11)
    if panels[-1].get_legend_handles_labels()[0]:
        panels[-1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _draw_panel(axes: Any, evaluations: Evaluations, styles: Mapping[tuple[str, Policy], _Style], latency: str) -> None:
    for (name, policy), style in styles.items():
        _draw_curve(axes, [score for score in evaluations[name] if policy_of_score(score) == policy], latency, style)
    single = len(evaluations) == 1
    plain = single or not all(style.annotated for style in styles.values())  # if colours stand for policies
    for number, (name, scores) in enumerate(evaluations.items()):
        color = "#555555" if plain else COLORS[number % len(COLORS)]
        _draw_offline(axes, scores, color, DASHES[number % len(DASHES)] if plain else "--", "" if single else f"{name}, ")
    axes.margins(x=0.08)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_front(axes: Any, evaluations: Evaluations, latency: str) -> None:
    points = [(score[latency] / 1000, score["bleu"]) for score in pareto_front(evaluations, latency).values()]
    if points:
        # drawn as a step, because there is no setting between two others
        seconds, bleus = zip(*points, strict=True)
        axes.step(seconds, bleus, where="post", color="#BBBBBB", linewidth=5, zorder=0, label="best at its latency")


def _draw_curve(axes: Any, curve: Iterable[Score], latency: str, style: _Style) -> None:
    points = sorted((float(s["chunk_ms"]), s[latency] / 1000, s["bleu"]) for s in curve if s.get(latency) is not None)
    points = [point for point in points if math.isfinite(point[0])]
    if not points:
        return
    _, seconds, bleus = zip(*points, strict=True)
    axes.plot(seconds, bleus, color=style.color, marker=style.marker, label=style.label or None)
    for chunk_ms, *place in points if style.annotated else ():
        axes.annotate(chunk_name(chunk_ms), place, (4, -11), textcoords="offset points", fontsize=8, color=style.color, alpha=0.9)


def _draw_offline(axes: Any, scores: Iterable[Score], color: str, dashes: str, prefix: str) -> None:
    bleu = next((score["bleu"] for score in scores if math.isinf(float(score["chunk_ms"]))), None)
    if bleu is not None:
        axes.axhline(bleu, color=color, linestyle=dashes, linewidth=1.2, label=f"{prefix}offline")


def policies_of(scores: Iterable[Score]) -> list[Policy]:
    """The policies of some scores, each once: rollbacks first, then the others by name, each by its arguments."""
    return sorted({policy_of_score(score) for score in scores}, key=lambda policy: policy.order)


def _policy_column(scores: Iterable[Score]) -> tuple[str, dict[Policy, str]]:
    """Heading and cells of a table's first column: the b of rollbacks, or, if there are other policies, the names of all."""
    policies = policies_of(scores)
    if all(policy.rollback is not None for policy in policies):
        return "b", {policy: f"{policy.rollback}" for policy in policies}
    return "policy", {policy: str(policy) for policy in policies}


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of cells, with the first line as its heading."""
    # a bar in a name would start another column
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    rule = "|" + " --- |" * len(lines[0])
    return "\n".join([rows[0], rule, *rows[1:]]) + "\n"


def _chunk_text(chunk_ms: float) -> str:
    return "offline" if math.isinf(chunk_ms) else f"{chunk_name(chunk_ms)} ms"


def _chunk_heading(chunk_ms: float) -> str:
    return "offline" if math.isinf(chunk_ms) else f"k = {chunk_name(chunk_ms)} ms"


def at_latency(score: Score, quality: str = "bleu") -> str:
    """`BLEU @ LAAL`, the latter in seconds."""
    return f"{_detail(score, quality)} @ {_detail(score, 'laal_ms')}"


def _detail(score: Score, key: str) -> str:
    _, factor, form = _DETAILS[key]
    value = score.get(key)
    return "–" if value is None else format(value * factor, form)
