"""What the model is shown of earlier speech: its audio, and the text that was committed for it, as a forced prefix.

Both are trimmed together, so that the model never reads a translation of what it does not hear.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Protocol

import numpy as np

from simulsa.lalm.interface import LALM
from simulsa.lalm.text import INCOMPLETE, ends_sentence
from simulsa.languages import is_spaced
from simulsa.streaming.segmentation import LongformConfig
from simulsa.streaming.state import StreamState


class Carrier(Protocol):
    """Carries history from segment to segment."""

    def start(self, state: StreamState) -> None:
        """Put the history into a new state."""
        ...

    def make_room(self, state: StreamState, samples: int) -> None:
        """Before `samples` more are received: forget what would not fit any more."""
        ...

    def advance(self, state: StreamState, heard_samples: int) -> None:
        """After a step of a state that had heard `heard_samples` before it."""
        ...

    def end(self, state: StreamState) -> None:
        """After the last step of a segment."""
        ...


def carrier(lalm: LALM, config: LongformConfig) -> Carrier:
    """What `config.history` names. Raises `ValueError` if the model's window is too short for any segment."""
    longest = config.longest_segment(lalm.max_samples)
    if config.history in ("sentence", "segments"):
        return LastSegments(lalm, min(2 * longest, lalm.max_samples), unfinished=config.history == "sentence")
    if config.history == "window":
        return SlidingWindow(lalm, longest, config.history_words)
    return Nothing()


class Nothing:
    """Every segment stands alone."""

    def start(self, state: StreamState) -> None:
        """Nothing to put."""

    def make_room(self, state: StreamState, samples: int) -> None:
        """Nothing to forget."""

    def advance(self, state: StreamState, heard_samples: int) -> None:
        """Nothing to learn."""

    def end(self, state: StreamState) -> None:
        """Nothing to keep."""


class LastSegments:
    """The last whole segments that had a translation, as many as fit; as the new one grows, the oldest are forgotten.

    With `unfinished`, only those of a sentence that goes on: one whose translation ends a sentence ends the history too.
    """

    def __init__(self, lalm: LALM, room: int, unfinished: bool = False) -> None:  # room in samples
        self._lalm = lalm
        self._room = room
        self._unfinished = unfinished
        self._audio = np.zeros(0, dtype=np.float32)
        self._tokens: list[int] = []
        self._lengths: list[tuple[int, int]] = []  # tokens and samples of each earlier segment

    def start(self, state: StreamState) -> None:
        """Put the history into a new state."""
        _put(self._lalm, state, self._audio, self._tokens)

    def make_room(self, state: StreamState, samples: int) -> None:
        """Forget the oldest segments that would not fit any more."""
        while self._lengths and len(state.audio) + samples > self._room:
            forget(self._lalm, state, *self._lengths.pop(0))

    def advance(self, state: StreamState, heard_samples: int) -> None:
        """Nothing to learn."""

    def end(self, state: StreamState) -> None:
        """Keep the segment, if it has a translation."""
        tokens = len(state.committed) - sum(count for count, _ in self._lengths)
        samples = len(state.audio) - sum(count for _, count in self._lengths)
        if tokens:
            self._lengths.append((tokens, samples))
        else:
            state.audio = state.audio[: len(state.audio) - samples]
        self._audio, self._tokens = state.audio, state.committed
        if self._unfinished and ends_sentence(state.shown):
            self._audio, self._tokens, self._lengths = self._audio[:0], [], []


class SlidingWindow:
    """The last words of the translation and the audio from where they begin (StreamAtt, Papi et al., ACL 2024).

    StreamAtt finds by cross-attention where a word's audio is. Here it is taken to begin no earlier than the chunk after which
    a hypothesis first reached the word, which any model and policy can tell.
    """

    def __init__(self, lalm: LALM, room: int, words: int) -> None:  # room in samples
        self._lalm = lalm
        self._room = room
        self._words = words
        self._audio = np.zeros(0, dtype=np.float32)
        self._tokens: list[int] = []
        self._begins: list[int] = []  # for each token of the last hypothesis, the earliest sample of the state that it is about

    def start(self, state: StreamState) -> None:
        """Put the history into a new state."""
        _put(self._lalm, state, self._audio, self._tokens)

    def make_room(self, state: StreamState, samples: int) -> None:
        """Forget the audio that would not fit any more, and the text that is about it."""
        excess = len(state.audio) + samples - self._room
        if excess > 0:
            self._forget(state, bisect_left(self._begins, excess), excess)

    def advance(self, state: StreamState, heard_samples: int) -> None:
        """Forget the text before the last words, and its audio."""
        reached = len(state.committed) + len(state.draft)
        self._begins += [heard_samples] * (reached - len(self._begins))
        first = self._first_kept(state)
        if first:
            self._forget(state, first, self._begins[first] if first < len(self._begins) else 0)

    def end(self, state: StreamState) -> None:
        """Keep what the window holds."""
        self._audio, self._tokens = state.audio, state.committed
        del self._begins[len(state.committed) :]

    def _first_kept(self, state: StreamState) -> int:
        """The first token of the last words of the committed text."""
        spaced = is_spaced(state.config.target_lang)

        def text_from(first: int) -> str:
            return self._lalm.decode(state.committed[first:])

        def fits(first: int) -> bool:
            return len(text_from(first).split() if spaced else text_from(first).strip()) <= self._words

        first = bisect_left(range(len(state.committed)), True, key=fits)
        while text_from(first).startswith(INCOMPLETE) and text_from(first).strip(INCOMPLETE):
            first += 1  # not inside a character
        return first

    def _forget(self, state: StreamState, tokens: int, samples: int) -> None:
        tokens = min(tokens, len(state.committed))
        forget(self._lalm, state, tokens, samples)
        self._begins = [max(0, begin - samples) for begin in self._begins[tokens:]]


def forget(lalm: LALM, state: StreamState, tokens: int, samples: int) -> None:
    """Drop the first `tokens` and the first `samples` of a state, which it must have heard."""
    unshown = len(lalm.decode(state.committed)) - len(state.shown)
    state.committed = state.committed[tokens:]
    state.previous = [hypothesis[tokens:] for hypothesis in state.previous]
    text = lalm.decode(state.committed)
    state.shown = text[: max(0, len(text) - unshown)]
    state.audio = state.audio[samples:]
    state.heard_samples -= samples


def _put(lalm: LALM, state: StreamState, audio: np.ndarray, tokens: list[int]) -> None:
    """Let a new state begin behind `audio` that was translated as `tokens`."""
    state.audio, state.heard_samples = audio, len(audio)
    state.committed, state.shown = list(tokens), lalm.decode(tokens)
