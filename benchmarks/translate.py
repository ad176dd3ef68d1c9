"""The real-time factor of streaming one speaker, and what drafts save.

python -m benchmarks.translate --model tiny-en-de
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import tyro

from benchmarks.setup import machine, rows_of
from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.load import load
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.sources import packets
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.stream import Stream
from simulsa.terminal import updates_of


@dataclass(frozen=True)
class Options:
    """Which model and how much speech."""

    model: str = "tiny-en-de"
    utterances: int = 20
    chunk_ms: float = 500
    rollback: int = 3


def seconds(lalm: HuggingFaceLALM, audios: list[np.ndarray], config: StreamConfig) -> float:
    """Wall time of streaming every clip, one after the other."""
    started = time.perf_counter()
    for audio in audios:
        for _ in updates_of(Stream(lalm, config), packets(audio)):
            pass
    return time.perf_counter() - started


def main(options: Options) -> None:
    """Print the real-time factor with and without drafts."""
    print(machine())
    audios = [row.load() for row in rows_of(None, options.utterances)]
    speech_s = sum(len(audio) for audio in audios) / SAMPLE_RATE
    lalm = load(options.model)
    with_drafts = StreamConfig(chunk_ms=options.chunk_ms, rollback=options.rollback)
    without = StreamConfig(chunk_ms=options.chunk_ms, rollback=options.rollback, drafts=False)
    seconds(lalm, audios[:2], with_drafts)  # warm-up
    drafts_s, plain_s = seconds(lalm, audios, with_drafts), seconds(lalm, audios, without)
    print(f"{len(audios)} clips, {speech_s:.1f} s of speech, k = {options.chunk_ms:g} ms, b = {options.rollback}")
    factors = [wall_s / speech_s for wall_s in (drafts_s, plain_s)]
    print(f"real-time factor {factors[0]:.3f} with drafts, {factors[1]:.3f} without (ratio {plain_s / drafts_s:.2f})")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
