"""simulstream's protocol: the text of `Stream`, several streams on a socket, and simulstream's own clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from simulsa.streaming.config import StreamConfig
from simulsa.testing import FakeLALM, growing_script
from tests.conftest import noise
from tests.servers import TEXT, ClientConnection, ConnectionClosed, Running, expected, pcm, running

STREAM = StreamConfig(chunk_ms=400, rollback=2)
SPEECH = pcm(noise(2.9))


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(FakeLALM(growing_script(TEXT)), STREAM) as server:
        yield server


@pytest.fixture
def socket(server: Running) -> Iterator[ClientConnection]:
    with server.connect("/") as socket:
        yield socket


def tell(socket: ClientConnection, **metadata: Any) -> None:
    socket.send(json.dumps(metadata))


def stream(socket: ClientConnection, data: bytes, frame: int = 3_200) -> None:
    for start in range(0, len(data), frame):
        socket.send(data[start : start + frame])
    tell(socket, end_of_stream=True)


def answers(socket: ClientConnection) -> list[dict[str, Any]]:
    """Everything up to the end of a stream."""
    found = [json.loads(socket.recv(timeout=20))]
    while "end_of_processing" not in found[-1]:
        found.append(json.loads(socket.recv(timeout=20)))
    return found


def text_of(found: list[dict[str, Any]]) -> str:
    assert all(answer["deleted"] == "" for answer in found[:-1])
    assert found[-1] == {"end_of_processing": True}
    return "".join(answer["new"] for answer in found[:-1])


def strictly(message: str | bytes) -> dict[str, Any]:
    """What a client reads whose JSON has no NaN and no Infinity."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return dict(json.loads(message, parse_constant=refuse))


def reference(rate: int = 16_000, stream: StreamConfig = STREAM, data: bytes = SPEECH) -> str:
    return expected(FakeLALM(growing_script(TEXT)), data, rate, stream)


@pytest.mark.parametrize("path", ["/", "/simulstream"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_the_text_is_that_of_stream_at_any_rate(server: Running, path: str, rate: int) -> None:
    with server.connect(path) as socket:
        tell(socket, sample_rate=rate, source_lang="en", target_lang="de", metrics_metadata={"wav_name": "x"})
        stream(socket, SPEECH)
        found = answers(socket)
    assert text_of(found) == reference(rate)
    chunks = len(SPEECH) // 2 / rate / 0.4
    assert len(found) == int(chunks) + 2  # one for each chunk, for the rest, and the end


def test_two_streams_on_one_socket_and_audio_without_metadata(socket: ClientConnection) -> None:
    tell(socket, sample_rate=8_000, target_lang="es")
    stream(socket, SPEECH)
    stream(socket, SPEECH)  # at 16 kHz again
    assert text_of(answers(socket)) == reference(8_000)
    assert text_of(answers(socket)) == reference(16_000)
    tell(socket, sample_rate=48_000)
    stream(socket, SPEECH)
    assert text_of(answers(socket)) == reference(48_000)


def test_settings_of_the_stream_in_the_metadata(socket: ClientConnection) -> None:
    tell(socket, sample_rate=16_000, chunk_ms=200, rollback=0)
    stream(socket, SPEECH)
    assert text_of(answers(socket)) == reference(stream=StreamConfig(chunk_ms=200, rollback=0))


def test_an_empty_stream(socket: ClientConnection) -> None:
    tell(socket, end_of_stream=True)
    assert answers(socket) == [{"new": "", "deleted": ""}, {"end_of_processing": True}]
    stream(socket, SPEECH)
    assert text_of(answers(socket)) == reference()
    for _ in range(2):  # after another one, too
        tell(socket, end_of_stream=True)
        assert answers(socket) == [{"new": "", "deleted": ""}, {"end_of_processing": True}]


@pytest.mark.parametrize(
    "message",
    [
        "{",
        "[]",
        "7",
        "[" * 100_000,
        '{"sample_rate": NaN}',
        '{"x": -Infinity}',
        '{"sample_rate": 1e400}',
        f'{{"rollback": 1{"0" * 400}}}',
    ],
)
def test_what_is_not_understood_is_answered_and_ignored(socket: ClientConnection, message: str) -> None:
    socket.send(message)
    answer = strictly(socket.recv(timeout=20))
    assert (answer["new"], answer["deleted"], answer["code"]) == ("", "", "invalid_message")
    stream(socket, SPEECH)
    assert text_of(answers(socket)) == reference()


@pytest.mark.parametrize("frame", [1, 3_201])
def test_a_frame_may_end_inside_a_sample(socket: ClientConnection, frame: int) -> None:
    data = SPEECH[: 16_001 if frame == 1 else len(SPEECH) - 1]
    stream(socket, data, frame)
    found = answers(socket)
    assert [answer["code"] for answer in found if "error" in answer] == ["odd_bytes"]  # the last one
    assert text_of([answer for answer in found if "error" not in answer]) == reference(data=data[:-1])
    stream(socket, SPEECH)  # the byte that was left is not the next stream's first
    assert text_of(answers(socket)) == reference()


def test_metadata_in_the_middle_of_a_stream_is_refused(socket: ClientConnection) -> None:
    socket.send(SPEECH[:3_200])
    tell(socket, sample_rate=8_000)
    assert json.loads(socket.recv(timeout=20))["code"] == "late_metadata"
    stream(socket, SPEECH[3_200:])
    assert text_of(answers(socket)) == reference()


def test_metadata_after_the_first_byte_is_refused(socket: ClientConnection) -> None:
    socket.send(SPEECH[:1])
    tell(socket, sample_rate=8_000)
    assert json.loads(socket.recv(timeout=20))["code"] == "late_metadata"
    stream(socket, SPEECH[1:])
    assert text_of(answers(socket)) == reference()


@pytest.mark.parametrize(
    "metadata",
    [
        {"sample_rate": 7},
        {"sample_rate": "fast"},
        {"sample_rate": True},
        {"target_lang": "xx"},
        {"target_lang": 5},
        {"chunk_ms": 10},
        {"unknown": 1},
    ],
)
def test_metadata_that_cannot_be_followed_closes_the_socket(socket: ClientConnection, metadata: dict[str, Any]) -> None:
    tell(socket, **metadata)
    assert json.loads(socket.recv(timeout=20))["code"] == "invalid_metadata"
    with pytest.raises(ConnectionClosed):
        socket.recv(timeout=20)
    assert socket.close_code == 1008
    assert socket.close_reason


def test_simulstreams_own_client(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = pytest.importorskip("simulstream.client.wav_reader_client", reason="needs simulstream 1.0")
    from simulsa.lalm.load import load
    from simulsa.serving.samples import clips

    lalm, rows = load("tiny-en-de-simul", device="cpu"), list(clips().values())[:2]
    for number, row in enumerate(rows):
        soundfile.write(tmp_path / f"{number}.wav", row.load(), 16_000, subtype="PCM_16")
    (tmp_path / "list.txt").write_text("0.wav\n1.wav\n")
    caplog.set_level(logging.DEBUG, logger="simulstream.wav_reader_client")
    with running(lalm) as server:
        options = SimpleNamespace(
            uri=f"ws://127.0.0.1:{server.port}/",
            wav_list_file=str(tmp_path / "list.txt"),
            chunk_duration_ms=100,
            tgt_lang="de",
            src_lang="en",
        )
        asyncio.run(client.main(options))
    heard: list[list[dict[str, Any]]] = [[]]
    for record in caplog.records:
        if record.name != "simulstream.wav_reader_client":
            continue
        with contextlib.suppress(ValueError):
            heard[-1].append(json.loads(record.getMessage()))
            if "end_of_processing" in heard[-1][-1]:
                heard.append([])
    assert len(heard) == 3
    for number, found in enumerate(heard[:2]):
        samples, _ = soundfile.read(tmp_path / f"{number}.wav", dtype="int16")
        # the client sends the last piece of a file twice
        data = np.concatenate([samples, samples[(len(samples) - 1) // 1_600 * 1_600 :]]).tobytes()
        assert text_of(found) == expected(lalm, data, 16_000, StreamConfig())
        assert text_of(found)
