"""simulstream's WebSocket protocol (simulstream 1.0): metadata as JSON, audio as binary PCM, `new` and `deleted` text back.

A stream ends with `end_of_stream`; the next one may follow on the same socket. As in simulstream, audio without metadata is taken
to be 16 kHz, and invalid JSON does not end the stream; here, the client is also told.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from simulsa import strict_json
from simulsa.audio import SAMPLE_RATE
from simulsa.serving.conversation import GOING_AWAY, NORMAL, POLICY, Conversation, Socket
from simulsa.serving.pcm import PcmReader
from simulsa.serving.service import Service
from simulsa.serving.session import Result, Session

_IGNORED = {"metrics_metadata"}  # for simulstream's own log


class Simulstream(Conversation):
    """A client that speaks simulstream's protocol."""

    name = "simulstream"

    def __init__(self, socket: Socket, session: Session, service: Service) -> None:
        super().__init__(socket, session, service)
        self.pcm = PcmReader(SAMPLE_RATE)

    async def on_message(self, message: str | bytes) -> None:
        """Handle audio, metadata or the end of a stream."""
        try:
            if isinstance(message, bytes):
                await self.session.receive(self.pcm.read(message))
                return
            data = strict_json.loads(message)
            if not isinstance(data, dict):
                raise ValueError(f"the message is a {type(data).__name__}; a JSON object is needed")
        except ValueError as error:
            await self.socket.send(self.error(f"not understood and ignored: {error}", "invalid_message"))
            return
        if "end_of_stream" in data:
            if self.pcm.held_back:
                await self.socket.send(self.error("the stream ended inside a sample; its last byte was dropped", "odd_bytes"))
            await self.session.receive(np.zeros(0, dtype=np.float32))  # the next stream, if it is empty, has begun here
            self.session.finish()
            self.pcm = PcmReader(SAMPLE_RATE)
        else:
            await self._configure(data)

    async def on_result(self, result: Result) -> None:
        """Send new text; nothing is ever deleted, because only committed text is sent."""
        await self.socket.send({"new": result.update.new, "deleted": ""})
        if result.update.final:
            await self.socket.send({"end_of_processing": True})

    async def part(self, reason: str) -> None:
        """Close; the last result has already announced the end."""
        await self.socket.close(GOING_AWAY if reason == "shutting_down" else NORMAL, reason)

    @classmethod
    def error(cls, message: str, code: str, kind: str = "invalid_request_error") -> dict[str, Any]:
        """An empty result with an error, because the protocol has no error messages."""
        return {"new": "", "deleted": "", "error": message, "code": code, "kind": kind}

    async def _configure(self, metadata: dict[str, Any]) -> None:
        requested = {name: value for name, value in metadata.items() if name not in _IGNORED}
        try:
            rate = requested.pop("sample_rate", self.pcm.rate)
            if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not math.isfinite(rate):
                raise ValueError(f"sample_rate is {str(rate)[:40]!r}; it must be a number of samples per second")
            stream = self.service.settings(requested, self.session.config, "metadata")
            await self.service.check(stream)
            pcm = PcmReader(round(rate))
        except ValueError as error:
            # a stream in the wrong language or at the wrong speed would be worse than none
            await self.socket.send(self.error(str(error), "invalid_metadata"))
            await self.socket.close(POLICY, str(error))
            self.session.end("closed")
            return
        if self.untouched or self.session.finishing:
            await self.start_over(stream, pcm)
        else:
            await self.socket.send(self.error("metadata comes before the audio of a stream; ignored", "late_metadata"))
