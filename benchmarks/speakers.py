"""Real-time speakers for testing a server; each sends one bundled clip after the other, with one session per clip.

python -m benchmarks.speakers --url ws://127.0.0.1:8000 --speakers 8 --seconds 60

Prints a JSON list with two values in milliseconds per result: its lag, counted from when the last audio it is based on was
sent, and the model's computing time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tyro
from websockets.asyncio.client import connect

from simulsa.audio import SAMPLE_RATE, SAMPLES_PER_MS
from simulsa.serving.samples import clips

FRAME_MS = 100  # audio per message; chunks should be a multiple of it


@dataclass(frozen=True)
class Options:
    """Which server, how many speakers and for how long."""

    url: str
    speakers: int = 1
    seconds: float = 20
    clips: int = 40
    """how many of the bundled clips are spoken"""


async def speak(url: str, audio: np.ndarray) -> list[tuple[float, float]]:
    """Send one clip in real time; returns lag and computing time of each chunk's result."""
    heard: list[tuple[float, float]] = []
    sent_at: list[float] = []  # for each audio message
    frame = FRAME_MS * SAMPLES_PER_MS
    data = (audio * 32_767).astype("<i2")
    async with connect(f"{url}/v1/realtime/translations", compression=None) as socket:
        await socket.recv()
        requested = {"tentative": True, "sample_rate": SAMPLE_RATE}
        await socket.send(json.dumps({"type": "session.update", "session": {"simulsa": requested}}))
        await socket.recv()

        async def listen() -> None:
            async for message in socket:
                event = json.loads(message)
                if event["type"] == "simulsa.tentative":
                    lag_ms = 1000 * (time.perf_counter() - sent_at[math.ceil(event["audio_ms"] / FRAME_MS) - 1])
                    heard.append((round(lag_ms, 2), event["compute_ms"]))

        listening = asyncio.create_task(listen())
        started = time.perf_counter()
        for start in range(0, len(data) - frame + 1, frame):
            end = start + frame
            await asyncio.sleep(max(0.0, started + end / SAMPLE_RATE - time.perf_counter()))
            sent_at.append(time.perf_counter())
            text = base64.b64encode(data[start:end].tobytes()).decode()
            await socket.send(json.dumps({"type": "session.input_audio_buffer.append", "audio": text}))
        await socket.send(json.dumps({"type": "session.close"}))
        await listening
    return heard


async def crowd(url: str, spoken: Sequence[np.ndarray], speakers: int, seconds: float) -> list[tuple[float, float]]:
    """Run many speakers for a while; the first fifth of that time, when they join, does not count."""
    began = time.monotonic()

    async def speaker(number: int) -> list[tuple[float, float]]:
        heard: list[tuple[float, float]] = []
        await asyncio.sleep(number * seconds / 8 / speakers)
        turn = number
        while time.monotonic() < began + seconds:
            news = await speak(url, spoken[turn % len(spoken)])
            heard += news if time.monotonic() > began + seconds / 5 else []
            turn += speakers
        return heard

    return [item for heard in await asyncio.gather(*map(speaker, range(speakers))) for item in heard]


def main(options: Options) -> None:
    """Print what the speakers measured."""
    spoken = [row.load() for row in list(clips().values())[: options.clips]]
    print(json.dumps(asyncio.run(crowd(options.url, spoken, options.speakers, options.seconds))))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
