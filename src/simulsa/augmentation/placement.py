"""Where a drawn cut falls exactly: where it was drawn, at the nearest pause, or at the nearest end of a word."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from simulsa.audio import SAMPLE_RATE
from simulsa.manifest import WORD_ENDS, ManifestError, Utterance

CutAt = Literal["anywhere", "pause", "word-end"]
PLACES: tuple[CutAt, ...] = get_args(CutAt)
FRAME_SAMPLES = SAMPLE_RATE // 50  # 20 ms
REACH_SAMPLES = 3 * SAMPLE_RATE // 10  # how far a pause may lie from the drawn cut: 300 ms


def place_cut(cut_at: CutAt, row: Utterance, cut: int, first: int, last: int) -> int:
    """Move a drawn `cut` (samples that stay) to the place that `cut_at` asks for, within `first` to `last`.

    `pause` takes the quietest 20 ms within 300 ms of the cut; it is only a pause if there is one. `word-end` takes the nearest
    of the ends that the row lists in seconds under `word_ends_s`; where none lies in the range, the cut stays.
    Raises `AudioError` for audio that cannot be read, `ManifestError` for a row without `word_ends_s`.
    """
    if cut_at == "pause":
        return quietest(row.load(), max(first, cut - REACH_SAMPLES), min(last, cut + REACH_SAMPLES))
    if cut_at == "word-end":
        return nearest(_word_ends(row), cut, first, last)
    return cut


def quietest(samples: np.ndarray, first: int, last: int) -> int:
    """The middle of the 20 ms with the least energy among float32 `samples[first:last]`; the middle of a shorter range."""
    count = (last - first) // FRAME_SAMPLES
    if count < 2:
        return (first + last) // 2
    frames = samples[first : first + count * FRAME_SAMPLES].reshape(count, FRAME_SAMPLES)
    energy = np.square(frames, dtype=np.float64).sum(1)
    return first + int(np.argmin(energy)) * FRAME_SAMPLES + FRAME_SAMPLES // 2


def nearest(ends: Sequence[int], cut: int, first: int, last: int) -> int:
    """The one of the ascending `ends` within `first` to `last` that is nearest to `cut`, or `cut` if there is none."""
    allowed = ends[bisect_left(ends, first) : bisect_left(ends, last + 1)]
    return min(allowed, key=lambda end: abs(end - cut), default=cut)


def _word_ends(row: Utterance) -> list[int]:
    ends_s = row.extra.get(WORD_ENDS)
    if not isinstance(ends_s, list) or not all(isinstance(end, (int, float)) for end in ends_s):
        raise ManifestError(
            f"row {row.id!r}: {WORD_ENDS} is {ends_s!r}; to cut at word ends it must list where the words end, in seconds from "
            "the row's start (a forced aligner gives them), or use --cut-at pause"
        )
    return sorted(round(end * SAMPLE_RATE) for end in ends_s)
