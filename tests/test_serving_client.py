"""The client: a server's translation of a source, and one clear error for whatever keeps it from that."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE, AudioError
from simulsa.cli import main
from simulsa.serving.client import RemoteError, endpoint, translate_remote
from simulsa.serving.pcm import PcmReader, write_pcm
from simulsa.sources import packets
from simulsa.streaming.config import StreamConfig
from simulsa.testing import FakeLALM, growing_script
from tests.conftest import noise
from tests.servers import TEXT, ConnectionClosed, Running, expected, running

STREAM = StreamConfig(chunk_ms=400, rollback=2)
SPEECH = noise(2.6)


def fake() -> FakeLALM:
    return FakeLALM(growing_script(TEXT))


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(fake(), STREAM) as server:
        yield server


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "speech.wav", SPEECH, SAMPLE_RATE, subtype="FLOAT")
    return tmp_path / "speech.wav"


@pytest.mark.parametrize(
    ("address", "leads_to"),
    [
        ("ws://host:8000", "ws://host:8000/v1/realtime/translations"),
        ("http://host:8000/", "ws://host:8000/v1/realtime/translations"),
        ("https://host/v1", "wss://host/v1/realtime/translations"),
        ("wss://host/talks/v1/realtime/translations?api_key=k", "wss://host/talks/v1/realtime/translations?api_key=k"),
        ("https://[::1]:8/talks/", "wss://[::1]:8/talks/v1/realtime/translations"),
    ],
)
def test_the_endpoint_of_an_address(address: str, leads_to: str) -> None:
    assert endpoint(address) == leads_to


@pytest.mark.parametrize(
    "url", ["host:8000", "ftp://host", "ws://", "8000", "ws://:8000", "ws://host:99999", "ws://host:x", "ws://[::1"]
)
def test_what_is_no_address(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="must begin with ws://"):
        endpoint(url)
    assert main(["translate", "a.wav", "--url", url]) == 2


@given(st.lists(st.integers(-32_768, 32_767)))
def test_pcm_there_and_back(levels: list[int]) -> None:
    samples = np.array(levels, np.float32) / 32_768
    assert np.array_equal(PcmReader(SAMPLE_RATE).read(write_pcm(samples)), samples)


def test_pcm_that_is_too_loud() -> None:
    assert write_pcm(np.array([-7, 7], np.float32)) == b"\x00\x80\xff\x7f"


def test_the_updates_are_those_of_a_stream_however_the_audio_is_cut(server: Running) -> None:
    updates = list(translate_remote(server.url, packets(SPEECH), STREAM))
    assert updates[-1].committed == expected(fake(), write_pcm(SPEECH), SAMPLE_RATE, STREAM)
    assert [update.audio_s for update in updates] == [0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.6]
    assert [update.final for update in updates] == [False] * 6 + [True]
    assert updates[-1].tentative == ""
    assert any(update.tentative for update in updates)
    for before, after in itertools.pairwise(updates):
        assert after.committed.startswith(before.committed)
    whole = list(translate_remote(server.url, [SPEECH], STREAM))
    assert [(update.committed, update.tentative) for update in whole] == [
        (update.committed, update.tentative) for update in updates
    ]


def test_the_settings_are_the_clients_or_else_the_servers(server: Running) -> None:
    fine = StreamConfig(chunk_ms=1300, rollback=0)
    assert [update.audio_s for update in translate_remote(server.url, [SPEECH], fine)] == [1.3, 2.6, 2.6]
    assert len(list(translate_remote(server.url, [SPEECH]))) == 7
    offline = StreamConfig(chunk_ms=float("inf"))
    assert [update.final for update in translate_remote(server.url, [SPEECH], offline)] == [True]


def test_settings_that_the_server_does_not_take(server: Running) -> None:
    with pytest.raises(RemoteError, match=r"invalid_value.*chunk_ms is 60; this server accepts 100 or more"):
        list(translate_remote(server.url, [SPEECH], StreamConfig(chunk_ms=60)))


def test_keys(tmp_path: Path, wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys").write_text("secret\nother\n")
    with running(fake(), STREAM, api_key_file=tmp_path / "keys") as server:
        command = ["translate", str(wav), "--url", server.url]
        assert main([*command, "--api-key-file", str(tmp_path / "keys")]) == 0
        assert main([*command, "--api-key", "other"]) == 0
        assert main(["translate", str(wav), "--url", server.url + "?api_key=secret"]) == 0
        assert capsys.readouterr().out.count("\n") == 3
        for wrong in ([], ["--api-key", "wrong"]):
            assert main([*command, *wrong]) == 1
            out, err = capsys.readouterr()
            assert out == ""
            assert err.startswith(f"simulsa translate: {server.url}: the server says 401 (a key is needed")
            assert err.endswith("give the key with --api-key-file\n")
        assert main([*command, "--api-key-file", str(tmp_path / "none")]) == 1
        assert "the key file cannot be read" in capsys.readouterr().err


def test_a_key_in_the_address_is_not_shown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(RemoteError, match=rf"^ws://127.0.0.1:{port}: cannot be reached \(.*refused.*\)") as raised:
        list(translate_remote(f"ws://127.0.0.1:{port}?api_key=secret", [SPEECH]))
    assert "secret" not in str(raised.value)


def test_the_wrong_address(server: Running) -> None:
    with pytest.raises(RemoteError, match=r"cannot be reached \(.*\); check the address"):
        list(translate_remote("ws://no-such-host.invalid", [SPEECH]))
    with pytest.raises(RemoteError, match="the server says 404"):
        list(translate_remote(server.url + "/elsewhere", [SPEECH]))


def test_a_full_server() -> None:
    with running(fake(), STREAM, max_sessions=1) as server, contextlib.closing(live(server)) as first:
        next(first)
        with pytest.raises(RemoteError, match="the server says too_many_sessions: all 1 sessions are taken; try again later"):
            list(translate_remote(server.url, [SPEECH]))


def live(server: Running) -> Iterator[Any]:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield SPEECH[: SAMPLE_RATE // 10]
            time.sleep(0.01)

    return translate_remote(server.url, endless(), STREAM)


@pytest.mark.parametrize("broken", [np.array([0.1, np.nan], np.float32), np.zeros(3, np.int16), np.zeros((2, 2), np.float32)])
def test_audio_that_cannot_be_sent(server: Running, broken: np.ndarray) -> None:
    with pytest.raises(AudioError, match="a chunk of the source"):
        list(translate_remote(server.url, [SPEECH, broken]))


def test_a_source_that_fails_and_one_without_sound(server: Running) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield SPEECH
        raise OSError("the cable is out")

    with pytest.raises(OSError, match="the cable is out"):
        list(translate_remote(server.url, failing()))
    with pytest.raises(AudioError, match="no audio"):
        list(translate_remote(server.url, [SPEECH[:0]]))


def test_who_leaves_early_frees_the_place(server: Running) -> None:
    updates = live(server)
    next(updates)
    assert server.service.scheduler.sessions
    updates.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while server.service.scheduler.sessions:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_that_is_stopped_gives_the_rest_first() -> None:
    with contextlib.ExitStack() as stack:
        updates = live(stack.enter_context(running(fake(), STREAM)))
        seen = [next(updates)]
        stopping = threading.Thread(target=stack.close)
        stopping.start()
        with pytest.raises(RemoteError, match="session_shutting_down: the server is shutting down"):
            seen.extend(updates)
        stopping.join()
    assert seen[-1].final


def test_a_model_that_fails_in_the_middle(wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = growing_script(TEXT)

    def failing(audio: np.ndarray) -> str:
        if len(audio) > 2 * SAMPLE_RATE:
            raise MemoryError
        return script(audio)

    with running(FakeLALM(failing), STREAM) as server:
        flags = ["--url", server.url, "--chunk-ms", "400", "--rollback", "2"]
        assert main(["translate", str(wav), *flags]) == 1
        out, err = capsys.readouterr()
        assert main(["translate", str(wav), *flags, "--json"]) == 1
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert out == "Ein Mann in einem roten Hemd fährt\n"
    assert err.startswith("simulsa translate: the server says model_failed: the model failed on this audio")
    assert [line["audio_s"] for line in lines] == [0.4, 0.8, 1.2, 1.6, 2.0]
    assert not lines[-1]["final"]
    assert lines[-1]["committed"] == out.strip()


@contextlib.contextmanager
def another_server(talk: Callable[[Any], None]) -> Iterator[str]:
    """A WebSocket server that does with each connection what `talk` does."""
    from websockets.sync.server import serve

    with serve(talk, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def broken_server() -> contextlib.AbstractContextManager[str]:
    """Says a word, then the line is cut."""

    def talk(connection: Any) -> None:
        connection.send('{"type": "session.created"}')
        connection.recv()
        connection.send('{"type": "session.updated"}')
        connection.recv()
        connection.send('{"type": "session.output_transcript.delta", "delta": "Ein"}')
        step = {"type": "simulsa.tentative", "text": " M", "audio_ms": 400, "compute_ms": 1, "final": False}
        connection.send(json.dumps(step))
        connection.socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionClosed):
            while True:
                connection.recv()

    return another_server(talk)


@pytest.mark.parametrize(
    ("greeting", "words"), [("", "has sent nothing for 0.3 s"), ('{"new": ""}', "is no event"), ("[1]", "is no event")]
)
def test_a_server_of_another_kind(greeting: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def talk(connection: Any) -> None:
        if greeting:
            connection.send(greeting)
        for _ in connection:
            pass

    if not greeting:
        monkeypatch.setattr("simulsa.serving.client.GREETING_S", 0.3)
    with another_server(talk) as url, pytest.raises(RemoteError, match=words):
        list(translate_remote(url, packets(SPEECH)))


def test_a_line_that_is_cut(wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with broken_server() as url:
        assert main(["translate", str(wav), "--url", url]) == 1
    out, err = capsys.readouterr()
    assert out == "Ein\n"
    assert err.startswith("simulsa translate: the connection to the server was lost (")
    assert err.count("\n") == 1


def test_the_command(server: Running, wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--url", server.url, "--chunk-ms", "400", "--rollback", "2"]
    assert main(["translate", str(wav), str(wav), *flags]) == 0
    out, err = capsys.readouterr()
    text = expected(fake(), write_pcm(SPEECH), SAMPLE_RATE, STREAM)
    assert out == f"{text}\n{text}\n"
    assert "2.6 s of speech" in err
    assert main(["translate", str(wav), *flags, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    updates = list(translate_remote(server.url, [SPEECH], STREAM))
    assert [(line["audio_s"], line["committed"], line["tentative"], line["final"]) for line in lines] == [
        (update.audio_s, update.committed, update.tentative, update.final) for update in updates
    ]


def test_a_model_beside_a_server_is_wrong_usage(server: Running, wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", str(wav), "--url", server.url, "--model", "tiny-en-de"]) == 2
    assert "with --url the server's model translates" in capsys.readouterr().err


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "websockets", None)
    with pytest.raises(RuntimeError, match=r"pip install 'simulsa\[client\]'"):
        list(translate_remote("ws://127.0.0.1:1", [SPEECH]))
