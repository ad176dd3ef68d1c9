"""Utterances per second of an evaluation on an engine compared with this process, and what a request costs on our side.

python -m benchmarks.engine --model tiny-en-de --engine-url http://localhost:8000 --dtype float32

Our side of a request (encode and send the audio, read and check the answer) is measured with a server that answers at once.
"""

from __future__ import annotations

import copy
import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np
import tyro

from benchmarks.setup import machine, rows_of
from simulsa import strict_json
from simulsa.audio import SAMPLE_RATE
from simulsa.evaluation.simulate import Clip, Lockstep, admit, simulate
from simulsa.lalm.engine import EngineLALM
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import Dtype, load
from simulsa.lalm.vllm_client import VLLMClient
from simulsa.lalm.workers import LocalWorker
from simulsa.languages import Direction
from simulsa.streaming.config import StreamConfig

ENGLISH_TO_GERMAN = Direction("en", "de")
REQUESTS = 100


@dataclass(frozen=True)
class Options:
    """Which model and server, on which rows."""

    engine_url: str
    model: str = "tiny-en-de"
    engine_model: str = ""
    dtype: Dtype = "auto"
    manifest: Path | None = None
    """test rows; by default the demo's bundled test set"""
    utterances: int = 64
    """how many rows"""
    rows: tuple[int, ...] = (1, 16, 64)
    """utterances that advance together"""
    chunk_ms: float = 1000
    rollback: int = 3
    here: bool = True
    """also in this process, for models that it can hold"""
    audio_s: float = 10
    """length of the clip whose request is timed"""


def rate(lalm: LALM, clips: list[Clip], options: Options, rows: int) -> float:
    """Utterances per second of one pass over the clips."""
    started = time.perf_counter()
    work = Lockstep(StreamConfig(chunk_ms=options.chunk_ms, rollback=options.rollback))
    simulate(LocalWorker(lalm), clips, work, rows)
    return len(clips) / (time.perf_counter() - started)


def overhead(lalm: EngineLALM, seconds: float) -> None:
    """Print how many milliseconds our side of a request takes."""
    rng = np.random.default_rng(0)
    audio = (0.1 * rng.standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)
    pcm = np.rint(audio * 32_768).astype(np.float32) / 32_768
    (clip,) = lalm.hear([audio], [ENGLISH_TO_GERMAN])
    choice = {
        "token_ids": [lalm.eos_id],
        "finish_reason": "stop",
        "logprobs": {"content": [{"token_id": lalm.eos_id, "logprob": -0.1, "rank": 1}]},
    }
    answer = strict_json.dumps({"prompt_token_ids": clip.prompt, "choices": [choice]}).encode()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=answer_at_once, args=(answer, theirs), daemon=True)
    server.start()
    lalm = copy.copy(lalm)
    lalm.client = VLLMClient(ours.recv(), "any", lalm.audio_token_id)
    for name, sound in (("16 bits", pcm), ("float32", audio)):
        times = []
        for _ in range(REQUESTS):
            started, computed = time.perf_counter(), time.process_time()
            lalm.continue_(lalm.hear([sound], [ENGLISH_TO_GERMAN]), [[]])
            times.append((time.perf_counter() - started, time.process_time() - computed))
        wall, cpu = (1000 * median(column) for column in zip(*times, strict=True))
        print(f"a request with {seconds:g} s of audio in {name}: {cpu:.2f} ms of our CPU time, answered after {wall:.2f} ms")
    fresh = []
    for samples in range(len(pcm) - 20, len(pcm)):
        started = time.process_time()
        lalm.hear([pcm[:samples]], [ENGLISH_TO_GERMAN])
        fresh.append(1000 * (time.process_time() - started))
    print(f"getting a clip ready whose length is new: {median(fresh):.2f} ms of CPU time")
    server.kill()


def answer_at_once(answer: bytes, address: Connection) -> None:
    """Serve `answer` to every request, in a process of its own, and send the address to the parent."""
    import asyncio

    from aiohttp import web

    async def reply(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=answer, content_type="application/json")

    async def run() -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/{path:.*}", reply)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address.send(f"http://127.0.0.1:{runner.addresses[0][1]}")
        await asyncio.Event().wait()

    asyncio.run(run())


def main(options: Options) -> None:
    """Print utterances per second on the engine and in this process, and what a request costs."""
    print(machine())
    there = load(options.model, dtype=options.dtype, engine_url=options.engine_url, engine_model=options.engine_model)
    assert isinstance(there, EngineLALM)
    print(f"{there.signature}, exact: {there.exact}, {there.approximate or 'scores as in this process'}")
    overhead(there, min(options.audio_s, there.max_samples / SAMPLE_RATE))
    clips = admit(rows_of(options.manifest, options.utterances), there.max_samples)
    places: dict[str, LALM] = {"engine": there}
    if options.here:
        places["this process"] = load(options.model, dtype=options.dtype)
    speech_s = sum(clip.samples for clip in clips) / SAMPLE_RATE
    print(f"{len(clips)} utterances, {speech_s:.1f} s of speech, k = {options.chunk_ms:g} ms, b = {options.rollback}")
    for lalm in places.values():
        rate(lalm, clips[:2], options, 2)  # warm-up
    for rows in options.rows:
        rates = {place: rate(lalm, clips, options, rows) for place, lalm in places.items()}
        print(f"{rows:3d} rows: " + ", ".join(f"{place} {found:.2f} utterances/s" for place, found in rates.items()))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
