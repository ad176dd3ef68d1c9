"""Files over HTTP, `/v1/audio/translations`: OpenAI's name and fields, with the settings of a stream beside them.

The answer is the text (`response_format` `json`, `text` or `verbose_json`), or with `stream=true` server-sent events while the
file is translated.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from simulsa.audio import AudioError, load_audio, samples_to_ms, samples_to_s
from simulsa.serving.service import RefusedError, Service
from simulsa.serving.session import Result, Session
from simulsa.serving.values import from_text
from simulsa.streaming.state import StreamConfig

FORMATS = ("json", "text", "verbose_json")
_IGNORED = {"model", "prompt", "temperature"}  # of OpenAI's fields; there is one model, and it is greedy
SHUTTING_DOWN = "shutting_down"


async def translate(request: Request, service: Service) -> Response:
    """Translate one file."""
    problem = service.gate.problem(request)
    if problem is not None:
        return error_response(problem[0], problem[1], "not_allowed")
    refusal = service.refusal()
    if refusal is not None:  # said before the file is sent, not after
        return _refused(refusal)
    try:
        with anyio.fail_after(service.config.max_session_s):
            async with request.form(max_files=1, max_fields=50) as form:
                fields = dict(form)
                audio = await _audio(fields.pop("file", None))
        answer, streamed, config = _options(fields, service)
        if streamed:
            return StreamingResponse(_events(service, config, audio), media_type="text/event-stream", headers=_NO_BUFFER)
        return await _whole(request, service, config, audio, answer)
    except RefusedError as later:
        return _refused(later)
    except ValueError as error:
        return error_response(400, str(error), "invalid_request")
    except TimeoutError:
        return error_response(408, "the upload took too long", "timeout")


_NO_BUFFER = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the latter for nginx


def error_response(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> Response:
    """An error as OpenAI's clients expect it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": code, "param": None}}, status, headers)


def _refused(refusal: RefusedError) -> Response:
    return error_response(503, str(refusal), refusal.code, {"Retry-After": "5"})


async def _audio(file: Any) -> np.ndarray:
    if not isinstance(file, UploadFile):
        raise ValueError("the form has no file; send the audio as the field `file` of multipart/form-data")
    data = await file.read()
    return await anyio.to_thread.run_sync(_decode, data, file.filename or "file")


def _decode(data: bytes, name: str) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"upload{Path(name).suffix[:10]}"
        path.write_bytes(data)
        try:
            return load_audio(path)
        except AudioError as error:
            raise AudioError(str(error).replace(str(path), name)) from error


def _options(fields: dict[str, Any], service: Service) -> tuple[str, bool, StreamConfig]:
    """The form of the answer, whether it is streamed, and the settings of the stream."""
    values = {name: from_text(value) for name, value in fields.items() if name not in _IGNORED and isinstance(value, str)}
    answer, streamed = values.pop("response_format", "json"), values.pop("stream", False)
    if answer not in FORMATS:
        raise ValueError(f"response_format is {answer!r}; it must be one of {', '.join(FORMATS)}")
    if not isinstance(streamed, bool):
        raise ValueError(f"stream is {streamed!r}; it must be true or false")
    return answer, streamed, service.settings(values, service.stream, "form")


async def _whole(request: Request, service: Service, config: StreamConfig, audio: np.ndarray, answer: str) -> Response:
    """The answer when everything is translated; a client that goes away is not translated for."""
    results: list[Result] = []
    failure: list[Exception] = []

    async def work() -> None:
        try:
            with service.session("http", live=False) as session:
                results.extend([result async for result in _results(session, config, audio)])
        except Exception as error:
            failure.append(error)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        while (await request.receive())["type"] != "http.disconnect":
            pass
        tasks.cancel_scope.cancel()
    if failure:
        if isinstance(failure[0], (RefusedError, ValueError)):
            raise failure[0]
        return error_response(500, "the model failed on this file; the log of the server says why", "model_failed")
    text = results[-1].update.committed if results else ""
    if answer == "text":
        return PlainTextResponse(text + "\n")
    if answer == "json":
        return JSONResponse({"text": text})
    return JSONResponse(
        {
            "task": "translate",
            "language": config.target_lang,
            "duration": round(samples_to_s(len(audio)), 3),
            "text": text,
            "segments": _segments(results),
        }
    )


def _segments(results: list[Result]) -> list[dict[str, Any]]:
    """What was committed at each step, from the audio heard at the last such step to that heard at this one."""
    segments: list[dict[str, Any]] = []
    start_s = 0.0
    for result in results:
        if result.delta:
            end_s = round(result.update.audio_s, 3)
            segments.append({"id": len(segments), "start": start_s, "end": end_s, "text": result.delta})
            start_s = end_s
    return segments


async def _results(session: Session, config: StreamConfig, audio: np.ndarray) -> AsyncIterator[Result]:
    session.begin(config)
    await session.hear(audio)
    session.end("closed")
    async for result in session.results():
        yield result


async def _events(service: Service, config: StreamConfig, audio: np.ndarray) -> AsyncIterator[str]:
    """Server-sent events named as those of OpenAI's transcriptions."""
    text = ""
    try:
        with service.session("http", live=False) as session:
            async for result in _results(session, config, audio):
                text = result.update.committed
                if result.delta:
                    elapsed_ms = round(samples_to_ms(result.update.audio_samples))
                    yield _event("transcript.text.delta", delta=result.delta, elapsed_ms=elapsed_ms)
        yield _event("transcript.text.done", text=text)
        yield "data: [DONE]\n\n"
    except (RefusedError, ValueError) as error:
        yield _event("error", error={"message": str(error), "code": getattr(error, "code", "invalid_request")})
    except Exception:
        yield _event("error", error={"message": "the model failed on this file", "code": "model_failed"})


def _event(kind: str, **fields: Any) -> str:
    return f"data: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n"
