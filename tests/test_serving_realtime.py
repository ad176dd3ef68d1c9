"""OpenAI's Realtime translation protocol: the text of `Stream`, and answers to everything that is not in the protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulsa.lalm.interface import TOKENS_ONLY, Continuation, LALMError, Want
from simulsa.streaming.config import StreamConfig
from simulsa.testing import FakeLALM, growing_script
from tests.conftest import noise
from tests.servers import (
    TEXT,
    ClientConnection,
    ConnectionClosed,
    Realtime,
    Running,
    ServeConfig,
    Service,
    append,
    events_until,
    expected,
    hear,
    pcm,
    running,
    say,
    talking,
    transcript,
)

STREAM = StreamConfig(chunk_ms=400, rollback=2)
SPEECH = pcm(noise(4.3))  # at 24 kHz: 2.87 s


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(FakeLALM(growing_script(TEXT)), STREAM) as server:
        yield server


@pytest.fixture
def socket(server: Running) -> Iterator[ClientConnection]:
    with talking(server) as socket:
        yield socket


def error_code(socket: ClientConnection) -> str:
    event = hear(socket)
    assert event["type"] == "error"
    assert event["error"]["message"]
    return str(event["error"]["code"])


def still_works(socket: ClientConnection) -> None:
    append(socket, SPEECH)
    say(socket, "session.close")
    assert transcript(events_until(socket, "session.closed")) == expected(FakeLALM(growing_script(TEXT)), SPEECH, 24_000, STREAM)


def test_created_says_what_there_is_and_that_there_is_no_audio(server: Running) -> None:
    with server.connect() as socket:
        session = hear(socket)["session"]
    assert session["type"] == "translation"
    assert session["model"] == "fake"
    assert session["output_modalities"] == ["text"]
    assert session["audio"]["output"] == {"language": "de"}
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    assert session["simulsa"]["output_audio"] is False
    assert session["simulsa"]["chunk_ms"] == 400


@pytest.mark.parametrize("frame", [480, 9_600, 77_778])
def test_the_text_is_that_of_stream_however_the_audio_is_cut(socket: ClientConnection, frame: int) -> None:
    append(socket, SPEECH, frame)
    say(socket, "session.close")
    events = events_until(socket, "session.closed")
    assert transcript(events) == expected(FakeLALM(growing_script(TEXT)), SPEECH, 24_000, STREAM)
    assert {event["type"] for event in events} == {"session.output_transcript.delta", "session.closed"}
    times = [event["elapsed_ms"] for event in events[:-1]]
    assert times == sorted(times)
    assert times[-1] == 2867
    with pytest.raises(ConnectionClosed):
        socket.recv()
    assert socket.close_code == 1000


def test_settings_are_per_session_and_tentative_text_comes_to_those_who_ask(server: Running, socket: ClientConnection) -> None:
    requested = {"tentative": True, "chunk_ms": 200, "rollback": 5, "source_language": "fr"}
    say(socket, "session.update", session={"audio": {"output": {"language": "es"}}, "simulsa": requested})
    session = hear(socket)["session"]
    assert session["audio"]["output"]["language"] == "es"
    assert {name: session["simulsa"][name] for name in requested} == requested
    append(socket, SPEECH)
    say(socket, "session.close")
    events = events_until(socket, "session.closed")
    stream = StreamConfig(target_lang="es", source_lang="fr", chunk_ms=200, rollback=5)
    assert transcript(events) == expected(FakeLALM(growing_script(TEXT)), SPEECH, 24_000, stream)
    shown = [event for event in events if event["type"] == "simulsa.tentative"]
    assert [event["audio_ms"] for event in shown] == [*range(200, 2801, 200), 2867]
    assert any(event["text"] for event in shown[:-1])
    assert shown[-1]["text"] == ""
    assert all(event["lag_ms"] >= 0 and event["compute_ms"] >= 0 and event["chunks"] == 1 for event in shown)
    with server.connect() as other:
        assert hear(other)["session"]["audio"]["output"]["language"] == "de"


def test_offline_in_a_session(socket: ClientConnection) -> None:
    say(socket, "session.update", session={"simulsa": {"chunk_ms": "inf"}})
    assert hear(socket)["session"]["simulsa"]["chunk_ms"] == "inf"
    append(socket, SPEECH)
    say(socket, "session.close")
    assert transcript(events_until(socket, "session.closed")) == " ".join(TEXT.split()[:11])


def test_audio_at_another_rate_for_those_who_ask(socket: ClientConnection) -> None:
    say(socket, "session.update", session={"simulsa": {"sample_rate": 16_000}})
    session = hear(socket)["session"]
    assert session["simulsa"]["sample_rate"] == session["audio"]["input"]["format"]["rate"] == 16_000
    append(socket, SPEECH)
    say(socket, "session.close")
    assert transcript(events_until(socket, "session.closed")) == expected(FakeLALM(growing_script(TEXT)), SPEECH, 16_000, STREAM)


def test_another_language_in_the_middle_ends_what_was_said_before(socket: ClientConnection) -> None:
    append(socket, SPEECH)
    say(socket, "session.update", session={"audio": {"output": {"language": "es"}}})
    append(socket, SPEECH)
    say(socket, "session.close")
    events = events_until(socket, "session.closed")
    once = expected(FakeLALM(growing_script(TEXT)), SPEECH, 24_000, STREAM)
    assert transcript(events) == f"{once} {once}"
    times = [event["elapsed_ms"] for event in events if "elapsed_ms" in event]
    assert times == sorted(times)
    assert times[-1] == 5733


def test_audio_that_is_still_in_the_resampler_when_settings_change_is_not_lost(socket: ClientConnection) -> None:
    append(socket, SPEECH[:1_440])  # 30 ms
    say(socket, "session.update", session={"simulsa": {"tentative": True, "chunk_ms": 200}})
    append(socket, SPEECH)
    say(socket, "session.close")
    events = events_until(socket, "session.closed")
    assert [event["audio_ms"] for event in events if event["type"] == "simulsa.tentative"][-1] == 2867 + 30


def test_close_without_audio(socket: ClientConnection) -> None:
    say(socket, "session.close")
    assert hear(socket)["type"] == "session.closed"
    with pytest.raises(ConnectionClosed):
        socket.recv()
    assert socket.close_code == 1000


def test_audio_after_close_changes_nothing(socket: ClientConnection) -> None:
    append(socket, SPEECH)
    say(socket, "session.close")
    with contextlib.suppress(ConnectionClosed):  # the session may be over before that is sent
        say(socket, "session.close")
        append(socket, SPEECH)
    assert transcript(events_until(socket, "session.closed")) == expected(FakeLALM(growing_script(TEXT)), SPEECH, 24_000, STREAM)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "invalid_json"),
        ("[1, 2]", "invalid_json"),
        ("null", "invalid_json"),
        ('{"type": "other", "event_id": Infinity}', "invalid_json"),
        ('{"type": "session.update", "session": {"simulsa": {"chunk_ms": NaN}}}', "invalid_json"),
        ('{"type": "session.update", "session": {"simulsa": {"rollback": 1e999}}}', "invalid_json"),
        ('{"type": "session.update", "session": {"simulsa": {"rollback": 1%s}}}' % ("0" * 400), "invalid_json"),
        ('{"type": "other", "event_id": "\\ud800"}', "unknown_event"),  # half a character, as JavaScript may send it
        ("[" * 100_000, "invalid_json"),
        (b"\x00\x01", "binary_message"),
        ('{"type": "response.create"}', "unknown_event"),
        ('{"no": "type"}', "unknown_event"),
        ('{"type": ["list"]}', "unknown_event"),
        ('{"type": "session.input_audio_buffer.append"}', "invalid_audio"),
        ('{"type": "session.input_audio_buffer.append", "audio": 7}', "invalid_audio"),
        ('{"type": "session.input_audio_buffer.append", "audio": "%%%"}', "invalid_audio"),
        ('{"type": "session.input_audio_buffer.append", "audio": "AAAA"}', "invalid_audio"),  # 3 bytes
        ('{"type": "session.update", "session": 3}', "invalid_value"),
        ('{"type": "session.update", "session": {"audio": []}}', "invalid_value"),
        ('{"type": "session.update", "session": {"audio": {"output": {"language": "xx"}}}}', "invalid_value"),
        ('{"type": "session.update", "session": {"audio": {"output": {"language": 1}}}}', "invalid_value"),
        ('{"type": "session.update", "session": {"audio": {"input": {"language": "en"}}}}', "unknown_parameter"),
        ('{"type": "session.update", "session": {"audio": {"input": {"format": {"rate": 16000}}}}}', "unsupported_format"),
        ('{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}}', "unsupported_format"),
        ('{"type": "session.update", "session": {"simulsa": {"chunk_ms": 1}}}', "invalid_value"),
        ('{"type": "session.update", "session": {"simulsa": {"chunk_ms": 60}}}', "invalid_value"),  # below the server's
        ('{"type": "session.update", "session": {"simulsa": {"chunk_ms": 1e308}}}', "invalid_value"),
        ('{"type": "session.update", "session": {"simulsa": {"policy": "wait-k:%s"}}}' % ("9" * 400), "invalid_value"),
        ('{"type": "session.update", "session": {"simulsa": {"rollback": -1}}}', "invalid_value"),
        ('{"type": "session.update", "session": {"simulsa": {"rolback": 1}}}', "invalid_value"),
        ('{"type": "session.update", "session": {"simulsa": {"tentative": "yes"}}}', "invalid_value"),
        ('{"type": "session.update", "session": {"simulsa": {"sample_rate": 100}}}', "invalid_value"),
        ('{"type": "session.update", "session": {"simulsa": {"sample_rate": 16000.5}}}', "invalid_value"),
    ],
)
def test_what_cannot_be_followed_gets_an_error_and_the_session_goes_on(
    socket: ClientConnection, message: str | bytes, code: str
) -> None:
    socket.send(message)
    assert error_code(socket) == code
    still_works(socket)


def test_a_policy_that_the_model_cannot_follow_is_refused_before_any_audio() -> None:
    class FourLayers(FakeLALM):
        def continue_(self, heard: Any, prefixes: Any, drafts: Any = None, want: Want = TOKENS_ONLY) -> list[Continuation]:
            if want.heads is not None and (want.heads.layer or 0) > 3:
                raise LALMError(f"fake: layer is {want.heads.layer}; it has layers 0 to 3")
            return super().continue_(heard, prefixes, drafts, want)

    message = "policy is alignatt:8,99,99; fake: layer is 99; it has layers 0 to 3"
    with running(FourLayers(growing_script(TEXT)), STREAM) as server, talking(server) as socket:
        say(socket, "session.update", session={"simulsa": {"policy": "alignatt:8,99,99"}})
        error = hear(socket)["error"]
        assert (error["code"], error["message"]) == ("invalid_value", message)
        say(socket, "session.update", session={"simulsa": {"policy": "alignatt:8,3"}})
        assert hear(socket)["session"]["simulsa"]["policy"] == "alignatt:8,3"
        say(socket, "session.update", session={"simulsa": {"rollback": 2}})
        assert hear(socket)["type"] == "session.updated"
        still_works(socket)
        with server.connect("/") as simulstream:
            simulstream.send(json.dumps({"policy": "alignatt:8,99,99"}))
            assert json.loads(simulstream.recv(timeout=20))["error"] == message
        files = {"file": ("a.wav", httpx2.get(server.url + "/samples/demo-test-000.wav").content)}
        answer = httpx2.post(server.url + "/v1/audio/translations", data={"policy": "alignatt:8,99,99"}, files=files)
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


def test_errors_name_the_event_that_caused_them(socket: ClientConnection) -> None:
    say(socket, "session.input_audio_buffer.append", event_id="mine", audio="?")
    error = hear(socket)["error"]
    assert (error["type"], error["param"], error["event_id"]) == ("invalid_request_error", "audio", "mine")


def test_transcription_and_noise_reduction_are_taken_and_shown_as_absent(socket: ClientConnection) -> None:
    asked = {"transcription": {"model": "any"}, "noise_reduction": {"type": "near_field"}}
    say(socket, "session.update", session={"type": "translation", "audio": {"input": asked, "output": {"language": "de"}}})
    heard = hear(socket)["session"]["audio"]["input"]
    assert heard["transcription"] is None
    assert heard["noise_reduction"] is None
    still_works(socket)


def test_the_client_of_openai() -> None:
    openai = pytest.importorskip("openai", reason="needs the package openai, 2.40 or newer, with websockets")
    if not hasattr(openai.AsyncOpenAI(api_key="any").realtime, "translations"):
        pytest.skip("this openai has no translation sessions")
    from simulsa.lalm.load import load
    from simulsa.serving.samples import clips

    lalm, row = load("tiny-en-de-simul", device="cpu"), next(iter(clips().values()))
    import soxr

    data = pcm(soxr.resample(row.load(), 16_000, 24_000))

    async def translate(port: int) -> tuple[str, list[str]]:
        client = openai.AsyncOpenAI(api_key="secret", base_url=f"http://127.0.0.1:{port}/v1")
        text, kinds = "", []
        async with client.realtime.translations.connect(model="gpt-realtime-translate") as connection:
            await connection.session.update(session={"audio": {"output": {"language": "de"}}})
            for start in range(0, len(data), 9_600):
                audio = base64.b64encode(data[start : start + 9_600]).decode()
                await connection.session.input_audio_buffer.append(audio=audio)
            await connection.session.close()
            async for event in connection:
                kinds.append(event.type)
                if event.type == "session.output_transcript.delta":
                    text += event.delta
                if event.type == "session.closed":
                    return text, kinds
        raise AssertionError("the connection ended before the session")

    with running(lalm, api_key="secret") as server:
        text, kinds = asyncio.run(translate(server.port))
    assert text == expected(lalm, data, 24_000, StreamConfig())
    assert text
    assert kinds[:2] == ["session.created", "session.updated"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["de", "inf", "audio/pcm"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["audio", "input", "output", "format", "language", "rate", "simulsa", "tentative", "chunk_ms", "rollback"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
quiet = Service(FakeLALM(growing_script(TEXT)), ServeConfig(), STREAM)  # serves nobody, since nobody runs it
KINDS = ["session.update", "session.input_audio_buffer.append", "session.close", "other"]


@settings(deadline=None)
@example({"event_id": float("inf")}, "other")
@example({"event_id": [float("nan")]}, "session.update")
@given(st.dictionaries(st.sampled_from(["session", "audio", "event_id"]), values), st.sampled_from(KINDS) | values)
def test_whatever_comes_as_json_is_answered(fields: dict[str, Any], kind: Any) -> None:
    class Recorder:
        sent: list[dict[str, Any]]

        def __init__(self) -> None:
            self.sent = []

        async def send(self, message: dict[str, Any]) -> None:
            json.dumps(message, allow_nan=False)
            self.sent.append(message)

    async def run() -> list[str]:
        recorder = Recorder()
        with quiet.session("realtime") as session:
            await Realtime(recorder, session, quiet).on_message(json.dumps({"type": kind, **fields}))  # type: ignore[arg-type]
            return [message["type"] for message in recorder.sent] or [session.ended]

    assert asyncio.run(run()) in (["error"], ["session.updated"], ["closed"], [""])
