"""A session: one client's speech on its way to the model, and the results on their way back.

Everything here happens on the event loop. While the model works on a stream's state, in its own thread, new audio waits in an
inbox, so that nobody else touches the state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simulsa.audio import AudioError, samples_to_s
from simulsa.serving.clock import SpeechClock
from simulsa.serving.config import ServeConfig
from simulsa.streaming.state import StreamConfig, StreamState, Update


@dataclass(frozen=True)
class Result:
    """News of a session: an update, what of its committed text is new, how many chunks the step took at once, and how many
    seconds after its audio was due it came."""

    update: Update
    delta: str
    chunks: int
    lag_s: float


class Speech(Protocol):
    """What a session needs of the speech that it translates, from its first sample to its last."""

    def receive(self, samples: np.ndarray) -> None:
        """Add float32 mono audio at `SAMPLE_RATE`. Raises `AudioError` if it cannot be taken."""
        ...

    def close(self) -> None:
        """Say that no more audio will come."""
        ...

    def next_state(self) -> StreamState | None:
        """The state that `step` should advance next, or `None` if more audio is needed."""
        ...

    def apply(self, update: Update) -> Update:
        """Take note of what `step` did to that state; returns the update as it looks for the whole speech."""
        ...


class Utterance:
    """A speech that is one stream, as long as the model's window."""

    def __init__(self, config: StreamConfig, max_samples: int) -> None:
        self._state = StreamState(config, max_samples)
        self.receive = self._state.receive
        self.close = self._state.close

    def next_state(self) -> StreamState | None:
        """The stream's state, if it has a chunk waiting."""
        return None if self._state.next_samples() is None else self._state

    def apply(self, update: Update) -> Update:
        """The stream's update is the speech's."""
        return update


class Session:
    """One client: speeches in, one after the other, results out.

    `wake` is called when there may be work for the model. A session that is not `live` is a recording: its chunks are never
    late, so they are never merged.
    """

    def __init__(
        self,
        open_speech: Callable[[StreamConfig], Speech],
        config: StreamConfig,
        limits: ServeConfig,
        wake: Callable[[], None],
        live: bool = True,
    ) -> None:
        self._open_speech = open_speech
        self._limits = limits
        self._wake = wake
        self.live = live
        self._results: asyncio.Queue[Result | None] = asyncio.Queue()
        self._room, self._settled = asyncio.Event(), asyncio.Event()
        self._stepping = False
        self.error: Exception | None = None
        self.ended = ""
        self.started = time.monotonic()
        self.begin(config)

    def begin(self, config: StreamConfig) -> None:
        """Start a new speech; the last one must be settled or without any audio."""
        self.config = config
        self._speech = self._open_speech(config)
        self._clock = SpeechClock()
        self._began = time.monotonic()
        self._inbox: list[np.ndarray] = []
        self._shown = ""
        self.finishing = self._closed = False
        self.received_samples = self.heard_samples = 0
        self._settled.clear()

    @property
    def unheard_s(self) -> float:
        """Seconds of audio that have come in and that the model has not heard."""
        return samples_to_s(self.received_samples - self.heard_samples)

    @property
    def untouched(self) -> bool:
        """Whether the speech has neither audio nor an end, so that its settings can still be changed."""
        return self.received_samples == 0 and not self.finishing

    async def hear(self, samples: np.ndarray) -> None:
        """Take in float32 mono audio at `SAMPLE_RATE`; returns when there is room for more. Audio after `finish` begins a new
        speech. Ignored once the session has ended."""
        if self.finishing and not self.ended:
            await self.settled()
            self.begin(self.config)
        if self.ended or self.error is not None or len(samples) == 0:
            return
        self.received_samples += len(samples)
        self._clock.arrived(len(samples), time.monotonic())
        self._inbox.append(samples)
        self._take_in()
        ahead_s = samples_to_s(self.received_samples) / self._limits.max_speed - (time.monotonic() - self._began)
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
        while self.unheard_s > self._limits.max_unheard_s and self._has_work():
            self._room.clear()
            await self._room.wait()

    def finish(self) -> None:
        """End the speech: its last result will be final."""
        if self.finishing:
            return
        self.finishing = True
        if self.received_samples == 0:
            self._put(Result(Update("", "", 0, 0.0, final=True), "", 0, 0.0))
        self._take_in()

    async def settled(self) -> None:
        """Wait for the final result of a speech after `finish`, or for a failure."""
        await self._settled.wait()

    def end(self, reason: str) -> None:
        """Finish and take no more speech; the results end with the final one. The first reason given counts."""
        if self.ended:
            return
        self.ended = reason
        if self.untouched or self._settled.is_set():
            self._results.put_nowait(None)
        else:
            self.finish()

    def fail(self, error: Exception) -> None:
        """Stop with an error, which `results` will raise."""
        self._stepping = False
        if self.error is None:
            self.error = error
            self._results.put_nowait(None)
        self._room.set()
        self._settled.set()

    async def results(self) -> AsyncIterator[Result]:
        """Results in order until the session has ended; raises what made it fail."""
        while (result := await self._results.get()) is not None:
            yield result
        if self.error is not None:
            raise self.error

    def waits_since(self) -> float | None:
        """When the chunk that waits for the model was due, or `None` if none does; recordings are due last."""
        if self._stepping or self.error is not None or not self._has_work():
            return None
        return self._clock.due(self._next_position()) if self.live else float("inf")

    def take(self, now: float) -> StreamState:
        """The state to advance, which is the model's until `deliver` or `fail`; there must be a chunk waiting."""
        state = self._speech.next_state()
        assert state is not None
        state.chunks_at_once = self._overdue_chunks(now)
        self._stepping = True
        return state

    def deliver(self, update: Update, now: float) -> Result:
        """Take the step's update."""
        self._stepping = False
        update = self._speech.apply(update)
        lag_s = max(0.0, now - self._clock.due(update.audio_samples)) if self.live else 0.0
        chunk = self.config.chunk_samples
        chunks = 1 if chunk is None else max(1, (update.audio_samples - self.heard_samples) // chunk)
        result = Result(update, update.committed[len(self._shown) :], chunks, lag_s)
        self._shown = update.committed
        self.heard_samples = update.audio_samples
        self._clock.forget(self.heard_samples)
        self._put(result)
        self._take_in()
        self._room.set()
        return result

    def _put(self, result: Result) -> None:
        self._results.put_nowait(result)
        if result.update.final:
            self._settled.set()
            if self.ended:
                self._results.put_nowait(None)

    def _take_in(self) -> None:
        if self._stepping or self.error is not None:
            return
        try:
            for samples in self._inbox:
                self._speech.receive(samples)
            self._inbox.clear()
            if self.finishing and not self._closed and self.received_samples:
                self._closed = True
                self._speech.close()
        except AudioError as error:
            self.fail(error)
        self._wake()

    def _has_work(self) -> bool:
        return self._stepping or (self.error is None and self._speech.next_state() is not None)

    def _next_position(self) -> int:
        return min(self.received_samples, self.heard_samples + (self.config.chunk_samples or self.received_samples))

    def _overdue_chunks(self, now: float) -> int:
        """How many chunks the speaker has finished that the model has not heard, at least one."""
        chunk = self.config.chunk_samples
        count = 1
        if self.live and self._limits.merge_chunks and chunk is not None:
            while self._clock.due(self.heard_samples + (count + 1) * chunk) <= now:
                count += 1
        return count
