"""The service behind all protocols: admission, sessions, and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from simulsa.lalm.interface import LALM, Heads, LALMError
from simulsa.serving.config import ServeConfig
from simulsa.serving.gate import Gate
from simulsa.serving.metrics import Metrics
from simulsa.serving.scheduler import Scheduler
from simulsa.serving.session import Session
from simulsa.settings import from_mapping, to_mapping
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.state import StreamState

_ALIASES = {"source_language": "source_lang", "target_language": "target_lang"}

logger = logging.getLogger("simulsa")


class RefusedError(RuntimeError):
    """A client was rejected; `code` gives the reason in one word."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def shutting_down() -> RefusedError:
    """The rejection by a server that is shutting down."""
    return RefusedError("shutting_down", "the server is shutting down; connect to another one or try again later")


class Service:
    """One model and its clients; `stream` holds the default settings of clients."""

    def __init__(self, lalm: LALM, config: ServeConfig, stream: StreamConfig) -> None:
        self.lalm = lalm
        self.config = config
        self.stream = stream.for_model(lalm)
        self.gate = Gate(config, config.keys())
        self.metrics = Metrics()
        self.scheduler = Scheduler(lalm, config.max_batch, self.metrics)
        self.draining = False
        self._attended: set[Heads] = set()
        self.metrics.watch("simulsa_sessions_open", "Sessions now", lambda: len(self.scheduler.sessions))
        self.metrics.watch("simulsa_unheard_seconds", "Audio that waits for the model", self._unheard_s)
        self.metrics.watch("simulsa_lag_chunks", "Average lag of the last seconds, in chunks", self.scheduler.lag_chunks)

    def warm_up(self) -> None:
        """Load and run everything that the first client would otherwise wait for; raises its errors."""
        self.scheduler.warm_up(self._open_stream, self.stream)

    def settings(self, requested: Mapping[str, Any], base: StreamConfig, where: str) -> StreamConfig:
        """`base` with what a client requested: fields of `StreamConfig`, and `source_language` and `target_language`.

        Raises `ValueError` for settings that do not exist or are not allowed; `where` begins the message.
        """
        named = {_ALIASES.get(name, name): value for name, value in requested.items()}
        named = {
            name: value for name, value in named.items() if name not in _ALIASES.values() or value != ""
        }  # no request at all
        defaults = to_mapping(base)
        if named.keys() & {"policy", "rollback"}:  # two ways to set the same thing: either replaces both
            defaults |= {"policy": None, "rollback": None}
        stream = from_mapping(StreamConfig, defaults | named, where).for_model(self.lalm)
        if stream.chunk_ms < self.config.min_chunk_ms:
            raise ValueError(
                f"{where}: chunk_ms is {stream.chunk_ms:g}; this server accepts {self.config.min_chunk_ms:g} or more"
            )
        return stream

    async def check(self, stream: StreamConfig) -> None:
        """Raise `ValueError` if the policy needs attention heads that the model does not have, which only a pass shows."""
        heads = stream.commit_policy.wants.heads
        if heads is None or heads in self._attended:
            return
        try:
            await self.scheduler.attend(heads, stream.direction)
        except LALMError as error:
            raise ValueError(f"policy is {stream.commit_policy}; {error}") from error
        self._attended.add(heads)

    def refusal(self) -> RefusedError | None:
        """Why a new client would be rejected now; `None` if it would not."""
        if self.draining:
            return shutting_down()
        if self.scheduler.stopped:
            return RefusedError("failed", "the server has failed and translates no more; see its log, and restart it")
        if len(self.scheduler.sessions) >= self.config.max_sessions:
            return RefusedError("too_many_sessions", f"all {self.config.max_sessions} sessions are taken; try again later")
        if (lag := self.scheduler.lag_chunks()) > self.config.max_lag_chunks:
            return RefusedError(
                "overloaded", f"the server is overloaded (chunks wait {lag:.1f} times their length); try again later"
            )
        return None

    @contextlib.contextmanager
    def session(self, protocol: str, live: bool = True) -> Iterator[Session]:
        """A slot for a client, released at the end of the block. Raises `RefusedError`."""
        refusal = self.refusal()
        if refusal is not None:
            self.metrics.refused.labels(refusal.code).inc()
            raise refusal
        session = Session(self._open_stream, self.stream, self.config, self.scheduler.wake, live)
        self.scheduler.sessions.add(session)
        self.metrics.sessions.labels(protocol).inc()
        try:
            yield session
        finally:
            self.scheduler.sessions.discard(session)
            self.metrics.ended.labels(session.outcome).inc()

    async def drain(self) -> None:
        """Admit no new clients, and wait until the open sessions have their final text or the time limit has passed."""
        self.draining = True
        for session in list(self.scheduler.sessions):
            session.end("shutting_down")
        deadline = time.monotonic() + self.config.drain_s
        while self.scheduler.sessions and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self.scheduler.sessions:
            logger.warning("%d sessions did not finish within %g s", len(self.scheduler.sessions), self.config.drain_s)

    def _open_stream(self, config: StreamConfig, samples: int | None) -> StreamState:
        """The state of a new stream, segmented if it may outgrow a segment; `samples` is its length, if known."""
        segmentation = SegmentationConfig()
        long = samples is None or segmentation.is_long(samples, self.lalm.max_samples)
        return StreamState(self.lalm, config, segmentation if self.config.longform and long else None)

    def _unheard_s(self) -> float:
        return sum(session.unheard_s for session in self.scheduler.sessions)
