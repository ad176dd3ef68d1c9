"""File translation over HTTP, `/v1/audio/translations`: OpenAI's name and fields, plus stream settings.

The response is the text (`response_format` `json`, `text`, `verbose_json`, `srt` or `vtt`) or, with `stream=true`, server-sent
events while the file is translated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from simulsa import strict_json
from simulsa.audio import AudioError, AudioTooLongError, samples_to_ms, samples_to_s
from simulsa.serving.conversation import MODEL_FAILED
from simulsa.serving.service import RefusedError, Service, shutting_down
from simulsa.serving.session import Result, Session
from simulsa.serving.subtitles import joined, pieces_of, srt, vtt
from simulsa.serving.upload import decode_upload
from simulsa.serving.values import from_text
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.state import Update

FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
_IGNORED = {"model", "prompt", "temperature"}  # of OpenAI's fields; there is one model, and it decodes greedily
_HOW = "send the audio as the field `file` of multipart/form-data"
_NO_BUFFER = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the latter for nginx


class _TooLargeError(Exception):
    """The upload has more bytes than are allowed."""


class Translations:
    """The endpoint, as an ASGI application: an upload holds a session from before its first byte to the end of the response."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Translate one file."""
        limits = self._service.config
        received, declared = 0, int(Headers(scope=scope).get("content-length", 0))

        async def receive_within_limits() -> Message:
            nonlocal received
            with anyio.fail_after(limits.idle_s):
                message = await receive()
            received += len(message.get("body", b""))
            if max(received, declared) > limits.max_upload_mib * 2**20:
                raise _TooLargeError(f"the upload is larger than this server's limit of {limits.max_upload_mib} MiB")
            return message

        async def send_in_time(message: Message) -> None:
            with anyio.fail_after(limits.send_timeout_s):
                await send(message)

        request = Request(scope, receive_within_limits)
        if denied := denial(self._service, request):
            await denied(scope, receive, send)
            return
        try:
            with self._service.session("http", live=False) as session:
                response = await self._answer(request, session, receive)
                await response(scope, receive, send_in_time)
        except RefusedError as refusal:
            await error_response(503, str(refusal), refusal.code, {"Retry-After": "5"})(scope, receive, send)
        except (TimeoutError, ClientDisconnect):  # there is nobody left to tell
            pass

    async def _answer(self, request: Request, session: Session, receive: Receive) -> Response:
        try:
            async with request.form(max_files=1, max_fields=50) as form:
                fields = dict(form)
                audio = await _audio(fields.pop("file", None), self._service.config.max_upload_s)
            answer, streamed, config = _options(fields, self._service)
            await self._service.check(config)
        except TimeoutError:
            return error_response(408, f"nothing came for {self._service.config.idle_s:g} s", "timeout")
        except _TooLargeError as error:
            return error_response(413, str(error), "too_large")
        except AudioTooLongError as error:
            return error_response(413, str(error), "too_long")
        except HTTPException as error:
            return error_response(400, f"the form cannot be read: {error.detail.rstrip('.')}; {_HOW}", "invalid_request")
        except ValueError as error:
            return error_response(400, str(error), "invalid_request")
        if session.ended:  # while the file was arriving; from here to `end`, the event loop runs nothing else
            raise shutting_down()
        session.begin(config, len(audio))
        await session.receive(audio)
        session.end("closed")
        if streamed:
            return StreamingResponse(_events(session), media_type="text/event-stream", headers=_NO_BUFFER)
        return await _whole(receive, session, samples_to_s(len(audio)), answer)


def error_response(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> Response:
    """An error in OpenAI's format."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": code, "param": None}}, status, headers)


def denial(service: Service, request: Request) -> Response | None:
    """The answer to a request that is not allowed; `None` if it is."""
    problem = service.gate.problem(request)
    return None if problem is None else error_response(*problem, "not_allowed")


async def _audio(file: Any, max_s: float) -> np.ndarray:
    if not isinstance(file, UploadFile):
        raise ValueError(f"the form has no file; {_HOW}")
    return await anyio.to_thread.run_sync(decode_upload, file.file, file.filename or "file", max_s)


def _options(fields: dict[str, Any], service: Service) -> tuple[str, bool, StreamConfig]:
    """Response format, whether to stream, and the stream settings."""
    values = {name: from_text(value) for name, value in fields.items() if name not in _IGNORED and isinstance(value, str)}
    answer, streamed = values.pop("response_format", "json"), values.pop("stream", False)
    if answer not in FORMATS:
        raise ValueError(f"response_format is {answer!r}; it must be one of {', '.join(FORMATS)}")
    if not isinstance(streamed, bool):
        raise ValueError(f"stream is {streamed!r}; it must be true or false")
    return answer, streamed, service.settings(values, service.stream, "form")


async def _whole(receive: Receive, session: Session, duration_s: float, answer: str) -> Response:
    """The response once everything is translated; stops working if the client disconnects."""
    results: list[Result] = []
    failures: list[Exception] = []

    async def work() -> None:
        try:
            results.extend([result async for result in session.results()])
        except Exception as error:
            failures.append(error)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        while (await receive())["type"] != "http.disconnect":
            pass
        tasks.cancel_scope.cancel()
    if failures:
        message, code, status = _failure(failures[0], session)
        return error_response(status, message, code)
    return _formatted([result.update for result in results], session.config.target_lang, duration_s, answer)


def _formatted(updates: Sequence[Update], target_lang: str, duration_s: float, answer: str) -> Response:
    """The final text in one of the `FORMATS`."""
    text = updates[-1].committed if updates else ""
    pieces = list(pieces_of(updates))
    if answer == "text":
        return PlainTextResponse(text + "\n")
    if answer == "srt":
        return PlainTextResponse(srt(pieces))
    if answer == "vtt":
        return PlainTextResponse(vtt(pieces))
    if answer == "json":
        return JSONResponse({"text": text, **_truncated(updates)})
    segments = [
        {"id": number, "start": round(cue.start_s, 3), "end": round(cue.end_s, 3), "text": cue.text}
        for number, cue in enumerate(joined(pieces))
    ]
    facts = {"task": "translate", "language": target_lang, "duration": round(duration_s, 3)}
    return JSONResponse({**facts, "text": text, "segments": segments, **_truncated(updates)})


def _failure(error: Exception, session: Session) -> tuple[str, str, int]:
    """Message, code and HTTP status for the error that ended a session; any other error is raised."""
    if error is not session.error:
        raise error
    if isinstance(error, AudioError):
        return str(error), "invalid_audio", 400
    return MODEL_FAILED, "model_failed", 500


def _truncated(updates: Sequence[Update]) -> dict[str, bool]:
    """A field for a translation that reached the model's token limit, which its last update says."""
    return {"truncated": True} if updates and updates[-1].truncated else {}


async def _events(session: Session) -> AsyncIterator[str]:
    """Server-sent events with the names of OpenAI's transcriptions."""
    text, last = "", list[Update]()
    try:
        async for result in session.results():
            update = result.update
            text, last = update.committed, [update]
            if update.new:
                elapsed_ms = round(samples_to_ms(update.audio_samples))
                yield _event("transcript.text.delta", delta=update.new, elapsed_ms=elapsed_ms)
        yield _event("transcript.text.done", text=text, **_truncated(last))
        yield "data: [DONE]\n\n"
    except Exception as error:
        message, code, _ = _failure(error, session)
        yield _event("error", error={"message": message, "code": code})


def _event(kind: str, **fields: Any) -> str:
    return f"data: {strict_json.dumps({'type': kind, **fields})}\n\n"
