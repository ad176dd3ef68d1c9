"""The scheduler: passes the waiting chunks of all sessions to the model in one call, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from simulsa.audio import SAMPLE_RATE, AudioError, StreamResampler, s_to_samples
from simulsa.lalm.interface import LALM, Heads, Want
from simulsa.languages import Direction
from simulsa.serving.metrics import Metrics
from simulsa.serving.session import Result, Session
from simulsa.serving.turns import Turn, take_turns
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.state import StreamState

MEMORY_S = 10.0  # how long a lag counts when deciding whether the model keeps up

logger = logging.getLogger("simulsa")


class Scheduler:
    """Collects the sessions with work for the model and advances them together.

    Audio that arrives while the model works waits for the next call: the busier the server, the larger its batches, and no
    session waits for a batch to fill. An error that arises in one session ends that session only.
    """

    def __init__(self, lalm: LALM, max_batch: int, metrics: Metrics) -> None:
        self.sessions: set[Session] = set()
        self.stopped = False  # nobody is served any more
        self._lalm = lalm
        self._max_batch = max_batch
        self._metrics = metrics
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="simulsa-model")
        self._lags: deque[tuple[float, float]] = deque()  # (time, lag in chunks)

    def wake(self) -> None:
        """Signal that there may be work."""
        self._work.set()

    def warm_up(self, open_stream: Callable[[StreamConfig, int | None], StreamState], config: StreamConfig) -> None:
        """Load and run everything that a stream with these settings needs, so that the first client waits for none of it.

        Two chunks of silence go through the model, as a recording, and through the voice activity detector, as live speech. A
        model on a GPU captures its decoding steps for all batch sizes that `max_batch` streams can have. Raises their errors.
        """
        StreamResampler(SAMPLE_RATE + 1)  # loads the resampler, which would otherwise block the event loop
        silence = np.zeros(min(2 * (config.chunk_samples or SAMPLE_RATE // 2), self._lalm.max_samples), dtype=np.float32)

        def take() -> list[Turn]:
            self._lalm.warm_up(config.direction, self._max_batch, s_to_samples(SegmentationConfig().max_segment_s))
            streams = [open_stream(config, len(silence)), open_stream(config, None)]
            turns = [Turn(stream, [silence], closing=True, chunks=1) for stream in streams]
            take_turns(self._lalm, turns, len(turns))
            return turns

        for turn in self._thread.submit(take).result():
            if turn.error is not None:
                raise turn.error

    async def attend(self, heads: Heads, direction: Direction) -> None:
        """Let the model translate half a second of silence and watch these heads. Raises `LALMError` if it does not have them."""

        def take() -> None:
            heard = self._lalm.hear([np.zeros(SAMPLE_RATE // 2, dtype=np.float32)], [direction])
            self._lalm.continue_(heard, [[]], want=Want(heads=heads))

        await asyncio.get_running_loop().run_in_executor(self._thread, take)

    async def run(self) -> None:
        """Serve the sessions until cancelled. If it fails all the same, all sessions do, instead of waiting for ever."""
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while waiting := self._waiting():
                    await self._advance(waiting)
        except Exception as error:
            logger.exception("the scheduler failed; restart the server")
            for session in self.sessions:
                session.fail(error)
        finally:
            self.stopped = True
            self._thread.shutdown(wait=False, cancel_futures=True)

    def lag_chunks(self) -> float:
        """Average lag of recent chunks of live sessions, in multiples of the chunk length."""
        now = time.monotonic()
        self._forget_lags(now)
        lags = [lag for _, lag in self._lags]
        for session in self.sessions:
            with self._confined(session):
                if session.error is None and (since := session.waits_since()) < now:
                    lags.append(session.in_chunks(now - since))
        return sum(lags) / len(lags) if lags else 0.0

    def _waiting(self) -> list[Session]:
        """Sessions that want a turn, most urgent first."""
        since: dict[Session, float] = {}
        for session in self.sessions:
            with self._confined(session):
                if session.wants_turn:
                    since[session] = session.waits_since()
        return sorted(since, key=since.__getitem__)

    async def _advance(self, waiting: Sequence[Session]) -> None:
        """Give the model the work of these sessions, and the sessions its results."""
        now = time.monotonic()
        turns: dict[Session, Turn] = {}
        for session in waiting:
            with self._confined(session):
                turns[session] = session.turn(now)
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, take_turns, self._lalm, [*turns.values()], self._max_batch)
        except Exception as error:  # our own fault: it must not end the service for later clients
            for turn in turns.values():
                turn.error = error
        now = time.monotonic()
        results: list[Result] = []
        for session, turn in turns.items():
            with self._confined(session):
                if turn.error is not None:
                    self._note(turn.error)
                result = session.deliver(turn, now)
                if result is None:
                    continue
                results.append(result)
                if session.live:
                    self._lags.append((now, session.in_chunks(result.lag_s)))
                    self._metrics.lag.observe(result.lag_s)
        self._forget_lags(now)
        self._metrics.stepped(results)

    @contextlib.contextmanager
    def _confined(self, session: Session) -> Iterator[None]:
        """Let an error that arises here end the session, and nothing else."""
        try:
            yield
        except Exception as error:
            self._note(error)
            session.fail(error)

    def _forget_lags(self, now: float) -> None:
        while self._lags and self._lags[0][0] < now - MEMORY_S:
            self._lags.popleft()

    def _note(self, error: Exception) -> None:
        whose = "audio" if isinstance(error, AudioError) else "model"
        self._metrics.errors.labels(whose).inc()
        if whose == "model":
            logger.error("the model failed on a session: %s", error, exc_info=error)
