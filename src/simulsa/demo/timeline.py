"""When each source word was spoken and when each word of the translation was committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulsa.evaluation.instances import Instance
from simulsa.files import atomic_write
from simulsa.manifest import Utterance


@dataclass(frozen=True)
class TimedWord:
    """A word and the second of audio at which it ended (spoken) or was committed (translated)."""

    text: str
    time_s: float


@dataclass(frozen=True)
class Lane:
    """One row of the timeline."""

    name: str
    words: tuple[TimedWord, ...]


def spoken_lane(row: Utterance) -> Lane:
    """The words of a bundled row, whose times are approximate."""
    return Lane("spoken", tuple(TimedWord(str(text), float(end_s)) for text, _, end_s in row.extra["words"]))


def committed_lane(name: str, instance: Instance) -> Lane:
    """The words of a translation with the audio time at which each was committed."""
    words = zip(instance.prediction.split(), instance.delays_ms, strict=True)
    return Lane(name, tuple(TimedWord(text, delay_ms / 1000) for text, delay_ms in words))


def plot_timeline(lanes: Sequence[Lane], duration_s: float, path: Path) -> None:
    """Draw the lanes one below the other over audio time (PNG); words committed at the same moment are stacked."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    heights = [1 + max([2, *_levels(lane)]) for lane in lanes]
    figure = Figure(figsize=(11, 0.6 + 0.28 * sum(heights)), layout="tight")
    axes = figure.subplots(len(lanes), 1, sharex=True, gridspec_kw={"height_ratios": heights})
    colors = ("#444444", "#b3541e", "#00639c", "#2f7d32")
    for lane, height, color, axis in zip(lanes, heights, colors, axes, strict=False):
        _draw(axis, lane, height, color)
        axis.axvline(duration_s, color="#999999", linestyle="--", linewidth=1)
    axes[-1].set_xlim(0, duration_s * 1.13)
    axes[-1].set_xlabel("audio time in seconds (dashed: the speech ends)")
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)


def _draw(axis: Any, lane: Lane, height: int, color: str) -> None:
    for word, level in zip(lane.words, _levels(lane), strict=True):
        axis.plot([word.time_s, word.time_s], [height, height - level - 0.2], color=color, alpha=0.25, linewidth=1)
        axis.text(word.time_s + 0.02, height - level - 0.1, word.text, color=color, fontsize=9, va="top")
    axis.set_ylim(-0.2, height + 0.1)
    axis.set_yticks([])
    axis.set_ylabel(lane.name, rotation=0, ha="right", va="center", color=color)
    axis.grid(axis="x", alpha=0.2)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _levels(lane: Lane) -> list[int]:
    """How far below the top each word is drawn: below those of the same moment. Spoken words, which follow each other closely,
    alternate between three levels."""
    if lane.name == "spoken":
        return [number % 3 for number in range(len(lane.words))]
    times = [word.time_s for word in lane.words]
    return [times[:number].count(time_s) for number, time_s in enumerate(times)]
