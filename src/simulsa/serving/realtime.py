"""OpenAI's Realtime translation sessions, `/v1/realtime/translations`, with text as the only output.

Message and field names are OpenAI's. Extensions are under `simulsa`: client settings in `session.update` (any field of
`StreamConfig`, `tentative`, and `sample_rate` for audio at another rate than OpenAI's), and the event `simulsa.tentative`, sent
on request.
"""

from __future__ import annotations

import base64
import time
import uuid
from typing import Any

from simulsa import strict_json
from simulsa.audio import samples_to_ms
from simulsa.languages import is_spaced
from simulsa.serving.conversation import GOING_AWAY, NORMAL, Conversation, Socket
from simulsa.serving.pcm import PcmReader
from simulsa.serving.service import Service
from simulsa.serving.session import Result, Session
from simulsa.serving.values import plain

RATE = 24_000  # Hz, in the only format that OpenAI's sessions accept
CLOSE_REASONS = {
    "idle": "the client was idle for too long",
    "expired": "the session has reached its maximum duration",
    "shutting_down": "the server is shutting down",
}


class EventError(ValueError):
    """An invalid event from the client; the session continues."""

    def __init__(self, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class Realtime(Conversation):
    """A client that speaks OpenAI's protocol."""

    name = "realtime"

    def __init__(self, socket: Socket, session: Session, service: Service) -> None:
        super().__init__(socket, session, service)
        self._id = f"sess_{uuid.uuid4().hex}"
        self._expires_at = round(min(time.time() + service.config.max_session_s, 2**53))
        self.pcm = PcmReader(RATE)
        self._tentative = False
        self._before_samples = 0  # heard in earlier utterances
        self._said_something = self._between_speeches = False

    async def greet(self) -> None:
        """Send the session's settings."""
        await self.socket.send(_event("session.created", session=self._description()))

    async def on_message(self, message: str | bytes) -> None:
        """Handle an event, or answer with an `error`."""
        event: Any = None
        try:
            event = _parse(message)
            kind = event.get("type")
            if kind == "session.input_audio_buffer.append":
                await self.session.receive(self.pcm.read(_audio(event)))
            elif kind == "session.update":
                await self._update(event)
            elif kind == "session.close":
                self.session.end("closed")
            else:
                known = "there are session.update, session.input_audio_buffer.append and session.close"
                raise EventError(f"{str(kind)[:40]!r} is not an event of this protocol; {known}", "unknown_event", "type")
        except EventError as error:
            client_id = event.get("event_id") if isinstance(event, dict) else None
            await self.socket.send(self.error(str(error), error.code, param=error.param, client_event_id=client_id))

    async def on_result(self, result: Result) -> None:
        """Send new text and, on request, tentative text."""
        update = result.update
        heard_ms = round(samples_to_ms(self._before_samples + update.audio_samples))
        delta = update.new
        if delta:
            if self._between_speeches and not delta[0].isspace() and is_spaced(self.session.config.target_lang):
                delta = " " + delta
            self._between_speeches = False
            self._said_something = True
            await self.socket.send(_event("session.output_transcript.delta", delta=delta, elapsed_ms=heard_ms))
        if self._tentative:
            await self.socket.send(
                _event(
                    "simulsa.tentative",
                    text=update.tentative,
                    audio_ms=heard_ms,
                    lag_ms=round(result.lag_s * 1000, 1),
                    compute_ms=round(update.compute_s * 1000, 1),
                    chunks=result.chunks,
                    final=update.final,
                    **({"truncated": True} if update.truncated else {}),
                )
            )
        if update.final:
            self._before_samples += update.audio_samples
            self._between_speeches = self._said_something

    async def part(self, reason: str) -> None:
        """Announce that the session is closed, and why if the client did not close it."""
        if reason in CLOSE_REASONS:
            await self.socket.send(self.error(CLOSE_REASONS[reason], f"session_{reason}", "server_error"))
        await self.socket.send(_event("session.closed"))
        await self.socket.close(GOING_AWAY if reason == "shutting_down" else NORMAL, CLOSE_REASONS.get(reason, ""))

    @classmethod
    def error(
        cls,
        message: str,
        code: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        client_event_id: Any = None,
    ) -> dict[str, Any]:
        """OpenAI's error event."""
        error = {"type": kind, "code": code, "message": message, "param": param, "event_id": client_event_id}
        return _event("error", error=error)

    async def _update(self, event: dict[str, Any]) -> None:
        requested = _requested(event)
        try:
            tentative, rate = requested.pop("tentative", self._tentative), requested.pop("sample_rate", self.pcm.rate)
            if not isinstance(tentative, bool):
                raise ValueError(f"tentative is {tentative!r}; it must be true or false")
            if not isinstance(rate, int) or isinstance(rate, bool):
                raise ValueError(f"sample_rate is {rate!r}; it must be a whole number of samples per second")
            pcm = PcmReader(rate)
            stream = self.service.settings(requested, self.session.config, "session.simulsa")
            await self.service.check(stream)
        except ValueError as error:
            raise EventError(str(error), "invalid_value", "session") from error
        self._tentative = tentative
        if stream != self.session.config or rate != self.pcm.rate:
            await self.start_over(stream, pcm)
            if self.session.over:
                return
        await self.socket.send(_event("session.updated", session=self._description()))

    def _description(self) -> dict[str, Any]:
        settings = plain(self.session.config)
        form = {"type": "audio/pcm", "rate": self.pcm.rate}
        return {
            "id": self._id,
            "type": "translation",
            "object": "realtime.translation_session",
            "model": self.service.lalm.name,
            "expires_at": self._expires_at,
            "output_modalities": ["text"],
            "audio": {
                "input": {"format": form, "transcription": None, "noise_reduction": None},
                "output": {"language": self.session.config.target_lang},
            },
            "simulsa": {
                "tentative": self._tentative,
                "sample_rate": self.pcm.rate,
                "source_language": settings.pop("source_lang"),
                "target_language": settings.pop("target_lang"),
                **settings,
                "output_audio": False,
            },
        }


def _event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "event_id": f"event_{uuid.uuid4().hex}", **fields}


def _parse(message: str | bytes) -> dict[str, Any]:
    if isinstance(message, bytes):
        raise EventError("a binary message; audio goes as base64 in session.input_audio_buffer.append", "binary_message")
    try:
        event = strict_json.loads(message)
    except strict_json.JSONError as error:
        raise EventError(f"the message is not JSON ({error})", "invalid_json") from error
    if not isinstance(event, dict):
        raise EventError(f"the message is a {type(event).__name__}; a JSON object is needed", "invalid_json")
    return event


def _audio(event: dict[str, Any]) -> bytes:
    audio = event.get("audio")
    try:
        if not isinstance(audio, str):
            raise ValueError(f"it is {str(audio)[:40]!r}")
        data = base64.b64decode(audio, validate=True)
        if len(data) % 2:
            raise ValueError(f"{len(data)} bytes are not a whole number of samples")
        return data
    except ValueError as error:
        raise EventError(f"audio must be base64 of 16-bit mono PCM ({error})", "invalid_audio", "audio") from error


def _object(holder: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    value = holder.get(name)
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise EventError(f"{path} is {str(value)[:40]!r}; it must be an object", "invalid_value", path)
    return value


def _requested(event: dict[str, Any]) -> dict[str, Any]:
    """Settings requested by a `session.update`, under the names of `Service.settings`, `tentative` and `sample_rate`."""
    wanted = _object(event, "session", "session")
    audio = _object(wanted, "audio", "session.audio")
    heard, said = _object(audio, "input", "session.audio.input"), _object(audio, "output", "session.audio.output")
    form = _object(heard, "format", "session.audio.input.format")
    if form and (form.get("type", "audio/pcm"), form.get("rate", RATE)) != ("audio/pcm", RATE):
        message = f"the format {str(form)[:80]} is not supported; only audio/pcm at {RATE} Hz is"
        raise EventError(message, "unsupported_format", "session.audio.input.format")
    if "language" in heard:
        message = "the source language goes to session.simulsa.source_language"
        raise EventError(message, "unknown_parameter", "session.audio.input.language")
    requested = dict(_object(wanted, "simulsa", "session.simulsa"))
    if "language" in said:
        requested["target_lang"] = said["language"]
    return requested
