"""Two replicas on a local Ray: both are used through Ray's proxy, and one that is killed takes nobody along."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from simulsa.audio import SAMPLE_RATE
from simulsa.integrations.ray_serve import PATIENCE, ReplicasConfig, app, served
from simulsa.lalm.interface import LALM
from simulsa.serving.client import RemoteError, translate_remote
from simulsa.serving.config import ServeConfig
from simulsa.settings import SettingsError
from simulsa.streaming.config import StreamConfig
from simulsa.testing import FakeLALM
from tests.conftest import noise
from tests.servers import InvalidStatus, connect, until

STREAM = StreamConfig(chunk_ms=200, rollback=0)
KEY = "secret"


@dataclasses.dataclass(frozen=True)
class Load:
    """A model whose translation is the number of its process, once per half second of speech."""

    def __call__(self) -> LALM:
        return FakeLALM(lambda audio: f"{os.getpid()} " * (2 * len(audio) // SAMPLE_RATE))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="needs simulsa[ray]")
    pytest.importorskip("ray.serve", reason="needs simulsa[ray]")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in PATIENCE.items():
            environment.setenv(name, value)
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def running(cluster: None) -> Iterator[tuple[str, contextlib.ExitStack]]:
    """The address, and what stops the service."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            served(Load(), ServeConfig(port=port, api_key=KEY, longform=False), STREAM, ReplicasConfig("local", replicas=2))
        )
        yield f"http://127.0.0.1:{port}", stack


@pytest.fixture
def url(running: tuple[str, contextlib.ExitStack]) -> str:
    return running[0]


class Speaker:
    """A session with a speaker who goes on until told to stop."""

    def __init__(self, url: str) -> None:
        self._stop = threading.Event()
        self._updates = translate_remote(url, self._speak(), STREAM, KEY)
        self.text, self.final = "", False
        while not self.text:  # which replica it is
            self.text = next(self._updates).committed
        self.replica = int(self.text.split()[0])

    def _speak(self) -> Iterator[np.ndarray]:
        while not self._stop.wait(0.02):
            yield noise(0.1)

    def stop(self) -> str:
        """The final text; raises what went wrong."""
        self._stop.set()
        self.listen()
        assert self.final
        return self.text

    def listen(self) -> None:
        """Take the translation to its end."""
        for update in self._updates:
            self.text, self.final = update.committed, update.final

    def close(self) -> None:
        self._stop.set()
        self._updates.close()  # type: ignore[attr-defined]


def a_speaker(stack: contextlib.ExitStack, url: str) -> Speaker:
    """A speaker at any replica, as soon as Ray has noticed which are alive."""
    found: list[Speaker] = []

    def connected() -> bool:
        with contextlib.suppress(RemoteError):
            found.append(Speaker(url))
        return bool(found)

    until(connected, 30)
    stack.callback(found[0].close)
    return found[0]


def two_speakers(stack: contextlib.ExitStack, url: str) -> tuple[Speaker, Speaker]:
    """Speakers at different replicas."""
    one, other = a_speaker(stack, url), a_speaker(stack, url)
    while one.replica == other.replica:
        other = a_speaker(stack, url)
    return one, other


def post(url: str, **fields: str) -> bytes:
    """An upload of 2 s of speech."""
    import io

    import soundfile

    wav, mark = io.BytesIO(), uuid.uuid4().hex
    soundfile.write(wav, noise(2), SAMPLE_RATE, format="WAV")
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts.append(b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + wav.getvalue())
    body = b"".join(b"--" + mark.encode() + b"\r\n" + part + b"\r\n" for part in parts) + f"--{mark}--\r\n".encode()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": f"multipart/form-data; boundary={mark}"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/audio/translations", body, headers), timeout=30) as answer:
        return bytes(answer.read())


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_both_replicas_serve_and_one_that_is_killed_takes_nobody_along(url: str) -> None:
    with contextlib.ExitStack() as stack:
        killed, other = two_speakers(stack, url)
        os.kill(killed.replica, signal.SIGKILL)
        with pytest.raises(RemoteError, match="was lost"):
            killed.stop()
        later = a_speaker(stack, url)
        assert later.replica != killed.replica
        for speaker in (other, later):
            assert set(speaker.stop().split()) == {str(speaker.replica)}


def test_files_over_http(url: str) -> None:
    text = json.loads(post(url))["text"]
    pid = text.split()[0]
    assert text == f"{pid} " * 4
    lines = post(url, stream="true").decode().split("\n\n")
    assert json.loads(lines[-3].removeprefix("data: "))["type"] == "transcript.text.done"
    assert lines[-2:] == ["data: [DONE]", ""]


def test_the_page_the_gate_and_the_state(url: str) -> None:
    assert get(f"{url}/healthz") == (200, b'{"status":"ok"}')
    assert get(f"{url}/readyz") == (200, b'{"status":"ready"}')
    status, page = get(url + "/")
    assert status == 200
    assert b"<html" in page
    assert get(f"{url}/metrics")[0] == 401
    with pytest.raises(RemoteError, match="401"):
        list(translate_remote(url, [noise(1)], STREAM, "wrong"))
    with pytest.raises(InvalidStatus), connect(f"ws{url[4:]}/nowhere"):
        pass


def test_at_the_end_sessions_get_their_final_text(running: tuple[str, contextlib.ExitStack]) -> None:
    url, service = running
    with contextlib.ExitStack() as stack:
        speaker = a_speaker(stack, url)
        stopping = threading.Thread(target=service.close)
        stopping.start()
        with pytest.raises(RemoteError, match="session_shutting_down"):
            speaker.listen()
        assert speaker.final
        stopping.join()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replicas": 0}, "replicas is 0; it must be a whole number, 1 or more"),
        ({"replicas": 4, "max_replicas": 2}, "max_replicas is 2; it must be 0 or at least replicas, 4"),
        ({"cpus_per_replica": 0}, "cpus_per_replica is 0; it must be more than 0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReplicasConfig(**settings)


def test_a_port_is_needed() -> None:
    with pytest.raises(ValueError, match="port is 0"), served(Load(), ServeConfig(port=0), STREAM, ReplicasConfig("local")):
        pass


def test_the_builder_of_serve_run() -> None:
    pytest.importorskip("ray.serve", reason="needs simulsa[ray]")
    built = app({"model": "tiny-en-de", "max-replicas": "5", "chunk-ms": "300", "api_key": KEY, "host": "0.0.0.0"})
    deployment = built._bound_deployment
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 5, 8)
    load, config, stream = deployment.init_args
    assert load.__self__.model == "tiny-en-de"
    assert (config.api_key, stream.chunk_ms) == (KEY, 300)
    with pytest.raises(SettingsError, match="unknown argument 'modle'"):
        app({"modle": "x"})
    with pytest.raises(SettingsError, match="rollback is -1"):
        app({"rollback": "-1"})


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray.serve", None)
    with pytest.raises(RuntimeError, match=r"pip install 'simulsa\[ray\]'"):
        app({"device": "cpu"})
