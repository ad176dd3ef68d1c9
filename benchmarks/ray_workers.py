"""Rows per second of augmentation by two Ray workers compared with one process.

python -m benchmarks.ray_workers

The time to start the workers (Python and the model) is reported separately, because it is paid only once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.setup import machine, rows_of
from simulsa.augmentation.augment import augment
from simulsa.augmentation.config import AugmentConfig
from simulsa.integrations.ray import LOCAL_CLUSTER, RayConfig, workers_of
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import ModelConfig
from simulsa.lalm.workers import Workers
from simulsa.manifest import Utterance


@dataclass(frozen=True)
class Options:
    """Which model, on which rows, with how many workers."""

    model: str = "tiny-en-de"
    manifest: Path | None = None
    """offline rows; by default the demo's bundled test set"""
    rows: int = 96
    workers: int = 2
    repeats: int = 3
    """of each way, in turns; the fastest counts"""


def seconds(rows: list[Utterance], lalm: LALM, num: int, workers: Workers | None) -> float:
    """Wall time of one augmentation."""
    started = time.perf_counter()
    augment(rows, lalm, AugmentConfig(num=num, batch_size=8, preflight=False), workers=workers)
    return time.perf_counter() - started


def main(options: Options) -> None:
    """Print rows per second both ways, their ratio, and how long the workers take to start."""
    print(machine())
    model = ModelConfig(options.model)
    lalm, rows = model.load(), rows_of(options.manifest, options.rows)
    started = time.perf_counter()
    workers = workers_of(RayConfig(LOCAL_CLUSTER, options.workers), model)
    seconds(rows, lalm, options.workers, workers)
    print(f"starting Ray and {options.workers} workers: {time.perf_counter() - started:.1f} s")
    seconds(rows, lalm, 8, None)  # warm-up
    rounds = [(seconds(rows, lalm, len(rows), None), seconds(rows, lalm, len(rows), workers)) for _ in range(options.repeats)]
    alone, shared = (len(rows) / min(times) for times in zip(*rounds, strict=True))
    print(f"one process {alone:.1f} rows/s, {options.workers} Ray workers {shared:.1f} rows/s: {shared / alone:.2f} times")


if __name__ == "__main__":
    main(tyro.cli(Options))
