"""How many speakers the server sustains in real time, batched or one at a time, and what it adds to the latency of `Stream`.

python -m benchmarks.serving --seconds 120

The speakers (see `speakers`) run in a process of their own and connect to the server over loopback. A number of speakers is
sustained if 95 % of the results arrive at most two chunks after the audio they are based on was sent. Chunks are not merged and
no session is refused, so that every chunk costs a step.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import tyro

from benchmarks.setup import machine, rows_of
from simulsa.audio import SAMPLE_RATE, SAMPLES_PER_MS
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import Dtype, load
from simulsa.serving.config import ServeConfig
from simulsa.serving.server import bind, make_server
from simulsa.serving.service import Service
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.stream import Stream


@dataclass(frozen=True)
class Options:
    """Which model, how many speakers, for how long."""

    model: str = "tiny-en-de-simul"
    dtype: Dtype = "auto"
    chunk_ms: float = 500
    rollback: int = 3
    seconds: float = 120
    """of each trial of a number of speakers"""
    most: int = 64
    """no more speakers than these are tried"""
    batch: int = 32
    """the largest batch that is compared with one at a time"""
    longform: bool = False
    """long-form sessions, the default of the server; otherwise each clip is one utterance"""
    latency_clips: int = 40
    """bundled clips for the latency of one speaker"""
    only: str = ""
    """`latency` or `load`; empty is both"""


@contextlib.contextmanager
def serving(lalm: LALM, options: Options, max_batch: int) -> Iterator[int]:
    """Run a server in a thread; yields its port."""
    limits = ServeConfig(
        port=0,
        max_batch=max_batch,
        max_sessions=1000,
        max_lag_chunks=float("inf"),
        merge_chunks=False,
        longform=options.longform,
    )
    service = Service(lalm, limits, StreamConfig(chunk_ms=options.chunk_ms, rollback=options.rollback))
    server, listening = make_server(service), bind(limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def trial(lalm: LALM, options: Options, max_batch: int, speakers: int, seconds: float) -> np.ndarray:
    """What this many speakers measured: lag and computing time in milliseconds, `[results, 2]`."""
    with serving(lalm, options, max_batch) as port:
        how = {"--url": f"ws://127.0.0.1:{port}", "--speakers": speakers, "--seconds": seconds}
        arguments = [str(word) for item in how.items() for word in item]
        command = [sys.executable, "-m", "benchmarks.speakers", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10 * seconds + 300)
    return np.array(json.loads(done.stdout.splitlines()[-1]))


def p95(values: np.ndarray) -> float:
    """The value that 95 % of the values do not exceed."""
    return float(np.percentile(values, 95))


def most_held(lalm: LALM, options: Options, max_batch: int) -> int:
    """The largest number of speakers sustained in real time, to within a tenth, found by doubling and bisection."""

    def is_held(speakers: int) -> bool:
        lag_ms = p95(trial(lalm, options, max_batch, speakers, options.seconds)[:, 0])
        print(f"  batch {max_batch:2d}, {speakers:2d} speakers: lag p95 {lag_ms:.0f} ms", flush=True)
        return lag_ms <= 2 * options.chunk_ms

    held, failed = 0, options.most + 1
    speakers = 8
    while failed - held > max(1, held // 10):
        if is_held(speakers):
            held = speakers
        else:
            failed = speakers
        speakers = min(2 * held, options.most) if failed > options.most and held < options.most else (held + failed) // 2
    return held


def alone_ms(lalm: LALM, clips: list[np.ndarray], options: Options) -> list[float]:
    """Milliseconds that `Stream` takes for each chunk of the clips, in real time: an idle core is slower than a busy one."""
    spent: list[float] = []
    step = round(options.chunk_ms * SAMPLES_PER_MS)
    for audio in [clips[0], *clips]:  # the first one warms up
        stream = Stream(lalm, StreamConfig(chunk_ms=options.chunk_ms, rollback=options.rollback))
        started = time.perf_counter()
        for start in range(0, len(audio) - step + 1, step):
            time.sleep(max(0.0, started + (start + step) / SAMPLE_RATE - time.perf_counter()))
            began = time.perf_counter()
            stream.push(audio[start : start + step])
            spent.append(1000 * (time.perf_counter() - began))
    return spent[len(clips[0]) // step :]


def latency(lalm: LALM, clips: list[np.ndarray], options: Options) -> None:
    """Print the latency of one speaker, in this process and through the server, on the same clips."""
    # in a thread that ends: if two threads compute, OpenMP's helpers sleep between operations, the server's too
    with ThreadPoolExecutor(1) as thread:
        alone = thread.submit(alone_ms, lalm, clips, options).result()
    seconds = sum(len(audio) for audio in clips) / SAMPLE_RATE
    served_ms, compute_ms = trial(lalm, options, options.batch, 1, seconds).T
    added_ms = served_ms - compute_ms
    print(f"one speaker, {len(alone)} and {len(served_ms)} chunks:", end=" ")
    print(f"p95 {p95(np.array(alone)):.1f} ms by Stream, {p95(served_ms):.1f} ms by the server")
    print(f"added by the server to each chunk's own computation: median {np.median(added_ms):.1f} ms, p95 {p95(added_ms):.1f} ms")


def main(options: Options) -> None:
    """Print the latency that the server adds, how many speakers it sustains each way, and the ratio."""
    print(machine())
    lalm = load(options.model, dtype=options.dtype)
    clips = [row.load() for row in rows_of(None, options.latency_clips)]
    print(f"k = {options.chunk_ms:g} ms, b = {options.rollback}, trials of {options.seconds:g} s")
    if options.only != "load":
        latency(lalm, clips, options)
    if options.only != "latency":
        held = {batch: most_held(lalm, options, batch) for batch in (1, options.batch)}
        one, many = held.values()
        print(f"held in real time: {one} speakers one at a time, {many} in batches: {many / max(1, one):.2f} times")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
