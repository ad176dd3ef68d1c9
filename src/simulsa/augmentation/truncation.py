"""Where to truncate an utterance (SimulSA, arXiv 2509.15692): Beta(1, 3) decay and the variants it is compared with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Truncation = Literal["beta-decay", "uniform", "beta-decay-full", "beta-decay-discrete"]
TRUNCATIONS: tuple[Truncation, ...] = get_args(Truncation)


@dataclass(frozen=True)
class CutRange:
    """Where cuts may fall, in samples at `SAMPLE_RATE`: from `min_samples` (l) to `max_samples` (r), `grid_samples` apart."""

    min_samples: int
    max_samples: int
    grid_samples: int

    def can_cut(self, length_samples: int) -> bool:
        """Whether an utterance of this length can be cut at all: it must be longer than l."""
        return length_samples > self.min_samples


def draw_cut(truncation: Truncation, length_samples: int, allowed: CutRange, rng: np.random.Generator) -> int:
    """Draw where to cut an utterance of `length_samples`: how many samples stay.

    The cut lies in [l, min(r, length)], for `beta-decay-full` in [l, length]; for `beta-decay-discrete` it is the nearest of
    l, l + grid, l + 2 grid, ... that is not past the end. Raises `ValueError` for an utterance not
    longer than l.
    """
    if not allowed.can_cut(length_samples):
        raise ValueError(f"an utterance of {length_samples} samples cannot be cut at {allowed.min_samples} or later; skip it")
    last = length_samples if truncation == "beta-decay-full" else min(allowed.max_samples, length_samples)
    room = last - allowed.min_samples
    share = float(rng.random())
    if truncation != "uniform":
        # Beta(1, 3) has the distribution function 1 - (1 - x)³; its inverse gives the same draw in every version of NumPy
        share = 1.0 - (1.0 - share) ** (1.0 / 3.0)
    if truncation == "beta-decay-discrete":
        steps = min(round(share * room / allowed.grid_samples), room // allowed.grid_samples)
        return allowed.min_samples + steps * allowed.grid_samples
    return allowed.min_samples + round(share * room)


def row_generator(seed: int, row_id: str) -> np.random.Generator:
    """Random number generator of one row: depends on the seed and the row's id, not on other rows or their order."""
    digest = hashlib.sha256(row_id.encode("utf-8")).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:16], "big")])
