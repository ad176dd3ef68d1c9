"""A client of the server: audio in, updates out, over OpenAI's Realtime translation protocol."""

from __future__ import annotations

import base64
import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from simulsa import strict_json
from simulsa.audio import SAMPLE_RATE, AudioError, check_samples, ms_to_samples
from simulsa.extras import optional
from simulsa.serving.config import read_keys
from simulsa.serving.pcm import write_pcm
from simulsa.serving.values import plain
from simulsa.settings import address_parts
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.state import Update

ENDPOINT = "/v1/realtime/translations"
FRAME_SAMPLES = SAMPLE_RATE // 5  # 200 ms, as the protocol advises
REMEDIES = {401: "give the key with --api-key-file", 502: "is the server behind it running?", 503: "try again later"}
GREETING_S = 30.0  # a server of this protocol speaks first
SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}

_silent = logging.getLogger("simulsa.websockets")  # the library logs, with a traceback, errors that it raises as well
_silent.disabled = True


class RemoteError(RuntimeError):
    """The server cannot be reached, rejected the client, or disconnected; what it committed before that remains valid."""


@dataclass(frozen=True)
class RemoteConfig:
    """Server to use instead of a local model."""

    url: str = ""
    """server to translate on (ws://HOST:PORT, or wss, http, https; see `simulsa serve`); empty: a local model"""
    api_key: str = ""
    """the server's API key (visible to others in the process list: prefer --api-key-file)"""
    api_key_file: Path | None = None
    """file whose first line is the API key"""

    def __post_init__(self) -> None:
        if self.url:
            endpoint(self.url)

    def key(self) -> str:
        """The key to send, or an empty string. Raises `ValueError` for a key file that is missing or empty."""
        return self.api_key or (read_keys(self.api_key_file)[0] if self.api_key_file else "")


def endpoint(url: str) -> str:
    """The WebSocket address for a server's address. Raises `ValueError` if `url` is not such an address."""
    parts = address_parts("url", url, list(SCHEMES))
    prefix = parts.path.rstrip("/").removesuffix(ENDPOINT).removesuffix("/v1")  # the latter as in OpenAI's base URLs
    return urlunsplit((SCHEMES[parts.scheme], parts.netloc, prefix + ENDPOINT, parts.query, ""))


def translate_remote(
    url: str, chunks: Iterable[np.ndarray], config: StreamConfig | None = None, api_key: str = ""
) -> Iterator[Update]:
    """Translate speech on a server as it arrives.

    >>> for update in translate_remote("ws://127.0.0.1:8000", chunks, StreamConfig(target_lang="de")):
    ...     print(update.committed, update.tentative)

    `chunks` are float32 mono audio at `SAMPLE_RATE`, of any length. They are read in a separate thread, as fast as they arrive
    and the server accepts them. Without `config`, the server's settings apply. Raises `RemoteError`, `AudioError` for audio
    that cannot be sent, and whatever `chunks` raises.
    """
    with _connected(url, api_key) as socket:
        events = _events(socket)
        _expect(events, "session.created")
        requested = {**({} if config is None else plain(config)), "tentative": True, "sample_rate": SAMPLE_RATE}
        _send(socket, "session.update", session={"simulsa": requested})
        _expect(events, "session.updated")
        sender = _Sender(socket, chunks)
        sender.start()
        try:
            yield from _updates(events)
        except RemoteError:
            if sender.error is None:
                raise
        finally:
            sender.leave()
        if sender.error is not None:
            raise sender.error


class _Sender(threading.Thread):
    """Sends the audio, then closes the session; `error` is what prevented that, unless it was the connection."""

    def __init__(self, socket: Any, chunks: Iterable[np.ndarray]) -> None:
        super().__init__(name="simulsa-audio", daemon=True)  # a source may wait for sound for ever
        self.error: Exception | None = None
        self._socket = socket
        self._chunks = chunks
        self._left = False

    def leave(self) -> None:
        """Stop sending."""
        self._left = True

    def run(self) -> None:
        try:
            self._send_all()
            _send(self._socket, "session.close")
        except Exception as error:
            self.error = error
            self._socket.close()  # wakes the receiver

    def _send_all(self) -> None:
        empty = True
        for chunk in self._chunks:
            if self._left:
                return
            samples = check_samples(chunk, "a chunk of the source") if len(chunk) else chunk
            for start in range(0, len(samples), FRAME_SAMPLES):
                audio = base64.b64encode(write_pcm(samples[start : start + FRAME_SAMPLES])).decode()
                _send(self._socket, "session.input_audio_buffer.append", audio=audio)
                empty = False
        if empty:
            raise AudioError("the speech ended with no audio (0 samples)")


@contextlib.contextmanager
def _connected(url: str, api_key: str) -> Iterator[Any]:
    """A connection to the server, closed at the end of the block. Raises `RemoteError` if it cannot be made."""
    optional("websockets", "client", "a server's client")
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.sync.client import connect

    address = endpoint(url)
    place = urlsplit(url)._replace(query="").geturl()  # there may be a key in the query
    with contextlib.ExitStack() as stack:
        try:
            socket = stack.enter_context(
                connect(
                    address,
                    logger=_silent,
                    compression=None,  # it does not make speech smaller
                    additional_headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
                    ping_timeout=None,  # a server that lags behind our audio reads our pings late
                    open_timeout=30,  # a busy server may take a while
                    close_timeout=2,
                )
            )
        except InvalidStatus as error:
            status, reason = error.response.status_code, (error.response.body or b"").decode(errors="replace").strip()
            remedy = REMEDIES.get(status, "check the address")
            raise RemoteError(f"{place}: the server says {status} ({reason[:200]}); {remedy}") from error
        except InvalidHandshake as error:
            raise RemoteError(f"{place}: not a WebSocket server ({error}); check the address") from error
        except OSError as error:  # including name resolution, TLS and timeouts
            raise RemoteError(f"{place}: cannot be reached ({error}); check the address, and that the server runs") from error
        yield socket


def _events(socket: Any) -> Iterator[dict[str, Any]]:
    """The server's events until it closes the session. Raises `RemoteError` for its errors, and if the connection is lost."""
    from websockets.exceptions import ConnectionClosed

    timeout_s: float | None = GREETING_S
    while True:
        try:
            event = strict_json.loads(socket.recv(timeout_s))
        except TimeoutError as error:
            raise RemoteError(
                f"the server has sent nothing for {GREETING_S:g} s; is it a simulsa server? check the address"
            ) from error
        except strict_json.JSONError as error:
            raise RemoteError(f"the server sent a message that is not JSON ({error}); is it another version?") from error
        except ConnectionClosed as error:
            raise RemoteError(f"the connection to the server was lost ({error}); committed text is kept") from error
        timeout_s = None
        if not isinstance(event, dict) or "type" not in event:
            raise RemoteError(
                f"the server sent {str(event)[:40]!r}, which is no event; is it a simulsa server? check the address"
            )
        if event["type"] == "error":
            raise RemoteError(f"the server says {event['error']['code']}: {event['error']['message']}")
        yield event
        if event["type"] == "session.closed":
            return


def _expect(events: Iterator[dict[str, Any]], kind: str) -> None:
    event = next(events)
    if event["type"] != kind:
        raise RemoteError(f"the server says {event['type']!r} where {kind!r} was expected; is it another version?")


def _updates(events: Iterable[dict[str, Any]]) -> Iterator[Update]:
    committed = shown = ""
    for event in events:
        if event["type"] == "session.output_transcript.delta":
            committed += event["delta"]
        elif event["type"] == "simulsa.tentative":
            heard, compute_s = ms_to_samples(event["audio_ms"]), event["compute_ms"] / 1000
            truncated = event.get("truncated", False)
            new, shown = committed[len(shown) :], committed
            yield Update(committed, event["text"], heard, compute_s, event["final"], new, truncated=truncated)


def _send(socket: Any, kind: str, **fields: Any) -> None:
    from websockets.exceptions import ConnectionClosed

    with contextlib.suppress(ConnectionClosed):  # the receiver is told why
        socket.send(strict_json.dumps({"type": kind, **fields}))
