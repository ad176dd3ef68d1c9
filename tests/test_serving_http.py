"""Files over HTTP, and what else the server answers to requests."""

from __future__ import annotations

import io
import itertools
import json
import socket
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import soundfile

from simulsa.audio import load_audio
from simulsa.serving.subtitles import Cue, joined, pieces_of, srt, vtt
from simulsa.serving.upload import decode_upload
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.state import Segment, Update
from simulsa.streaming.stream import Stream
from simulsa.testing import FakeLALM, FakeVAD, growing_script
from tests.conftest import noise
from tests.servers import TEXT, Running, running, until
from tests.subtitles import parse_srt, parse_vtt

STREAM = StreamConfig(chunk_ms=400, rollback=2)
SPEECH = noise(2.9)
PATH = "/v1/audio/translations"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(FakeLALM(growing_script(TEXT), max_samples=16_000 * 20), STREAM, max_upload_mib=1) as server:
        yield server


def file_of(audio: np.ndarray, rate: int = 16_000, form: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio, rate, format=form)
    return file.getvalue()


def post(server: Running, data: bytes = file_of(SPEECH), name: str = "speech.wav", **fields: Any) -> httpx2.Response:
    return httpx2.post(server.url + PATH, files={"file": (name, data)}, data=fields, timeout=30)


def reference(stream: StreamConfig = STREAM) -> str:
    here = Stream(FakeLALM(growing_script(TEXT)), stream)
    here.push(soundfile.read(io.BytesIO(file_of(SPEECH)), dtype="float32")[0])
    return here.finish()[-1].committed


def test_a_recording_longer_than_a_segment_is_followed_in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulsa.streaming.state.SileroVAD", FakeVAD)
    pause = np.zeros(24_000, dtype=np.float32)
    spoken = np.concatenate([piece for _ in range(5) for piece in (noise(2.0), pause)])
    with running(FakeLALM(growing_script(TEXT), max_samples=16_000 * 300), STREAM, longform=True) as server:
        texts = [post(server, file_of(audio)).json()["text"] for audio in (spoken, np.tile(spoken, 2))]
    assert [text.count("Ein Mann in") for text in texts] == [1, 10]


def test_who_gets_a_truncated_translation_is_told() -> None:
    with running(FakeLALM(growing_script(TEXT), max_target_tokens=9), STREAM) as server:
        assert post(server).json() == {"text": TEXT[:9], "truncated": True}
        assert post(server, response_format="verbose_json").json()["truncated"] is True
        events = [json.loads(line[6:]) for line in post(server, stream="true").text.split("\n\n") if line.startswith("data: {")]
        assert events[-1] == {"type": "transcript.text.done", "text": TEXT[:9], "truncated": True}


def test_json_and_text(server: Running) -> None:
    assert post(server, model="whisper-1", prompt="ignored", temperature="0").json() == {"text": reference()}
    answer = post(server, response_format="text")
    assert answer.text == reference() + "\n"
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_formats_of_audio(server: Running, form: str) -> None:
    audio = np.stack([SPEECH, SPEECH], axis=1)
    assert post(server, file_of(audio, 22_050, form), f"speech.{form.lower()}").json()["text"].startswith("Ein Mann in einem")


def test_verbose_json_says_when_what_was_committed(server: Running) -> None:
    answer = post(server, response_format="verbose_json").json()
    assert (answer["task"], answer["language"], answer["duration"]) == ("translate", "de", 2.9)
    assert "".join(segment["text"] for segment in answer["segments"]) == answer["text"] == reference()
    times = [time for segment in answer["segments"] for time in (segment["start"], segment["end"])]
    assert times == sorted(times)
    assert times[-1] == 2.9
    assert len(answer["segments"]) == 1, "less than two lines"


def test_subtitles(server: Running) -> None:
    answer = post(server, response_format="srt", rollback="0")
    assert answer.text.split("\n\n")[0].split("\n") == [
        "1",
        "00:00:00,000 --> 00:00:02,800",
        "Ein Mann in einem roten Hemd",
        "fährt auf einem alten Fahrrad",
    ]
    assert parse_vtt(post(server, response_format="vtt", rollback="0").text) == parse_srt(answer.text)


def test_subtitles_of_hard_text() -> None:
    pieces = [
        Cue(0.0, 0.4, "Ja."),
        Cue(0.4, 20.0, " A <b> & c"),
        Cue(20.0, 24.0, " wort" * 40),
        Cue(24.0, 24.0, "字" * 100, opens=True),
        Cue(24.0, 3725.0405, "\n"),
        Cue(3725.0405, 3725.0405, " Und\n\nso.»", opens=True),
        Cue(3725.0405, 3726.0, ", ja"),
    ]
    cues = parse_srt(srt(pieces))
    assert cues == parse_vtt(vtt(pieces))
    assert cues[:2] == [(0, 1000, "Ja."), (13_000, 20_000, "A <b> & c")]
    assert "A &lt;b&gt; &amp; c" in vtt(pieces)
    assert " ".join(text for _, _, text in cues[2:-4]) == " ".join(["wort"] * 40)
    assert [text for _, _, text in cues[-4:-2]] == ["字" * 84, "字" * 16]
    assert cues[-2:] == [(3_725_040, 3_726_040, "Und so.»"), (3_726_040, 3_727_040, ", ja")]
    assert all(len(text) <= 84 for _, _, text in cues)
    assert all(end <= start for (_, end, _), (start, _, _) in itertools.pairwise(cues))
    assert "".join(cue.text for cue in joined(pieces)) == "".join(piece.text for piece in pieces)
    assert (srt([]), vtt([])) == ("", "WEBVTT\n\n")


def test_a_segment_opens_a_cue_that_does_not_begin_before_it() -> None:
    def update(new: str, end_s: float, index: int, start_s: float) -> Update:
        segment = Segment(index, round(start_s * 16_000), round(end_s * 16_000), "", False)
        return Update("", "", round(end_s * 16_000), 0.0, False, new, segment)

    updates = [update("Ein", 1.0, 0, 0.2), update("", 1.5, 0, 0.2), update(" Mann", 2.0, 0, 0.2), update(" Zwei", 5.0, 1, 4.0)]
    last = Update("Ein Mann Zwei", "", 96_000, 0.0, final=True)
    assert [(cue.start_s, cue.end_s, cue.text) for cue in joined(pieces_of([*updates, last]))] == [
        (0.2, 2.0, "Ein Mann"),
        (4.0, 5.0, " Zwei"),
    ]


def test_settings_in_the_form(server: Running) -> None:
    text = post(server, chunk_ms="inf", rollback="0", target_language="es", source_lang="fr").json()["text"]
    assert text == reference(StreamConfig(chunk_ms=float("inf")))


def test_server_sent_events(server: Running) -> None:
    answer = post(server, stream="true", rollback="0")
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n") if line]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    text = reference(StreamConfig(chunk_ms=400, rollback=0))
    assert "".join(event["delta"] for event in events if event["type"] == "transcript.text.delta") == text
    assert events[-1] == {"type": "transcript.text.done", "text": text}
    assert [event["elapsed_ms"] for event in events[:-1]] == [400, 800, 1200, 1600, 2000, 2400, 2800]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"response_format": "srtt"}, "response_format"),
        ({"stream": "perhaps"}, "stream"),
        ({"chunk_ms": "7"}, "chunk_ms"),
        ({"chunk_ms": "1e308"}, "chunk_ms is 1e+308; it must be at most 86400000 (a day), or inf"),
        ({"rollback": "many"}, "rollback"),
        ({"target_language": "xx"}, "xx"),
        ({"rolback": "1"}, "did you mean 'rollback'"),
    ],
)
def test_fields_that_cannot_be_followed(server: Running, fields: dict[str, str], words: str) -> None:
    answer = post(server, **fields)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_files_that_cannot_be_used(server: Running) -> None:
    broken = post(server, b"no audio", "talk.wav")
    assert broken.status_code == 400
    assert "talk.wav" in broken.json()["error"]["message"]
    assert "/tmp" not in broken.text
    empty = post(server, file_of(np.zeros(0)))
    assert empty.status_code == 400
    nothing = httpx2.post(server.url + PATH, data={"model": "any"})
    assert nothing.status_code == 400
    assert "`file`" in nothing.json()["error"]["message"]
    no_form = httpx2.post(server.url + PATH, content=b"{")
    assert no_form.status_code == 400
    for content_type in ("multipart/form-data; boundary=a", "multipart/form-data"):
        garbled = httpx2.post(server.url + PATH, content=b"x", headers={"Content-Type": content_type})
        assert garbled.status_code == 400
        assert garbled.json()["error"]["code"] == "invalid_request"
        assert "multipart/form-data" in garbled.json()["error"]["message"]


def test_longer_than_the_model_hears(server: Running) -> None:
    long = file_of(np.zeros(16_000 * 21), form="FLAC")
    answer = post(server, long)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_audio"
    assert '"code": "invalid_audio"' in post(server, long, stream="true").text


def test_uploads_have_a_limit(server: Running) -> None:
    too_large = post(server, b"x" * 2**21)
    assert too_large.status_code == 413
    assert too_large.json()["error"]["code"] == "too_large"
    assert "1 MiB" in too_large.json()["error"]["message"]
    head = b'--a\r\nContent-Disposition: form-data; name="file"; filename="talk.wav"\r\n\r\n'
    chunks = itertools.chain([head], itertools.repeat(b"x" * 2**16, 32))  # of a length that is not declared
    undeclared = httpx2.post(server.url + PATH, content=chunks, headers={"Content-Type": "multipart/form-data; boundary=a"})
    assert undeclared.status_code == 413
    assert undeclared.json() == too_large.json()
    assert post(server).status_code == 200


def test_uploads_have_a_limit_in_seconds_however_few_bytes_they_are() -> None:
    ten_minutes = file_of(np.zeros(16_000 * 600), form="FLAC")
    assert len(ten_minutes) < 200_000
    with running(FakeLALM(growing_script(TEXT)), STREAM, max_upload_s=3.0) as server:
        for stream in ("false", "true"):
            answer = post(server, ten_minutes, "talk.flac", stream=stream)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "too_long"
            assert "talk.flac lasts 600.0 s" in answer.json()["error"]["message"]
            assert "up to 3 s" in answer.json()["error"]["message"]
        assert post(server).json() == {"text": reference()}  # 2.9 s
        assert server.metric("simulsa_sessions_open") == 0


def test_an_upload_takes_memory_for_its_seconds_not_for_its_channels(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "wide.flac", "w", 96_000, 8) as wide:
        for _ in range(20):
            wide.write(np.zeros((96_000, 8), dtype=np.float32))  # 20 s: 61 MB decoded, 1.3 MB heard
    tracemalloc.start()
    try:
        with open(tmp_path / "wide.flac", "rb") as file:
            assert len(decode_upload(file, "wide.flac", 60.0)) == 20 * 16_000
        assert tracemalloc.get_traced_memory()[1] < 12e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("rate", "channels", "form"), [(44_100, 2, "WAV"), (22_050, 1, "FLAC"), (48_000, 2, "OGG"), (44_100, 2, "MP3")]
)
def test_an_upload_is_decoded_as_a_file_is_loaded(tmp_path: Path, rate: int, channels: int, form: str) -> None:
    data = file_of(np.stack([noise(20.3)] * channels, axis=1)[: rate * 7 + 1], rate, form)
    (tmp_path / "a").write_bytes(data)
    assert np.array_equal(decode_upload(io.BytesIO(data), "a", 60.0), load_audio(tmp_path / "a"))


def test_concatenated_flac_files_are_refused(server: Running) -> None:
    answer = post(server, 2 * file_of(SPEECH, form="FLAC"), "both.flac")
    assert answer.status_code == 400
    assert "both.flac: several concatenated FLAC files" in answer.json()["error"]["message"]


def test_a_client_that_leaves_is_not_translated_for(server: Running) -> None:
    begun = server.metric('simulsa_sessions_total{protocol="http"}')
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"POST /v1/audio/translations HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n")
        raw.sendall(b"Content-Length: 9999\r\n\r\n--b\r\n")
        until(lambda: server.metric('simulsa_sessions_total{protocol="http"}') == begun + 1)
    until(lambda: server.metric("simulsa_sessions_open") == 0)


def test_health_models_and_metrics(server: Running) -> None:
    assert httpx2.get(server.url + "/healthz").json() == {"status": "ok"}
    assert httpx2.get(server.url + "/readyz").json() == {"status": "ready"}
    assert httpx2.get(server.url + "/v1/models").json()["data"][0]["id"] == "fake"
    post(server)
    metrics = httpx2.get(server.url + "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    for name in ("sessions_open", "sessions_total", "step_seconds_bucket", "unheard_seconds", "lag_seconds", "batch_size_sum"):
        assert f"simulsa_{name}" in metrics.text


def test_the_page_and_the_samples(server: Running) -> None:
    page = httpx2.get(server.url + "/")
    assert page.headers["content-type"].startswith("text/html")
    samples = httpx2.get(server.url + "/samples").json()
    assert len(samples) == 120
    assert {"id", "url", "duration_s", "text", "reference"} <= samples[0].keys()
    wav = httpx2.get(f"{server.url}/{samples[0]['url']}")
    audio, rate = soundfile.read(io.BytesIO(wav.content))
    assert rate == 16_000
    assert len(audio) == round(samples[0]["duration_s"] * rate)
    assert httpx2.get(server.url + "/samples/none.wav").status_code == 404
    assert httpx2.get(server.url + "/nothing").status_code == 404
    assert httpx2.get(server.url + "/%2e%2e/config.py").status_code == 404


def test_the_client_of_openai(server: Running, tmp_path: Path) -> None:
    openai = pytest.importorskip("openai", reason="needs the package openai")
    soundfile.write(tmp_path / "speech.wav", SPEECH, 16_000)
    client = openai.OpenAI(api_key="any", base_url=server.url + "/v1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        answer = client.audio.translations.create(model="whisper-1", file=tmp_path / "speech.wav")
    assert answer.text == reference()
    assert [model.id for model in client.models.list()] == ["fake"]
