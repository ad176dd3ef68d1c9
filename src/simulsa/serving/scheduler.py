"""The scheduler: every chunk that waits, of all sessions, in one call of the model, in one thread beside the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from simulsa.lalm.interface import LALM
from simulsa.serving.metrics import Metrics
from simulsa.serving.session import Result, Session
from simulsa.streaming.state import StreamState, Update
from simulsa.streaming.step import step

MEMORY_S = 10.0  # how long a lag counts for the decision whether the model keeps up

logger = logging.getLogger("simulsa")


class Scheduler:
    """Gathers the sessions that have a chunk waiting and advances them together.

    While the model works, chunks that arrive wait for the next call: the busier the server, the larger its batches, and nobody
    waits for a batch to fill.
    """

    def __init__(self, lalm: LALM, max_batch: int, metrics: Metrics) -> None:
        self.lalm = lalm
        self.sessions: set[Session] = set()
        self._max_batch = max_batch
        self._metrics = metrics
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="simulsa-model")
        self._lags: deque[tuple[float, float]] = deque()  # (when, in chunks)

    def wake(self) -> None:
        """There may be work."""
        self._work.set()

    async def run(self) -> None:
        """Serve the sessions until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while batch := self._longest_waiting():
                    now = time.monotonic()
                    states = [session.take(now) for session in batch]
                    outcomes = await loop.run_in_executor(self._thread, advance, self.lalm, states)
                    self._hand_out(batch, outcomes)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def lag_chunks(self) -> float:
        """How long chunks of live sessions have lately waited, on average, in multiples of what a chunk lasts."""
        now = time.monotonic()
        while self._lags and self._lags[0][0] < now - MEMORY_S:
            self._lags.popleft()
        lags = [lag for _, lag in self._lags]
        for session in self.sessions:
            since = session.waits_since()
            if since is not None:
                lags.append(_in_chunks(max(0.0, now - since), session))
        return sum(lags) / len(lags) if lags else 0.0

    def _longest_waiting(self) -> list[Session]:
        waiting = [(since, session) for session in self.sessions if (since := session.waits_since()) is not None]
        waiting.sort(key=lambda item: item[0])
        return [session for _, session in waiting[: self._max_batch]]

    def _hand_out(self, batch: Sequence[Session], outcomes: Sequence[Update | Exception]) -> None:
        now = time.monotonic()
        results: list[Result] = []
        for session, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception):
                logger.error("a session failed: %s", outcome, exc_info=outcome)
                self._metrics.errors.labels("model").inc()
                session.fail(outcome)
                continue
            result = session.deliver(outcome, now)
            results.append(result)
            if session.live:
                self._lags.append((now, _in_chunks(result.lag_s, session)))
                self._metrics.lag.observe(result.lag_s)
        self._metrics.stepped(results)


def advance(lalm: LALM, states: Sequence[StreamState]) -> list[Update | Exception]:
    """`step` for all states at once; if it raises, one by one, so that the error stays with the stream that causes it."""
    before = [state.heard_samples for state in states]
    try:
        return list(step(lalm, states))
    except Exception as error:
        if len(states) == 1:
            return [error]
        logger.warning("a batch of %d streams failed (%s); trying them one by one", len(states), error)
        return [
            advance(lalm, [state])[0] if state.heard_samples == heard and not state.finished else _as_it_is(state)
            for state, heard in zip(states, before, strict=True)
        ]


def _as_it_is(state: StreamState) -> Update:
    """The update of a state that was advanced before the batch failed at another one."""
    return Update(state.shown, "", state.heard_samples, 0.0, state.finished)


def _in_chunks(lag_s: float, session: Session) -> float:
    return lag_s * 1000 / session.config.chunk_ms  # waiting for all of the speech (inf) is never late
