"""Speech that is longer than the model hears at once, through the server, as `Stream` translates it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
import soundfile

from simulsa.audio import SAMPLE_RATE
from simulsa.demo.speech import DATA
from simulsa.lalm.load import load
from simulsa.manifest import read_manifest
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.stream import Stream
from tests.servers import Running, append, events_until, pcm, running, say, talking, transcript

STREAM = StreamConfig(chunk_ms=800, rollback=3)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(load("tiny-en-de-simul"), STREAM, longform=True) as server:
        yield server


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [row.load() for row in read_manifest(DATA / "test.jsonl")[:3]]


@pytest.fixture(scope="module")
def talk(clips: list[np.ndarray]) -> np.ndarray:
    """Three clips with pauses of a second and a half."""
    pause = np.zeros(SAMPLE_RATE * 3 // 2, dtype=np.float32)
    return np.concatenate([piece for clip in clips for piece in (clip, pause)])


def post(server: Running, audio: np.ndarray) -> Any:
    file = io.BytesIO()
    soundfile.write(file, audio, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    answer = httpx2.post(server.url + "/v1/audio/translations", files={"file": ("a.wav", file.getvalue())}, timeout=60)
    return answer.json(), soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0]


def followed(server: Running, audio: np.ndarray) -> str:
    stream = Stream(server.service.lalm, STREAM, SegmentationConfig())
    stream.push(audio)
    return stream.finish()[-1].committed


def test_a_long_file(server: Running, talk: np.ndarray) -> None:
    assert len(talk) > server.service.lalm.max_samples
    answer, heard = post(server, talk)
    assert answer == {"text": followed(server, heard)}
    assert answer["text"].count(".") == 3


def test_a_file_that_the_model_hears_at_once_is_one_utterance(server: Running, clips: list[np.ndarray]) -> None:
    answer, heard = post(server, clips[0])
    stream = Stream(server.service.lalm, STREAM, SegmentationConfig())
    stream.push(heard)
    assert answer == {"text": stream.finish()[-1].committed}


def test_a_live_session_goes_on_behind_a_pause(server: Running, talk: np.ndarray) -> None:
    data = pcm(talk)
    heard = np.frombuffer(data, dtype="<i2").astype(np.float32) / 32_768
    with talking(server) as socket:
        say(socket, "session.update", session={"simulsa": {"sample_rate": SAMPLE_RATE}})
        append(socket, data)
        say(socket, "session.close")
        assert transcript(events_until(socket, "session.closed")) == followed(server, heard)


def test_without_it_a_session_ends_with_the_window(talk: np.ndarray) -> None:
    with running(load("tiny-en-de-simul"), STREAM) as server:
        answer, _ = post(server, talk)
    assert answer["error"]["code"] == "invalid_audio"
    assert "the model hears at most 10.00 s" in answer["error"]["message"]
