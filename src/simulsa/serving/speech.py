"""The model's side of a session: speech from its first sample to its last, touched by the model's thread only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from simulsa.lalm.interface import LALM
from simulsa.streaming.longform import LongState, listen
from simulsa.streaming.state import StreamConfig, StreamState, Update
from simulsa.streaming.step import step

T = TypeVar("T")

logger = logging.getLogger("simulsa")


class Speech(Protocol):
    """What is translated: one stream, or many one after the other."""

    @property
    def done_samples(self) -> int:
        """How much audio needs no more work: the model has heard it, or it was found to be no speech."""
        ...

    def receive(self, samples: np.ndarray) -> None:
        """Add float32 mono audio at `SAMPLE_RATE`. Raises `AudioError` if it cannot be taken."""
        ...

    def close(self) -> None:
        """Say that no more audio will come."""
        ...

    def listener(self, chunks: int) -> LongState | None:
        """What has to listen before there is a next state, which takes up to so many chunks at once; `None` if nothing has to."""
        ...

    def next_state(self, chunks: int) -> StreamState | None:
        """The state that `step` should advance next, by up to so many chunks at once; `None` if it takes more audio."""
        ...

    def apply(self, update: Update) -> Update:
        """Take note of what `step` did to that state; returns the update as it looks for the whole speech."""
        ...

    def conclude(self) -> Update | None:
        """When there is no next state: the final update of a closed speech, if that takes no step."""
        ...


class Utterance:
    """A speech that is one stream, as long as the model's window; its last step is its end."""

    def __init__(self, config: StreamConfig, max_samples: int) -> None:
        self._state = StreamState(config, max_samples)
        self.receive = self._state.receive
        self.close = self._state.close

    @property
    def done_samples(self) -> int:
        """What the model has heard."""
        return self._state.heard_samples

    def listener(self, chunks: int) -> None:
        """All audio goes to the model."""

    def next_state(self, chunks: int) -> StreamState | None:
        """The stream's state, if it has a chunk waiting."""
        self._state.chunks_at_once = chunks
        return None if self._state.next_samples() is None else self._state

    def apply(self, update: Update) -> Update:
        """The stream's update is the speech's."""
        return update

    def conclude(self) -> None:
        """There is always a last step."""


class Talk:
    """A speech without end: a segment from pause to pause, each of them a stream."""

    def __init__(self, lalm: LALM, config: StreamConfig) -> None:
        self._state = LongState(lalm, config)
        self.done_samples = 0
        self.receive = self._state.receive
        self.close = self._state.close

    def listener(self, chunks: int) -> LongState:
        """It finds where there is speech."""
        self._state.chunks_at_once = chunks
        return self._state

    def next_state(self, chunks: int) -> StreamState | None:
        """The open segment's state, if it has a chunk waiting; if not, all that was judged is done with."""
        state = self.listener(chunks).next_state()
        if state is None:
            self.done_samples = self._state.position
        return state

    def apply(self, update: Update) -> Update:
        """The update in terms of the whole speech."""
        whole = self._state.apply(update)
        self.done_samples = whole.audio_samples
        return whole

    def conclude(self) -> Update | None:
        """The last update, which is about no segment."""
        return self._state.conclude() if self._state.closed and not self._state.finished else None


@dataclass
class Turn:
    """What a session hands to the model: audio that has come in, whether it was the last, and how many chunks may be heard at
    once. Then what came of it: an update, or an error, how much audio is done with, and whether there may be more to do."""

    speech: Speech
    audio: Sequence[np.ndarray]
    closing: bool
    chunks: int
    update: Update | None = None
    error: Exception | None = None
    again: bool = False
    done_samples: int = 0

    def take_in(self) -> LongState | None:
        """Add the audio; returns what has to listen to it."""
        for samples in self.audio:
            self.speech.receive(samples)
        if self.closing:
            self.speech.close()
        return self.speech.listener(self.chunks)

    def next_state(self) -> StreamState | None:
        """The state that is ready for a step; if there is none, this may be the end."""
        state = self.speech.next_state(self.chunks)
        if state is None:
            self.update = self.speech.conclude()
        return state

    def apply(self, update: Update) -> None:
        """Take note of the step."""
        try:
            self.update = self.speech.apply(update)
        except Exception as error:
            self.error = error


def take_turns(lalm: LALM, turns: Sequence[Turn], max_batch: int) -> None:
    """Take in everybody's audio and advance those who are ready, the first `max_batch` of them, by one call of the model.

    What goes wrong with one of them is noted there and harms no other.
    """
    listeners = [listener for turn in turns if (listener := _tried(turn, turn.take_in)) is not None]
    try:
        listen(listeners)
    except Exception as error:  # it comes again to the one that causes it, in next_state
        logger.warning("%d sessions could not listen together (%s); trying them one by one", len(listeners), error)
    ready = [(turn, state) for turn in turns if turn.error is None and (state := _tried(turn, turn.next_state)) is not None]
    for turn, _ in ready:
        turn.again = True
    now = ready[:max_batch]
    for (turn, _), outcome in zip(now, advance(lalm, [state for _, state in now]), strict=True):
        if isinstance(outcome, Exception):
            turn.error = outcome
        else:
            turn.apply(outcome)
    for turn in turns:
        turn.done_samples = turn.speech.done_samples


def _tried(turn: Turn, work: Callable[[], T]) -> T | None:
    """What `work` returns; if it raises, nothing, and the turn has the error."""
    try:
        return work()
    except Exception as error:
        turn.error = error
        return None


def advance(lalm: LALM, states: Sequence[StreamState]) -> list[Update | Exception]:
    """`step` for all states at once; if it raises, one by one, so that the error stays with the stream that causes it."""
    before = [_copy(state) for state in states]
    try:
        return list(step(lalm, states))
    except Exception as error:
        if len(states) == 1:
            return [error]
        logger.warning("a batch of %d streams failed (%s); trying them one by one", len(states), error)
        for state, values in zip(states, before, strict=True):  # some may have been advanced before it failed
            vars(state).update(values)
        return [advance(lalm, [state])[0] for state in states]


def _copy(state: StreamState) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, list) else value for name, value in vars(state).items()}
