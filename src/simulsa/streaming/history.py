"""Context carried over from earlier segments: their audio, and their committed text as a forced prefix.

Both are trimmed together, so that the model never reads a translation of audio it does not hear.
"""

from __future__ import annotations

import numpy as np

from simulsa.lalm.interface import LALM
from simulsa.lalm.text import ends_sentence
from simulsa.streaming.policies import Policy
from simulsa.streaming.segment import SegmentState
from simulsa.streaming.segmentation import SegmentationConfig


class SegmentHistory:
    """Carries the segments of an unfinished sentence into the next one, with `history sentence`; otherwise nothing.

    Only whole segments with a translation are carried, as many as fit beside the new one; as it grows, the oldest are dropped.
    Raises `ValueError` if the model's window is too short for any segment, and for a policy that does not support carried words.
    """

    def __init__(self, lalm: LALM, config: SegmentationConfig | None, policy: Policy) -> None:
        self._lalm = lalm
        self._carries = config is not None and config.history == "sentence"
        if self._carries and policy.counts_words:
            raise ValueError(
                f"policy is {policy}, which counts words from where the model begins to hear, and history is 'sentence', which "
                "carries words over: choose another policy, or history 'none'"
            )
        # samples, the new segment's included
        self._room = min(2 * config.longest_segment(lalm.max_samples), lalm.max_samples) if config else lalm.max_samples
        self._audio = np.zeros(0, dtype=np.float32)
        self._tokens: list[int] = []
        self._lengths: list[tuple[int, int]] = []  # tokens and samples of each segment carried

    def start(self, state: SegmentState) -> None:
        """Initialise a new state with the carried segments."""
        state.audio, state.heard_samples = self._audio, len(self._audio)
        state.committed, state.shown = list(self._tokens), self._lalm.decode(self._tokens)

    def make_room(self, state: SegmentState, samples: int) -> None:
        """Before the state receives `samples` more: drop the oldest segments that would no longer fit."""
        while self._lengths and len(state.audio) + samples > self._room:
            forget(self._lalm, state, *self._lengths.pop(0))

    def end(self, state: SegmentState) -> None:
        """After the last step of a segment: keep it if it has a translation; a finished sentence clears the history."""
        if not self._carries:
            return
        tokens = len(state.committed) - sum(count for count, _ in self._lengths)
        samples = len(state.audio) - sum(count for _, count in self._lengths)
        if tokens:
            self._lengths.append((tokens, samples))
        else:
            state.audio = state.audio[: len(state.audio) - samples]
        self._audio, self._tokens = state.audio, state.committed
        if ends_sentence(state.shown):
            self._audio, self._tokens, self._lengths = self._audio[:0], [], []


def forget(lalm: LALM, state: SegmentState, tokens: int, samples: int) -> None:
    """Drop the first `tokens` and the first `samples` of a state, which it must have heard."""
    unshown = len(lalm.decode(state.committed)) - len(state.shown)
    state.committed = state.committed[tokens:]
    state.previous = [hypothesis[tokens:] for hypothesis in state.previous]
    text = lalm.decode(state.committed)
    state.shown = text[: max(0, len(text) - unshown)]
    state.audio = state.audio[samples:]
    state.heard_samples -= samples
