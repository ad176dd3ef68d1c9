"""A session: one client's audio on its way to the model, and the results on their way back.

Everything here runs on the event loop. Audio waits in an inbox until the scheduler moves it, in a `Turn`, to the model thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import numpy as np

from simulsa.audio import SAMPLE_RATE, samples_to_s
from simulsa.serving.clock import SpeechClock
from simulsa.serving.config import ServeConfig
from simulsa.serving.turns import Turn
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.state import StreamState, Update

PIECE_SAMPLES = 10 * SAMPLE_RATE  # of a recording, that the model thread is given at a time


@dataclass(frozen=True)
class Result:
    """A result for the client: an update, how many chunks the step merged, and its lag: the seconds since its audio was due."""

    update: Update
    chunks: int
    lag_s: float


class Session:
    """One client: utterances in, one after the other, results out.

    `wake` is called when there is work for the model. A session that is not `live` is a recording: its chunks are never late, so
    they are never merged, and all its audio may be queued at once.
    """

    def __init__(
        self,
        open_stream: Callable[[StreamConfig, int | None], StreamState],
        config: StreamConfig,
        limits: ServeConfig,
        wake: Callable[[], None],
        live: bool = True,
    ) -> None:
        self._open_stream = open_stream
        self._limits = limits
        self._wake = wake
        self.live = live
        self.flush: Callable[[], np.ndarray] = lambda: np.zeros(0, dtype=np.float32)
        """returns the audio that the session's source still holds back when an utterance ends"""
        self._results: asyncio.Queue[Result | None] = asyncio.Queue()
        self._room, self._settled = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self.ended = ""
        self.begin(config)

    def begin(self, config: StreamConfig, samples: int | None = None) -> None:
        """Start a new utterance, of length `samples` if known; the previous one must be settled or have no audio."""
        self.config = config
        self._stream = self._open_stream(config, samples)
        self._clock = SpeechClock()
        self._inbox: list[np.ndarray] = []
        self.finishing = self._closed = False  # closed: the model has been told
        self._in_turn = self._again = self._left_out = False  # left out: a chunk did not fit in the batch
        self._chunks = 1
        self._finished = 0.0  # when the utterance was ended; a last piece shorter than a chunk was not due earlier
        self.received_samples = self.done_samples = self._given_samples = 0
        self._settled.clear()

    @property
    def unheard_s(self) -> float:
        """Seconds of received audio neither processed by the model nor found to be non-speech."""
        return samples_to_s(self.received_samples - self.done_samples)

    @property
    def untouched(self) -> bool:
        """Whether the utterance has neither audio nor an end yet, so that its settings can still be changed."""
        return self.received_samples == 0 and not self.finishing

    @property
    def over(self) -> bool:
        """Whether the session takes no more audio: it was ended, or has failed."""
        return bool(self.ended) or self.error is not None

    @property
    def outcome(self) -> str:
        """How the session ended, in one word: the reason given for ending it, or `failed`, `left` (between two utterances), or
        `vanished`."""
        if self.error is not None:
            return "failed"
        return self.ended or ("left" if self.untouched or self._settled.is_set() else "vanished")

    async def receive(self, samples: np.ndarray) -> None:
        """Take float32 mono audio at `SAMPLE_RATE`; returns when there is room for more (back-pressure).

        Audio after `finish` begins a new utterance. Ignored once the session has ended.
        """
        if self.finishing and not self.ended:
            await self.settled()
            if not self.over:
                self.begin(self.config)
        if self.over:
            return
        self._add(samples)
        self._wake()
        if not self.live:
            return
        while self.unheard_s > self._limits.max_unheard_s and (self._in_turn or self.wants_turn):
            self._room.clear()
            await self._room.wait()

    def finish(self) -> None:
        """End the utterance: its last result will be final."""
        if self.finishing:
            return
        self._add(self.flush())
        self.finishing = True
        self._finished = time.monotonic()
        if self.received_samples:
            self._wake()
        elif self.ended:
            self._settled.set()
            self._results.put_nowait(None)
        else:
            self._put(Result(Update("", "", 0, 0.0, final=True), 0, 0.0))

    async def settled(self) -> None:
        """Wait for the final result of an utterance after `finish`, or for a failure."""
        await self._settled.wait()

    def end(self, reason: str) -> None:
        """Finish and accept no more audio; the final result is the last. Only the first reason given counts."""
        if self.ended:
            return
        self.ended = reason
        if self._settled.is_set():
            self._results.put_nowait(None)
        else:
            self.finish()

    async def results(self) -> AsyncIterator[Result]:
        """Results in order until the session has ended; raises the error that ended it."""
        while (result := await self._results.get()) is not None:
            yield result
        if self.error is not None:
            raise self.error

    @property
    def wants_turn(self) -> bool:
        """Whether there is work that the model has not been given yet."""
        if self._in_turn or self.error is not None or self._settled.is_set():
            return False
        return bool(self._inbox) or self._again or (self.finishing and not self._closed)

    def waits_since(self) -> float:
        """When the waiting audio was due; `inf` if it is less than a chunk, or the session is a recording."""
        chunk = self.config.chunk_samples
        waiting = self.received_samples - self.done_samples
        if self.live and self._left_out:
            return self._clock.due(min(self._given_samples, self.done_samples + (chunk or waiting)))
        if not self.live or waiting == 0 or (not self.finishing and (chunk is None or waiting < chunk)):
            return float("inf")
        due = self._clock.due(self.done_samples + min(waiting, chunk or waiting))
        return max(due, self._finished) if chunk is None or waiting < chunk else due

    def in_chunks(self, lag_s: float) -> float:
        """A lag in multiples of the chunk length; 0 if the chunk is the whole utterance."""
        return lag_s * 1000 / self.config.chunk_ms

    def turn(self, now: float) -> Turn:
        """The work for the model now; its outcome comes back through `deliver`."""
        # a recording comes in pieces: in one with hours of silence, finding the speech would keep all others waiting
        count = len(self._inbox) if self.live else 0 if self._again else 1
        audio, self._inbox = self._inbox[:count], self._inbox[count:]
        closing = self.finishing and not self._closed and not self._inbox
        self._chunks = self._overdue_chunks(now)
        turn = Turn(self._stream, audio, closing, self._chunks, self.done_samples)
        self._closed = self._closed or closing
        self._given_samples += sum(map(len, audio))
        self._in_turn = True
        return turn

    def deliver(self, turn: Turn, now: float) -> Result | None:
        """Receive the outcome of a turn; returns the client's result, if there is one."""
        self._in_turn = False
        self._again = turn.again
        self._left_out = turn.again and turn.update is None
        self._room.set()
        if turn.error is not None:
            self.fail(turn.error)
            return None
        before, self.done_samples = self.done_samples, turn.done_samples
        update, result = turn.update, None
        if update is not None:
            due = max(self._clock.due(update.audio_samples), self._finished if update.final else 0.0)
            lag_s = max(0.0, now - due) if self.live else 0.0
            chunk = self.config.chunk_samples
            heard = 1 if chunk is None else (update.audio_samples - before) // chunk
            result = Result(update, max(1, min(heard, self._chunks)), lag_s)
            self._put(result)
        self._clock.forget(self.done_samples)
        return result

    def fail(self, error: Exception) -> None:
        """End the session with an error, unless one has ended it already."""
        if self.error is not None:
            return
        self.error = error
        self._in_turn = False
        self._room.set()
        self._settled.set()
        self._results.put_nowait(None)

    def _add(self, samples: np.ndarray) -> None:
        if len(samples):
            self.received_samples += len(samples)
            self._clock.arrived(len(samples), time.monotonic())
            size = len(samples) if self.live else PIECE_SAMPLES
            self._inbox += [samples[start : start + size] for start in range(0, len(samples), size)]

    def _put(self, result: Result) -> None:
        self._results.put_nowait(result)
        if result.update.final:
            self._settled.set()
            if self.ended:
                self._results.put_nowait(None)

    def _overdue_chunks(self, now: float) -> int:
        """Number of chunks that are due and not done, at least one."""
        chunk = self.config.chunk_samples
        if not self.live or not self._limits.merge_chunks or chunk is None:
            return 1
        return max(1, (self._clock.due_by(now) - self.done_samples) // chunk)
