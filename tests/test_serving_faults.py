"""What goes wrong with one client or one call of the model harms nobody else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import io
import json
import os
import re
import signal
import socket as sockets
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import soundfile

from simulsa.audio import SAMPLE_RATE
from simulsa.serving.service import Service
from simulsa.serving.session import Session
from simulsa.streaming.config import StreamConfig
from simulsa.testing import FakeLALM, growing_script
from tests.conftest import noise
from tests.servers import (
    TEXT,
    ConnectionClosed,
    Running,
    append,
    connect,
    events_until,
    expected,
    hear,
    pcm,
    running,
    say,
    talking,
    transcript,
    until,
)

STREAM = StreamConfig(chunk_ms=400, rollback=0)
SPEECH = pcm(noise(2.9))


def fake() -> FakeLALM:
    return FakeLALM(growing_script(TEXT))


@contextlib.contextmanager
def raw(server: Running) -> Iterator[sockets.socket]:
    """A WebSocket by hand, which answers nothing by itself."""
    with sockets.socket() as raw:
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
        raw.connect(("127.0.0.1", server.port))
        lines = ["GET /v1/realtime/translations HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}", "", ""]
        raw.sendall("\r\n".join(lines).encode())
        assert raw.recv(12) == b"HTTP/1.1 101"
        yield raw


def frame(text: str) -> bytes:
    """A masked text frame; the mask of zeros leaves the text as it is."""
    data = text.encode()
    return struct.pack("!BBH", 0x81, 0x80 | 126, len(data)) + bytes(4) + data


def audio_frame(data: bytes) -> bytes:
    return frame(json.dumps({"type": "session.input_audio_buffer.append", "audio": base64.b64encode(data).decode()}))


def everyone_else_is_served(server: Running) -> None:
    with talking(server) as socket:
        append(socket, SPEECH)
        say(socket, "session.close")
        assert transcript(events_until(socket, "session.closed")) == expected(fake(), SPEECH, 24_000, STREAM)


def test_clients_that_are_killed() -> None:
    with running(fake(), STREAM) as server:
        for reset in (True, False):
            with raw(server) as client:
                client.sendall(audio_frame(SPEECH[:9_600]))
                until(lambda: server.metric("simulsa_unheard_seconds") > 0.1)
                if reset:
                    client.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
            until(lambda: server.metric("simulsa_sessions_open") == 0, seconds=5)
        with raw(server) as client:
            client.sendall(audio_frame(SPEECH[:9_600])[:500])  # in the middle of a message
        until(lambda: server.metric("simulsa_sessions_open") == 0, seconds=5)
        assert server.metric('simulsa_sessions_ended_total{reason="vanished"}') == 2
        everyone_else_is_served(server)


def test_a_client_that_gives_no_sign_of_life() -> None:
    with running(fake(), STREAM, ping_s=0.2) as server, raw(server) as client:
        client.sendall(audio_frame(SPEECH[:9_600]))
        until(lambda: server.metric("simulsa_sessions_open") == 1)
        until(lambda: server.metric("simulsa_sessions_open") == 0, seconds=5)
        everyone_else_is_served(server)


def test_a_client_that_does_not_read() -> None:
    def endless(audio: np.ndarray) -> str:
        return "viele Worte " * (len(audio) * 2)  # half a million characters a second

    lalm = FakeLALM(endless, max_target_tokens=10**9)
    with running(lalm, STREAM, send_buffer=4_096, send_timeout_s=0.3, ping_s=60.0) as server, raw(server) as client:
        with contextlib.suppress(OSError):
            for start in range(0, len(SPEECH), 9_600):
                client.sendall(audio_frame(SPEECH[start : start + 9_600]))
        until(lambda: server.metric('simulsa_sessions_total{protocol="realtime"}') == 1)
        until(lambda: server.metric("simulsa_sessions_open") == 0, seconds=10)


def test_a_client_that_is_slowed_down_is_not_taken_for_dead() -> None:
    gate = threading.Event()

    def script(audio: np.ndarray) -> str:
        assert gate.wait(30)
        return growing_script(TEXT)(audio)

    with running(FakeLALM(script), STREAM, ping_s=0.2, max_unheard_s=0.5) as server, talking(server) as socket:
        long = np.tile(np.frombuffer(SPEECH, dtype="<i2"), 20).tobytes()
        sending = threading.Thread(target=append, args=(socket, long))
        sending.start()
        time.sleep(1.5)  # its answers lie behind audio that is not read
        gate.set()
        sending.join(30)
        say(socket, "session.close")
        assert transcript(events_until(socket, "session.closed")) == expected(fake(), long, 24_000, STREAM)


def test_a_call_of_the_model_that_raises() -> None:
    def script(audio: np.ndarray) -> str:
        if np.abs(audio[:100]).max() < 1e-3 and len(audio) > SAMPLE_RATE:
            raise RuntimeError("secret detail")
        return growing_script(TEXT)(audio)

    silence = bytes(len(SPEECH))
    with running(FakeLALM(script), STREAM) as server, contextlib.ExitStack() as stack:
        good = [stack.enter_context(talking(server)) for _ in range(3)]
        bad = stack.enter_context(talking(server))
        simulstream = stack.enter_context(server.connect("/"))
        simulstream.send(silence)
        for start in range(0, len(SPEECH), 9_600):
            for socket in good:
                append(socket, SPEECH[start : start + 9_600])
            with contextlib.suppress(ConnectionClosed):
                append(bad, silence[start : start + 9_600])
        for socket in good:
            say(socket, "session.close")
            assert transcript(events_until(socket, "session.closed")) == expected(fake(), SPEECH, 24_000, STREAM)
        error = events_until(bad, "error")[-1]["error"]
        assert (error["type"], error["code"]) == ("server_error", "model_failed")
        assert "secret" not in error["message"]
        with pytest.raises(ConnectionClosed):
            bad.recv(timeout=20)
        assert bad.close_code == 1011
        messages = []
        with pytest.raises(ConnectionClosed):
            messages.extend(iter(simulstream))
        assert simulstream.close_code == 1011
        form = {"files": {"file": ("silence.wav", wav(np.zeros(2 * SAMPLE_RATE, dtype=np.float32)))}}
        answer = httpx2.post(server.url + "/v1/audio/translations", **form)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "model_failed")
        answer = httpx2.post(server.url + "/v1/audio/translations", data={"stream": "true"}, **form)  # type: ignore[arg-type]
        assert '"code": "model_failed"' in answer.text
        assert "secret" not in answer.text
        assert server.metric('simulsa_errors_total{kind="model"}') == 4
        everyone_else_is_served(server)


@pytest.mark.parametrize("part", ["waits_since", "turn", "deliver"])
def test_an_error_in_our_own_part_of_a_session_ends_that_session_only(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = getattr(Session, part)

    def broken(session: Session, *arguments: Any) -> Any:
        if session.config.chunk_ms == 1234:
            raise OverflowError("secret detail")
        return own(session, *arguments)

    monkeypatch.setattr(Session, part, broken)
    with running(fake(), STREAM) as server, talking(server) as bad:
        say(bad, "session.update", session={"simulsa": {"chunk_ms": 1234}})
        with contextlib.suppress(ConnectionClosed):  # the session may end while the client still sends
            append(bad, SPEECH)
        error = events_until(bad, "error")[-1]["error"]
        assert (error["type"], error["code"]) == ("server_error", "model_failed")
        assert httpx2.get(server.url + "/readyz").json() == {"status": "ready"}
        everyone_else_is_served(server)


def test_a_scheduler_that_fails_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(fake(), STREAM) as server, talking(server) as socket:
        monkeypatch.setattr(server.service.metrics, "stepped", None)
        append(socket, SPEECH)
        assert events_until(socket, "error")[-1]["error"]["code"] == "model_failed"
        for path in ("/readyz", "/healthz"):
            answer = httpx2.get(server.url + path)
            assert (answer.status_code, answer.json()["status"]) == (503, "failed")


def wav(audio: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio, SAMPLE_RATE, format="WAV")
    return file.getvalue()


def test_a_file_that_comes_while_the_server_is_being_stopped() -> None:
    with running(fake(), STREAM, drain_s=5.0) as server, sockets.create_connection(("127.0.0.1", server.port)) as client:
        form = (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + wav(noise(1.0)) + b"\r\n--b--\r\n"
        )
        head = f"POST /v1/audio/translations HTTP/1.1\r\nHost: a\r\nContent-Length: {len(form)}\r\n"
        client.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + form[:100])
        until(lambda: server.metric("simulsa_sessions_open") == 1)
        server.stop()
        until(lambda: server.service.draining)
        assert httpx2.get(server.url + "/readyz").json()["status"] == "shutting_down"
        client.sendall(form[100:])
        assert client.recv(12) == b"HTTP/1.1 503"


def test_a_file_whose_last_byte_comes_as_the_server_is_being_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping: list[asyncio.Task[None]] = []

    async def stop_soon(service: Service, stream: StreamConfig) -> None:
        stopping.append(asyncio.ensure_future(service.drain()))  # before anything else that the event loop is given from now on

    with running(fake(), STREAM) as server:
        whole = httpx2.post(server.url + "/v1/audio/translations", files={"file": ("a.wav", wav(noise(2.9)))}).json()["text"]
        assert whole
        monkeypatch.setattr(Service, "check", stop_soon)
        for stream in ("false", "true"):
            fields = {"stream": stream}
            answer = httpx2.post(server.url + "/v1/audio/translations", files={"file": ("a.wav", wav(noise(2.9)))}, data=fields)
            assert answer.status_code == 503 or whole in answer.text
            server.service.draining = False


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size of a process from /proc")
def test_five_hundred_connections_leave_no_memory_behind() -> None:
    def megabytes() -> float:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def connect_once(server: Running, number: int) -> None:
        with talking(server) as socket:
            append(socket, SPEECH[: 9_600 * (number % 5)])
            if number % 3 == 0:
                say(socket, "session.close")
                events_until(socket, "session.closed")

    with running(fake(), STREAM) as server:
        for number in range(50):
            connect_once(server, number)
        before = megabytes()
        for number in range(500):
            connect_once(server, number)
        until(lambda: server.metric("simulsa_sessions_open") == 0)
        assert megabytes() - before <= 20


COMMAND = """
import sys
from simulsa.cli import main
from simulsa.lalm.load import ModelConfig
from simulsa.testing import FakeLALM, growing_script

ModelConfig.load = lambda config: FakeLALM(growing_script(sys.argv[1]))
sys.exit(main(["serve", "--port", "0", "--chunk-ms", "inf", "--no-longform"]))
"""


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_when_it_is_stopped_everyone_gets_the_final_text(stop: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", COMMAND, TEXT], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        place = re.fullmatch(r"fake is served at http://(127\.0\.0\.1:\d+) \(Ctrl-C stops\)\n", line)
        assert place is not None, line
        url = f"ws://{place[1]}"
        with connect(f"{url}/v1/realtime/translations") as realtime, connect(f"{url}/") as simulstream:
            assert hear(realtime)["type"] == "session.created"
            append(realtime, SPEECH)
            simulstream.send(SPEECH)
            say(realtime, "unknown")  # when that is answered, what came before has been read
            assert hear(realtime)["type"] == "error"
            simulstream.send("{")
            assert "error" in json.loads(simulstream.recv(timeout=20))
            process.send_signal(stop)
            events = events_until(realtime, "session.closed")
            answers = [json.loads(message) for message in simulstream]
            assert simulstream.close_code == 1001
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()
    offline = StreamConfig(chunk_ms=float("inf"))
    assert transcript(events) == expected(fake(), SPEECH, 24_000, offline)
    assert events[-2]["error"]["code"] == "session_shutting_down"
    assert [answer.get("new") for answer in answers] == [expected(fake(), SPEECH, 16_000, offline), None]


HANGING = """
import sys
import time
from simulsa.cli import main
from simulsa.lalm.load import ModelConfig
from simulsa.serving.service import Service
from simulsa.testing import FakeLALM, growing_script

def hang(*arguments):
    print("hanging", flush=True)
    time.sleep(3600)

ModelConfig.load = lambda config: FakeLALM(growing_script("Ein Mann"))
FakeLALM.continue_ = hang
Service.warm_up = lambda service: None
sys.exit(main(["serve", "--port", "0", "--no-longform"]))
"""


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_even_if_the_model_hangs(stop: signal.Signals) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", HANGING], text=True, **pipes)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        port = process.stderr.readline().split(" (")[0].split(":")[-1]
        with connect(f"ws://127.0.0.1:{port}/") as socket:
            socket.send(SPEECH)
            assert process.stdout.readline() == "hanging\n"
            process.send_signal(stop)
            time.sleep(0.5)
            assert process.poll() is None  # it waits for the final text
            process.send_signal(stop)
            assert process.wait(10) == -stop
    finally:
        process.kill()
        process.wait()
