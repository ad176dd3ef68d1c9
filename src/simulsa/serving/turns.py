"""The model thread's side of a session: its new audio, and the outcome of the model call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from simulsa.lalm.interface import LALM
from simulsa.streaming.state import StreamState, Update, run_vad
from simulsa.streaming.step import step

logger = logging.getLogger("simulsa")


@dataclass
class Turn:
    """What a session hands to the model: new audio, whether it was the last, and how many chunks may be merged.

    Filled in by the model thread: how much audio is done, an update or an error, and whether there may be more to do.
    """

    stream: StreamState
    audio: Sequence[np.ndarray]
    closing: bool
    chunks: int
    done_samples: int = 0
    update: Update | None = None
    error: Exception | None = None
    again: bool = False

    def take_in(self) -> None:
        """Pass the audio to the stream."""
        for samples in self.audio:
            self.stream.receive(samples)
        if self.closing:
            self.stream.close()
        self.stream.chunks_at_once = self.chunks

    def look(self) -> None:
        """Check whether a step is due; if not, this may be the end of the stream."""
        if self.stream.ready() is not None:
            self.again = True
        elif self.stream.closed and not self.stream.finished:
            self.update = self.stream.conclude()


def take_turns(lalm: LALM, turns: Sequence[Turn], max_batch: int) -> None:
    """Feed all streams their audio and advance those that are ready, the first `max_batch` of them, in one model call.

    An error is recorded in the turn that caused it and affects no other.
    """
    taken = [turn for turn in turns if _tried(turn, turn.take_in)]
    try:
        run_vad([turn.stream for turn in taken])
    except Exception as error:  # ready() raises it again for the stream that causes it
        logger.warning("%d sessions failed in voice activity detection (%s); trying them one by one", len(taken), error)
    ready = [turn for turn in taken if _tried(turn, turn.look) and turn.again]
    for turn, outcome in zip(ready, _advanced(lalm, [turn.stream for turn in ready[:max_batch]]), strict=False):
        if isinstance(outcome, Exception):
            turn.error = outcome
        else:
            turn.update = outcome
    for turn in turns:
        if turn.update is not None or not turn.again:  # a stream that did not fit in the batch waits as before
            turn.done_samples = turn.stream.done_samples


def _tried(turn: Turn, work: Callable[[], None]) -> bool:
    """Whether `work` succeeded; an error is recorded in the turn."""
    try:
        work()
    except Exception as error:
        turn.error = error
    return turn.error is None


def _advanced(lalm: LALM, streams: Sequence[StreamState]) -> list[Update | Exception]:
    """`step` for all streams at once; if it raises, one by one, so that the error stays with the stream that causes it."""
    try:
        return list(step(lalm, streams))
    except Exception as error:
        if len(streams) == 1:
            return [error]
        logger.warning("a batch of %d streams failed (%s); trying them one by one", len(streams), error)
        return [_advanced(lalm, [stream])[0] for stream in streams]
