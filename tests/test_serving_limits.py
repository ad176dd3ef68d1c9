"""Keeping out and keeping up: keys, origins, limits, back-pressure, refusals."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import threading
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest

from simulsa.cli import main
from simulsa.commands.parsing import parse
from simulsa.commands.serve import Serve
from simulsa.lalm.interface import Continuation
from simulsa.streaming.config import StreamConfig
from simulsa.testing import FakeLALM, growing_script
from tests.conftest import noise
from tests.servers import (
    TEXT,
    ConnectionClosed,
    InvalidStatus,
    ServeConfig,
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


class Gated(FakeLALM):
    """A model that answers only while its gate is open."""

    def __init__(self) -> None:
        super().__init__(growing_script(TEXT))
        self.gate = threading.Event()

    def continue_(self, *args: object, **options: object) -> list[Continuation]:
        assert self.gate.wait(30)
        return super().continue_(*args, **options)  # type: ignore[arg-type]


def test_a_key_by_every_way(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("first\nsecond\n")
    path = "/v1/realtime/translations"
    with running(fake(), STREAM, api_key_file=tmp_path / "keys") as server:
        with talking(server, additional_headers={"Authorization": "Bearer second"}):
            pass
        with server.connect(f"{path}?api_key=first") as socket:
            assert hear(socket)["type"] == "session.created"
        with talking(server, subprotocols=["realtime", "openai-insecure-api-key.first"]) as socket:
            assert socket.subprotocol == "realtime"
        for options in ({}, {"additional_headers": {"Authorization": "Bearer third"}}, {"subprotocols": ["realtime"]}):
            for place in (path, "/", "/simulstream"):
                with pytest.raises(InvalidStatus) as refused, server.connect(place, **options):
                    pass
                assert refused.value.response.status_code == 401
        for place in ("/v1/models", "/metrics"):
            assert httpx2.get(server.url + place).status_code == 401
            assert httpx2.get(server.url + place, headers={"Authorization": "bearer first"}).status_code == 200
        assert httpx2.post(server.url + "/v1/audio/translations").status_code == 401
        assert httpx2.get(server.url + "/healthz").status_code == 200
        assert httpx2.get(server.url + "/").status_code == 200


def test_pages_of_other_origins_stay_out() -> None:
    with running(fake(), STREAM, allow_origins=("https://talks.example.org",)) as server:
        own = f"http://127.0.0.1:{server.port}"
        for origin in (own, "https://talks.example.org"):
            with talking(server, origin=origin):
                pass
        for origin in ("https://evil.example", "null"):
            with pytest.raises(InvalidStatus) as refused, server.connect(origin=origin):
                pass
            assert refused.value.response.status_code == 403
            assert httpx2.post(server.url + "/v1/audio/translations", headers={"Origin": origin}).status_code == 403
        rebound = {"Host": f"evil.example:{server.port}", "Origin": f"http://evil.example:{server.port}"}
        assert httpx2.post(server.url + "/v1/audio/translations", headers=rebound).status_code == 403
        asked = {"Origin": "https://talks.example.org", "Access-Control-Request-Method": "POST"}
        answer = httpx2.options(server.url + "/v1/audio/translations", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://talks.example.org"
    with running(fake(), STREAM, allow_origins=("*",)) as server, talking(server, origin="https://anywhere.example"):
        pass


def test_an_origin_that_is_no_address_stays_out() -> None:
    with running(fake(), STREAM) as server:
        assert httpx2.get(server.url + "/v1/models", headers={"Origin": "http://[::1"}).status_code == 403


def test_no_more_sessions_than_there_are_places() -> None:
    with running(fake(), STREAM, max_sessions=2) as server:
        places = contextlib.ExitStack()
        for _ in range(2):
            places.enter_context(talking(server))
        with server.connect() as third:
            refusal = hear(third)
            assert (refusal["type"], refusal["error"]["code"]) == ("error", "too_many_sessions")
            assert refusal["error"]["type"] == "server_error"
            with pytest.raises(ConnectionClosed):
                third.recv(timeout=20)
            assert third.close_code == 1013
            assert third.close_reason is not None
            assert third.close_reason.startswith("too_many_sessions")
        with server.connect("/") as third:
            assert json.loads(third.recv(timeout=20))["code"] == "too_many_sessions"
        file = {"files": {"file": ("a.wav", b"")}}
        answer = httpx2.post(server.url + "/v1/audio/translations", **file)  # type: ignore[arg-type]
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["error"]["code"] == "too_many_sessions"
        assert httpx2.get(server.url + "/readyz").status_code == 503
        assert server.metric('simulsa_refused_total{reason="too_many_sessions"}') == 3
        places.close()
        until(lambda: server.metric("simulsa_sessions_open") == 0)
        with talking(server):
            pass


def test_new_sessions_are_refused_while_the_model_does_not_keep_up() -> None:
    lalm = Gated()
    with running(lalm, STREAM, max_lag_chunks=1.0) as server, talking(server) as socket:
        append(socket, SPEECH[:24_000])  # 500 ms
        until(lambda: server.service.scheduler.lag_chunks() > 1)
        with server.connect() as other:
            assert hear(other)["error"]["code"] == "overloaded"
        assert httpx2.get(server.url + "/readyz").json()["status"] == "overloaded"
        lalm.gate.set()
        say(socket, "session.close")
        assert transcript(events_until(socket, "session.closed")) == "Ein Mann"


def test_a_session_that_is_behind_hears_several_chunks_at_once() -> None:
    lalm = Gated()
    with running(lalm, STREAM, merge_chunks=True) as server, talking(server) as socket:
        say(socket, "session.update", session={"simulsa": {"tentative": True}})
        hear(socket)
        append(socket, SPEECH[:48_000])  # a second
        time.sleep(1.5)
        lalm.gate.set()
        say(socket, "session.close")
        events = [event for event in events_until(socket, "session.closed") if event["type"] == "simulsa.tentative"]
        assert [event["audio_ms"] for event in events] == [400, 800, 1000]
        assert server.metric("simulsa_chunks_merged_total") == 0
    with running(lalm, STREAM, merge_chunks=True) as server, talking(server) as socket:
        lalm.gate.clear()
        say(socket, "session.update", session={"simulsa": {"tentative": True}})
        hear(socket)
        append(socket, pcm(noise(0.45 * 1.5)))
        until(lambda: not server.service.scheduler._waiting())
        append(socket, pcm(noise(1.25 * 1.5)))
        time.sleep(2)
        lalm.gate.set()
        say(socket, "session.close")
        events = [event for event in events_until(socket, "session.closed") if event["type"] == "simulsa.tentative"]
        assert [(event["audio_ms"], event["chunks"]) for event in events][:2] == [(400, 1), (1600, 3)]
        assert server.metric("simulsa_chunks_merged_total") == 2


def test_a_client_that_is_too_fast_is_made_to_wait() -> None:
    lalm = Gated()
    with running(lalm, STREAM, max_unheard_s=1.0) as server, talking(server) as socket:
        long = np.tile(np.frombuffer(SPEECH, dtype="<i2"), 40).tobytes()  # 77 s
        sending = threading.Thread(target=append, args=(socket, long))
        sending.start()
        until(lambda: server.metric("simulsa_unheard_seconds") > 1)
        time.sleep(0.5)
        assert server.metric("simulsa_unheard_seconds") <= 1.0 + 0.4  # a frame, and what is on its way
        lalm.gate.set()
        sending.join(30)
        assert not sending.is_alive()
        say(socket, "session.close")
        assert transcript(events_until(socket, "session.closed")) == expected(fake(), long, 24_000, STREAM)


def test_offline_sessions_are_not_held_up_by_the_limit_on_unheard_audio() -> None:
    with running(fake(), StreamConfig(chunk_ms=float("inf")), max_unheard_s=0.5) as server, talking(server) as socket:
        append(socket, SPEECH)
        say(socket, "session.close")
        assert transcript(events_until(socket, "session.closed")) == " ".join(TEXT.split()[:7])


@pytest.mark.parametrize("in_front", [2**20, 2**24])  # what lies in front, as Ray's proxy may, lets more through
def test_messages_have_a_limit(in_front: int) -> None:
    with running(fake(), STREAM) as server:
        server.server.config.ws_max_size = in_front
        for path in ("/v1/realtime/translations", "/"):
            with server.connect(path) as socket:
                socket.send("x" * 1_100_000)
                with pytest.raises(ConnectionClosed):
                    list(socket)
                assert socket.close_code == 1009
        until(lambda: server.metric("simulsa_sessions_open") == 0)


@pytest.mark.parametrize(("limits", "reason"), [({"idle_s": 0.4}, "idle"), ({"max_session_s": 0.6}, "expired")])
def test_sessions_end_with_their_final_text(limits: dict[str, float], reason: str) -> None:
    with running(fake(), STREAM, **limits) as server:
        with talking(server) as socket:
            append(socket, SPEECH[:-2_000])
            events = events_until(socket, "session.closed")
            assert events[-2]["error"]["code"] == f"session_{reason}"
            assert transcript(events) == " ".join(TEXT.split()[:7])
        with server.connect("/") as socket:
            socket.send(SPEECH[: 16_000 * 2])
            assert json.loads(list(socket)[-1]) == {"end_of_processing": True}
            assert socket.close_reason == reason
        assert server.metric(f'simulsa_sessions_ended_total{{reason="{reason}"}}') == 2


def test_setting_the_system_clock_ends_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(fake(), STREAM, max_session_s=60.0) as server, talking(server) as socket:
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 24 * 3600)
        say(socket, "unknown")
        assert hear(socket)["error"]["code"] == "unknown_event"
        say(socket, "unknown")
        assert hear(socket)["error"]["code"] == "unknown_event"


def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run([*request, *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl cannot make a certificate here")
    trust = ssl.create_default_context(cafile=str(cert))
    with running(fake(), STREAM, tls_cert=cert, tls_key=key) as server:
        with connect(f"wss://127.0.0.1:{server.port}/", ssl=trust) as socket:
            socket.send(SPEECH)
            socket.send('{"end_of_stream": true}')
            assert json.loads(socket.recv(timeout=20))["deleted"] == ""
        assert httpx2.get(f"https://127.0.0.1:{server.port}/healthz", verify=trust).status_code == 200


def test_what_the_command_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--public" in capsys.readouterr().err
    assert main(["serve", "--api-key-file", str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    with running(fake(), STREAM) as server:
        assert main(["serve", "--model", "tiny-en-de", "--port", str(server.port)]) == 1
    assert "the port is in use" in capsys.readouterr().err


def test_flags_and_a_file_make_the_settings(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text(
        "max-sessions: 3\nchunk_ms: 250\nallow_origins: [https://a.example]\nmax_session_s: .inf\n"
    )
    command = parse(Serve, ["--config", str(tmp_path / "serve.yaml"), "--idle-s", "7", "--no-merge-chunks"], "serve")
    assert command.model.model == "tiny-en-de-simul"
    assert command.stream == StreamConfig(chunk_ms=250)
    origins = ("https://a.example",)
    assert command.serve == ServeConfig(
        max_sessions=3, allow_origins=origins, max_session_s=float("inf"), idle_s=7.0, merge_chunks=False
    )
