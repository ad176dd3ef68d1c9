"""The web application and its routes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from simulsa.serving import samples
from simulsa.serving.conversation import converse
from simulsa.serving.realtime import Realtime
from simulsa.serving.service import RefusedError, Service
from simulsa.serving.simulstream import Simulstream
from simulsa.serving.translations import Translations, denial
from simulsa.serving.values import plain

PAGE = Path(__file__).parent / "page"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class PageFiles(StaticFiles):  # type: ignore[misc]  # starlette is not installed when types are checked
    """The page's files. Browsers must revalidate them, so that modules of two versions never mix."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """The file, or `304 Not Modified`."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def create_app(service: Service) -> Starlette:
    """The ASGI application of a service; runs the scheduler during its lifespan."""

    async def realtime(websocket: WebSocket) -> None:
        await converse(websocket, service, Realtime)

    async def simulstream(websocket: WebSocket) -> None:
        await converse(websocket, service, Simulstream)

    async def nowhere(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("no WebSocket here; see docs/serving.md", 404))

    async def models(request: Request) -> Response:
        if denied := denial(service, request):
            return denied
        own = {
            **plain(service.stream),
            "rollback": service.stream.commit_policy.rollback,  # even if nobody set one; null: another policy
            "languages": service.config.languages,
            "min_chunk_ms": service.config.min_chunk_ms,
        }
        model = {"id": service.lalm.name, "object": "model", "created": 0, "owned_by": "simulsa", "simulsa": own}
        return JSONResponse({"object": "list", "data": [model]})

    async def metrics(request: Request) -> Response:
        return denial(service, request) or Response(service.metrics.text(), media_type=PROMETHEUS)

    async def healthy(_: Request) -> Response:
        refusal = service.refusal()
        if refusal is not None and refusal.code == "failed":  # whoever supervises the server restarts it; nothing else helps
            return unavailable(refusal)
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        refusal = service.refusal()
        return JSONResponse({"status": "ready"}) if refusal is None else unavailable(refusal)

    def unavailable(refusal: RefusedError) -> Response:
        return JSONResponse({"status": refusal.code, "reason": str(refusal)}, 503)

    async def list_samples(_: Request) -> Response:
        return JSONResponse(samples.listing())

    async def sample(request: Request) -> Response:
        row = samples.clips().get(request.path_params["name"])
        if row is None:
            return PlainTextResponse("no such sample; /samples lists them", 404)
        return Response(await anyio.to_thread.run_sync(samples.wav, row), media_type="audio/wav")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        scheduling = asyncio.create_task(service.scheduler.run())
        yield
        await service.drain()
        scheduling.cancel()

    routes = [
        WebSocketRoute("/v1/realtime/translations", realtime),
        WebSocketRoute("/", simulstream),
        WebSocketRoute("/simulstream", simulstream),
        WebSocketRoute("/{path:path}", nowhere),
        Route("/v1/audio/translations", Translations(service), methods=["POST"]),
        Route("/v1/models", models),
        Route("/metrics", metrics),
        Route("/healthz", healthy),
        Route("/readyz", ready),
        Route("/samples", list_samples),
        Route("/samples/{name}.wav", sample),
        Mount("/", PageFiles(directory=PAGE, html=True)),
    ]
    # browsers ask for this before they let pages of other origins connect; the gate decides which ones may
    origins = Middleware(CORSMiddleware, allow_origins=service.config.allow_origins, allow_headers=["Authorization"])
    return Starlette(routes=routes, middleware=[origins], lifespan=lifespan)
