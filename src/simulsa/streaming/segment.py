"""A segment of speech during translation: the audio available to the model, and the committed tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class SegmentState:
    """Everything known about an open segment between two steps."""

    chunk_samples: int | None
    """k, or `None` for offline translation"""
    audio: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    """audio available to the next steps, float32 mono `[samples]`"""
    heard_samples: int = 0
    """how much of it the model has heard"""
    committed: list[int] = field(default_factory=list)
    """final tokens"""
    draft: list[int] = field(default_factory=list)
    """the uncommitted rest of the last hypothesis"""
    previous: list[list[int]] = field(default_factory=list)
    """the last hypotheses, as many as the policy remembers"""
    truncated: bool = False
    """whether the last hypothesis reached the model's token limit"""
    chunks: int = 0
    """number of hypotheses so far"""
    shown: str = ""
    """final text"""
    closed: bool = False
    """no more audio will come"""
    finished: bool = False
    """the final step is done"""

    def next_samples(self, chunks: int) -> int | None:
        """How much audio the next step will have heard, of at most `chunks` more; `None` if it has to wait for more."""
        chunk = self.chunk_samples
        if chunk is not None and (waiting := (len(self.audio) - self.heard_samples) // chunk):
            return self.heard_samples + min(waiting, chunks) * chunk
        return len(self.audio) if self.closed and not self.finished else None

    def is_final(self, end: int) -> bool:
        """Whether a step that hears up to `end` is the last one."""
        return self.chunk_samples is None or end - self.heard_samples < self.chunk_samples

    def advance(self, tokens: list[int], committed: int, shown: str, heard_samples: int, remembered: int) -> None:
        """Take note of a hypothesis of which the first `committed` tokens are final."""
        self.committed, self.draft = tokens[:committed], tokens[committed:]
        self.shown, self.heard_samples = shown, heard_samples
        self.previous = [*self.previous, tokens][-remembered:] if remembered else []
        self.chunks += 1
