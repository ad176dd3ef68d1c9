"""Utterances per second of an evaluation: 16 in lock-step versus one at a time, and with versus without drafts.

python -m benchmarks.evaluation --model tiny-en-de
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.setup import machine, rows_of
from simulsa.audio import SAMPLE_RATE
from simulsa.evaluation.simulate import Clip, Lockstep, admit, simulate
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import load
from simulsa.lalm.workers import LocalWorker
from simulsa.streaming.config import StreamConfig


@dataclass(frozen=True)
class Options:
    """Which model, on which rows, with which setting."""

    model: str = "tiny-en-de"
    manifest: Path | None = None
    """test rows; by default the demo's bundled test set"""
    utterances: int = 48
    """how many rows"""
    chunk_ms: float = 500
    rollback: int = 3
    batch_size: int = 16
    """what is compared with one at a time"""
    repeats: int = 2
    """of each way, in turns; the fastest counts"""


def seconds(lalm: LALM, clips: list[Clip], options: Options, batch_size: int, drafts: bool) -> float:
    """Wall time of one pass over the clips."""
    started = time.perf_counter()
    simulate(
        LocalWorker(lalm),
        clips,
        Lockstep(StreamConfig(chunk_ms=options.chunk_ms, rollback=options.rollback, drafts=drafts)),
        batch_size,
    )
    return time.perf_counter() - started


def main(options: Options) -> None:
    """Print utterances per second for each way, and the gain from batching and from drafts."""
    print(machine())
    lalm = load(options.model)
    clips = admit(rows_of(options.manifest, options.utterances), lalm.max_samples)
    seconds(lalm, clips[:2], options, 2, True)  # warm-up
    ways = [(options.batch_size, True), (1, True), (options.batch_size, False), (1, False)]
    rounds = [[seconds(lalm, clips, options, *way) for way in ways] for _ in range(options.repeats)]
    rates = {way: len(clips) / min(times) for way, times in zip(ways, zip(*rounds, strict=True), strict=True)}
    speech_s = sum(clip.samples for clip in clips) / SAMPLE_RATE
    print(f"{len(clips)} utterances, {speech_s:.1f} s of speech, k = {options.chunk_ms:g} ms, b = {options.rollback}")
    for (batch_size, drafts), rate in rates.items():
        print(f"batch {batch_size:2d}, drafts {'on ' if drafts else 'off'}: {rate:7.2f} utterances/s")
    print(f"batch {options.batch_size} against 1, drafts on: {rates[ways[0]] / rates[ways[1]]:.2f} times")
    for batch_size, on, off in ((options.batch_size, ways[0], ways[2]), (1, ways[1], ways[3])):
        print(f"drafts on against off, batch {batch_size}: {rates[on] / rates[off]:.2f} times")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
