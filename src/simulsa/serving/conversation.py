"""What both WebSocket protocols share: one client, a concurrent reader and writer, and their limits."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping
from typing import Any

import anyio
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from simulsa import strict_json
from simulsa.audio import AudioError
from simulsa.serving.config import MAX_MESSAGE_KIB, ServeConfig
from simulsa.serving.gate import PROTOCOL
from simulsa.serving.pcm import PcmReader
from simulsa.serving.service import RefusedError, Service
from simulsa.serving.session import Result, Session
from simulsa.streaming.config import StreamConfig

# close codes of RFC 6455 and its registry
NORMAL, GOING_AWAY, POLICY, TOO_BIG, INTERNAL_ERROR, TRY_AGAIN_LATER = 1000, 1001, 1008, 1009, 1011, 1013
MAX_REASON_BYTES = 123
MODEL_FAILED = "the model failed on this audio; see the server's log"


class DisconnectedError(Exception):
    """The client has disconnected, or does not read what it is sent."""


class Socket:
    """A WebSocket that sends JSON; sending to a client that does not read raises `DisconnectedError`."""

    def __init__(self, websocket: WebSocket, config: ServeConfig) -> None:
        self._websocket = websocket
        self._send_timeout_s = config.send_timeout_s

    async def receive(self) -> str | bytes:
        """The next message. Raises `DisconnectedError`, also for a message that is too large."""
        message = await self._websocket.receive()
        if message["type"] != "websocket.receive":
            raise DisconnectedError
        text: str | None = message.get("text")
        data: str | bytes = message["bytes"] if text is None else text
        if len(data) > 1024 * MAX_MESSAGE_KIB:  # our own server rejects it earlier, but Ray's proxy lets it through
            await self.close(TOO_BIG, f"a message of {len(data) / 1024:.0f} KiB; the limit is {MAX_MESSAGE_KIB}")
            raise DisconnectedError
        return data

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a JSON object. Raises `DisconnectedError`."""
        await self._within_time(self._websocket.send_text(strict_json.dumps(message)))

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a code and a reason. Raises `DisconnectedError`."""
        short = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        await self._within_time(self._websocket.close(code, short))

    async def _within_time(self, sending: Awaitable[None]) -> None:
        try:
            with anyio.fail_after(self._send_timeout_s):
                await sending
        except (TimeoutError, WebSocketDisconnect, RuntimeError) as error:  # RuntimeError: closed in the meantime
            raise DisconnectedError from error


class Conversation(ABC):
    """A client of one protocol; subclasses read its messages and write its results."""

    name: str
    pcm: PcmReader
    """reads the audio of the current utterance"""

    def __init__(self, socket: Socket, session: Session, service: Service) -> None:
        self.socket = socket
        self.session = session
        self.service = service
        self._deadline = time.monotonic() + service.config.max_session_s
        session.flush = lambda: self.pcm.read(b"", last=True)

    @property
    def untouched(self) -> bool:
        """Whether the current utterance has no audio yet, not even in the resampler."""
        return self.session.untouched and self.pcm.untouched

    async def start_over(self, stream: StreamConfig, pcm: PcmReader) -> None:
        """Begin another utterance, unless the session is over; the one so far is translated with its own settings first."""
        if not self.untouched:
            self.session.finish()
            await self.session.settled()
        if not self.session.over:
            self.session.begin(stream)
            self.pcm = pcm

    async def greet(self) -> None:  # noqa: B027  # not every protocol has a greeting
        """Send a greeting to a new client."""

    @abstractmethod
    async def on_message(self, message: str | bytes) -> None:
        """Handle a message."""

    @abstractmethod
    async def on_result(self, result: Result) -> None:
        """Send a result."""

    @classmethod
    @abstractmethod
    def error(cls, message: str, code: str, kind: str = "invalid_request_error") -> dict[str, Any]:
        """An error as a message of the protocol; `kind` is `server_error` if it is not the client's fault."""

    @abstractmethod
    async def part(self, reason: str) -> None:
        """Say goodbye to a client whose session ended normally."""

    async def run(self) -> None:
        """Serve the client until the session ends or the client leaves."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, tasks.cancel_scope)
            await self._write()
            tasks.cancel_scope.cancel()

    async def _read(self, scope: anyio.CancelScope) -> None:
        try:
            await self.greet()
            while not self.session.ended:
                message = await self._next_message()
                if message is not None:
                    await self.on_message(message)
        except DisconnectedError:
            scope.cancel()

    async def _next_message(self) -> str | bytes | None:
        """The next message; `None` if the session ends because the client was idle or its time is over."""
        left_s = self._deadline - time.monotonic()
        idle_s = self.service.config.idle_s
        with anyio.move_on_after(min(left_s, idle_s)):
            return await self.socket.receive()
        self.session.end("expired" if left_s <= idle_s else "idle")
        return None

    async def _write(self) -> None:
        try:
            async for result in self.session.results():
                await self.on_result(result)
            await self.part(self.session.ended)
        except DisconnectedError:
            pass
        except Exception as error:
            if error is not self.session.error:
                raise
            await self._fail(error)

    async def _fail(self, error: Exception) -> None:
        try:
            if isinstance(error, AudioError):
                await self.socket.send(self.error(str(error), "invalid_audio"))
                await self.socket.close(POLICY, str(error))
            else:
                await self.socket.send(self.error(MODEL_FAILED, "model_failed", "server_error"))
                await self.socket.close(INTERNAL_ERROR, MODEL_FAILED)
        except DisconnectedError:
            pass


async def converse(websocket: WebSocket, service: Service, kind: type[Conversation]) -> None:
    """Admit a client if allowed, and serve it; one that is rejected gets the reason and close code 1013."""
    problem = service.gate.problem(websocket)
    if problem is not None:
        status, reason = problem
        await websocket.send_denial_response(PlainTextResponse(reason, status))
        return
    await websocket.accept(PROTOCOL if PROTOCOL in websocket.scope["subprotocols"] else None)
    socket = Socket(websocket, service.config)
    try:
        with service.session(kind.name) as session:
            await kind(socket, session, service).run()
    except RefusedError as refusal:
        with contextlib.suppress(DisconnectedError):
            await socket.send(kind.error(str(refusal), refusal.code, "server_error"))
            await socket.close(TRY_AGAIN_LATER, f"{refusal.code}: {refusal}")
