"""A server on a free loopback port, in a thread, and small clients for it. Tests that import it skip where it cannot run."""

# ruff: noqa: E402

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

for _package in ("starlette", "uvicorn", "websockets", "prometheus_client", "python_multipart"):
    pytest.importorskip(_package, reason="needs simulsa[serve]")

from websockets.exceptions import ConnectionClosed as ConnectionClosed
from websockets.exceptions import InvalidStatus as InvalidStatus
from websockets.sync.client import ClientConnection, connect

from simulsa.lalm.interface import LALM
from simulsa.serving.config import ServeConfig as ServeConfig
from simulsa.serving.pcm import PcmReader
from simulsa.serving.realtime import Realtime as Realtime
from simulsa.serving.server import bind, make_server
from simulsa.serving.service import Service as Service
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.stream import Stream

TEXT = "Ein Mann in einem roten Hemd fährt auf einem alten Fahrrad durch die Straßen der Stadt"
REALTIME = "/v1/realtime/translations?model=any"
FRAME = 9_600  # bytes: 200 ms at 24 kHz


@dataclass
class Running:
    """A server that runs."""

    service: Service
    port: int
    server: Any

    def stop(self) -> None:
        """Tell it to stop, as a signal would."""
        self.server.should_exit = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, path: str = REALTIME, **options: Any) -> Any:  # a context manager that gives a `ClientConnection`
        return connect(f"ws://127.0.0.1:{self.port}{path}", compression=None, **options)

    def metric(self, line: str) -> float:
        """The value of a metric, named with its labels; 0 if it was never touched."""
        for text in self.service.metrics.text().decode().split("\n"):
            if text.startswith(line + " "):
                return float(text.split(" ")[-1])
        return 0.0


@contextlib.contextmanager
def running(lalm: LALM, stream: StreamConfig | None = None, send_buffer: int = 0, **limits: Any) -> Iterator[Running]:
    config = ServeConfig(**{"port": 0, "merge_chunks": False, "longform": False, "max_lag_chunks": 1_000, **limits})
    service = Service(lalm, config, stream or StreamConfig())
    server = make_server(service)
    listening = bind(service.config)
    if send_buffer:  # of the system, for each connection; usually megabytes
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    until(lambda: server.started)
    try:
        yield Running(service, listening.getsockname()[1], server)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition, and fail if it never comes true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this never happened"
        time.sleep(0.01)


def pcm(audio: np.ndarray) -> bytes:
    """Float32 to 16-bit PCM."""
    return (np.clip(audio, -1, 1) * 32_767).astype("<i2").tobytes()


def expected(lalm: LALM, data: bytes, rate: int, stream: StreamConfig) -> str:
    """What `Stream` makes of PCM."""
    reader, here = PcmReader(rate), Stream(lalm, stream)
    here.push(np.concatenate([reader.read(data), reader.read(b"", last=True)]))
    return here.finish()[-1].committed


@contextlib.contextmanager
def talking(server: Running, **options: Any) -> Iterator[ClientConnection]:
    """A Realtime session that has begun."""
    with server.connect(**options) as socket:
        assert hear(socket)["type"] == "session.created"
        yield socket


def say(socket: ClientConnection, kind: str, **fields: Any) -> None:
    socket.send(json.dumps({"type": kind, **fields}))


def hear(socket: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(socket.recv(timeout=20)))


def append(socket: ClientConnection, data: bytes, frame: int = FRAME) -> None:
    for start in range(0, len(data), frame):
        say(socket, "session.input_audio_buffer.append", audio=base64.b64encode(data[start : start + frame]).decode())


def events_until(socket: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """All events up to the first of a kind."""
    events = [hear(socket)]
    while events[-1]["type"] != kind:
        events.append(hear(socket))
    return events


def transcript(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "session.output_transcript.delta")
