"""The cost of a forward pass, in units of length; it decides how rows of different lengths are split into passes.

On a CPU, time grows with the number of tokens, and each additional pass costs a little. On a GPU, a small pass takes as long as
its kernel launches, 50 ms for a model of seven billion weights, so rows are split only if each part is large enough to keep the
GPU busy. How large that is depends on the model and the card, so it is measured at run time.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from simulsa.audio import SAMPLE_RATE

REPEATS = 3  # of each pass; the fastest counts
DOUBLINGS = 6  # of the length, from the shortest pass tried to the longest

logger = logging.getLogger("simulsa")


@dataclass(frozen=True)
class PassCost:
    """A pass costs its number of rows times the longest row, but at least `least`, plus `overhead`."""

    overhead: int = 0
    least: int = 0

    def __call__(self, rows: int, longest: int) -> int:
        """The cost of a pass of `rows` rows."""
        return max(rows * longest, self.least) + self.overhead


ENCODER_ON_CPU = PassCost(overhead=8 * SAMPLE_RATE)  # samples; measured
DECODER_ON_CPU = PassCost(overhead=200)  # tokens; measured
ONE_PASS = PassCost(least=1 << 62)


def least_length(seconds: Callable[[int], float], start: int) -> int:
    """The length up to which a pass takes as long as the shortest one, rounded to a power of two to be reproducible.

    `seconds(length)` measures a pass. It is called for `start` and then for repeated doublings of it, until a pass takes three
    times as long as the first.
    """
    length, shortest = start, seconds(start)
    taken = shortest
    while taken < 3 * shortest and length < start << DOUBLINGS:
        length *= 2
        taken = seconds(length)
    return int(2 ** round(math.log2(length * min(shortest / taken, 1))))


def measured(run: Callable[[int], object], what: Literal["encoder", "decoder"], start: int) -> PassCost:
    """The cost of passes on the GPU, measured by `run(length)`; if memory runs out, all rows go into one pass."""
    try:
        cost = PassCost(least=least_length(lambda length: _seconds(run, length), start))
    except torch.cuda.OutOfMemoryError:
        logger.warning("not enough memory to measure passes of the %s: rows of all lengths share a pass, with more padding", what)
        return ONE_PASS
    logger.info("passes of the %s are split by length where each part has %d %s or more", what, cost.least, _UNITS[what])
    return cost


_UNITS = {"encoder": "samples", "decoder": "tokens"}


@torch.no_grad()
def _seconds(run: Callable[[int], object], length: int) -> float:
    times = []
    for _ in range(REPEATS + 1):  # the first one loads kernels
        torch.cuda.synchronize()
        started = time.perf_counter()
        run(length)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])
