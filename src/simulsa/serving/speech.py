"""The model's side of a session: speech from its first sample to its last, touched by the model's thread only."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from simulsa.lalm.interface import LALM
from simulsa.streaming.state import StreamConfig, StreamState, Update
from simulsa.streaming.step import step

logger = logging.getLogger("simulsa")


class Speech(Protocol):
    """What is translated: one stream, or many one after the other."""

    def receive(self, samples: np.ndarray) -> None:
        """Add float32 mono audio at `SAMPLE_RATE`. Raises `AudioError` if it cannot be taken."""
        ...

    def close(self) -> None:
        """Say that no more audio will come."""
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

    def next_state(self, chunks: int) -> StreamState | None:
        """The stream's state, if it has a chunk waiting."""
        self._state.chunks_at_once = chunks
        return None if self._state.next_samples() is None else self._state

    def apply(self, update: Update) -> Update:
        """The stream's update is the speech's."""
        return update

    def conclude(self) -> None:
        """There is always a last step."""


@dataclass
class Turn:
    """What a session hands to the model: audio that has come in, whether it was the last, and how many chunks may be heard at
    once. Then what came of it: an update, or an error, and whether there may be more to do."""

    speech: Speech
    audio: Sequence[np.ndarray]
    closing: bool
    chunks: int
    update: Update | None = None
    error: Exception | None = None
    again: bool = False

    def take_in(self) -> StreamState | None:
        """Add the audio; returns the state that is ready for a step."""
        for samples in self.audio:
            self.speech.receive(samples)
        if self.closing:
            self.speech.close()
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
    ready: list[tuple[Turn, StreamState]] = []
    for turn in turns:
        try:
            state = turn.take_in()
        except Exception as error:
            turn.error = error
            continue
        if state is not None:
            turn.again = True
            ready.append((turn, state))
    now = ready[:max_batch]
    for (turn, _), outcome in zip(now, advance(lalm, [state for _, state in now]), strict=True):
        if isinstance(outcome, Exception):
            turn.error = outcome
        else:
            turn.apply(outcome)


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
