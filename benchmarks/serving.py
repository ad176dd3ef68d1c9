"""How many speakers the server holds in real time, batched against one at a time, and what it adds to the latency of `Stream`.

python -m benchmarks.serving --seconds 120

Speakers live in a process of their own and talk to the server over loopback: each speaks one bundled clip after the other, a
session per clip, paced by the clock. The lag of a result is the time from when the speaker sent the last sample that it rests on
until it came. A number of speakers is held when 95 % of the lags are at most twice as long as a chunk. Chunks are not merged and
nobody is refused, so that every chunk costs a step.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import multiprocessing
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tyro
from websockets.asyncio.client import connect

from benchmarks.setup import machine, rows_of
from simulsa.audio import SAMPLE_RATE, SAMPLES_PER_MS
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import load
from simulsa.serving.config import ServeConfig
from simulsa.serving.server import listen, make_server
from simulsa.serving.service import Service
from simulsa.streaming.state import StreamConfig
from simulsa.streaming.stream import Stream

FRAME_MS = 100  # of audio in a message; chunks are a multiple of it


@dataclass(frozen=True)
class Options:
    """Which model, how many speakers, for how long."""

    model: str = "tiny-en-de-simul"
    chunk_ms: float = 500
    rollback: int = 3
    seconds: float = 120
    """of each trial of a number of speakers"""
    most: int = 64
    """no more speakers than these are tried"""
    batch: int = 32
    """the largest batch that is compared with one at a time"""
    clips: int = 40
    """bundled clips that are spoken"""
    latency_clips: int = 10
    """of these, for the latency of one speaker"""
    only: str = ""
    """`latency` or `load`; empty is both"""


@dataclass(frozen=True)
class Heard:
    """One result: how late it came, and how long the model computed for it, in milliseconds."""

    lag_ms: float
    compute_ms: float


async def speak(port: int, audio: np.ndarray) -> list[Heard]:
    """One clip in real time; returns what came of each chunk."""
    heard: list[Heard] = []
    sent_at: dict[int, float] = {}  # milliseconds of audio -> when the last of it was sent
    frame = FRAME_MS * SAMPLES_PER_MS
    data = (audio * 32_767).astype("<i2")
    async with connect(f"ws://127.0.0.1:{port}/v1/realtime/translations", compression=None) as socket:
        await socket.recv()
        wishes = {"tentative": True, "sample_rate": SAMPLE_RATE}
        await socket.send(json.dumps({"type": "session.update", "session": {"simulsa": wishes}}))
        await socket.recv()

        async def listen_to() -> None:
            async for message in socket:
                event = json.loads(message)
                if event["type"] == "simulsa.tentative" and event["audio_ms"] in sent_at:
                    lag_ms = 1000 * (time.perf_counter() - sent_at[event["audio_ms"]])
                    heard.append(Heard(lag_ms, event["compute_ms"]))

        listening = asyncio.create_task(listen_to())
        started = time.perf_counter()
        for start in range(0, len(data) - frame + 1, frame):
            end = start + frame
            await asyncio.sleep(max(0.0, started + end / SAMPLE_RATE - time.perf_counter()))
            sent_at[end // SAMPLES_PER_MS] = time.perf_counter()
            audio_text = base64.b64encode(data[start:end].tobytes()).decode()
            await socket.send(json.dumps({"type": "session.input_audio_buffer.append", "audio": audio_text}))
        await socket.send(json.dumps({"type": "session.close"}))
        await listening
    return heard


async def crowd(port: int, clips: list[np.ndarray], speakers: int, seconds: float) -> list[Heard]:
    """Many speakers for a while; the first seconds, while they come in, do not count."""
    until = time.monotonic() + seconds
    warm = time.monotonic() + seconds / 5

    async def speaker(number: int) -> list[Heard]:
        heard: list[Heard] = []
        await asyncio.sleep(number * seconds / 8 / speakers)
        turn = number
        while time.monotonic() < until:
            news = await speak(port, clips[turn % len(clips)])
            heard += news if time.monotonic() > warm else []
            turn += speakers
        return heard

    return [item for heard in await asyncio.gather(*map(speaker, range(speakers))) for item in heard]


def _in_a_process(results: multiprocessing.Queue[list[Heard]], port: int, clips: list[np.ndarray], n: int, s: float) -> None:
    results.put(asyncio.run(crowd(port, clips, n, s)))


@contextlib.contextmanager
def serving(lalm: LALM, options: Options, max_batch: int) -> Iterator[int]:
    """A server in a thread; gives its port."""
    limits = ServeConfig(port=0, max_batch=max_batch, max_sessions=1000, max_lag_chunks=float("inf"), merge_chunks=False)
    service = Service(lalm, limits, StreamConfig(chunk_ms=options.chunk_ms, rollback=options.rollback))
    server, listening = make_server(service), listen(limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def trial(lalm: LALM, clips: list[np.ndarray], options: Options, max_batch: int, speakers: int, seconds: float) -> list[Heard]:
    """What so many speakers heard of the server."""
    results: multiprocessing.Queue[list[Heard]] = multiprocessing.get_context("spawn").Queue()
    with serving(lalm, options, max_batch) as port:
        arguments = (results, port, clips, speakers, seconds)
        process = multiprocessing.get_context("spawn").Process(target=_in_a_process, args=arguments)
        process.start()
        heard = results.get(timeout=10 * seconds + 300)
        process.join()
    return heard


def p95(values: list[float]) -> float:
    """The value that 95 % do not exceed."""
    return float(np.percentile(values, 95))


def most_held(lalm: LALM, clips: list[np.ndarray], options: Options, max_batch: int) -> int:
    """The largest number of speakers that is held in real time, by doubling and halving."""

    def is_held(speakers: int) -> bool:
        lag_ms = p95([item.lag_ms for item in trial(lalm, clips, options, max_batch, speakers, options.seconds)])
        print(f"  batch {max_batch:2d}, {speakers:2d} speakers: lag p95 {lag_ms:.0f} ms", flush=True)
        return lag_ms <= 2 * options.chunk_ms

    held, failed = 0, options.most + 1
    speakers = 4
    while failed - held > 1:
        if is_held(speakers):
            held = speakers
        else:
            failed = speakers
        speakers = min(2 * held, options.most) if failed > options.most and held < options.most else (held + failed) // 2
    return held


def latency(lalm: LALM, clips: list[np.ndarray], options: Options) -> None:
    """Print the latency of one speaker, in the process and through the server, on the same clips."""
    config = StreamConfig(chunk_ms=options.chunk_ms, rollback=options.rollback)
    alone_ms: list[float] = []
    for audio in clips:
        stream = Stream(lalm, config)
        step = round(options.chunk_ms * SAMPLES_PER_MS)
        for start in range(0, len(audio) - step + 1, step):
            began = time.perf_counter()
            stream.push(audio[start : start + step])
            alone_ms.append(1000 * (time.perf_counter() - began))
    seconds = sum(len(audio) for audio in clips) / SAMPLE_RATE
    heard = trial(lalm, clips, options, options.batch, 1, seconds)
    added_ms = [item.lag_ms - item.compute_ms for item in heard]
    served = p95([item.lag_ms for item in heard])
    print(f"one speaker, {len(alone_ms)} and {len(heard)} chunks: p95 {p95(alone_ms):.1f} ms by Stream, {served:.1f} ms served")
    print(f"added by the server to each chunk's own computation: median {np.median(added_ms):.1f} ms, p95 {p95(added_ms):.1f} ms")


def main(options: Options) -> None:
    """Print what the server adds, how many speakers it holds each way, and the ratio."""
    if options.chunk_ms % FRAME_MS:
        raise SystemExit(f"chunk_ms is {options.chunk_ms:g}; it must be a multiple of {FRAME_MS}")
    print(machine())
    lalm = load(options.model)
    clips = [row.load() for row in rows_of(None, options.clips)]
    stream = Stream(lalm, StreamConfig(chunk_ms=options.chunk_ms))
    stream.push(clips[0])  # warm-up
    print(f"k = {options.chunk_ms:g} ms, b = {options.rollback}, trials of {options.seconds:g} s")
    if options.only != "load":
        latency(lalm, clips[: options.latency_clips], options)
    if options.only != "latency":
        held = {batch: most_held(lalm, clips, options, batch) for batch in (1, options.batch)}
        one, many = held.values()
        print(f"held in real time: {one} speakers one at a time, {many} in batches: {many / max(1, one):.2f} times")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
