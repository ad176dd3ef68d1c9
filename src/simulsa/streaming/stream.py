"""`Stream`: speech in, updates out, for one speaker."""

from __future__ import annotations

import numpy as np

from simulsa.lalm.interface import LALM
from simulsa.streaming.state import StreamConfig, StreamState, Update
from simulsa.streaming.step import step


class Stream:
    """Translate speech while it arrives.

    >>> stream = Stream(lalm, StreamConfig(target_lang="de", chunk_ms=500, rollback=3))
    >>> for chunk in chunks:
    ...     for update in stream.push(chunk):
    ...         print(update.committed, update.tentative)
    >>> stream.finish()[-1].committed

    Any split of the same audio into pushes gives the same updates. A failed step leaves the state as it was.
    """

    def __init__(self, lalm: LALM, config: StreamConfig | None = None) -> None:
        self.lalm = lalm
        self.config = (config or StreamConfig()).for_model(lalm)
        self.reset()

    def reset(self) -> None:
        """Forget everything, ready for new speech."""
        self.state = StreamState(self.config, self.lalm.max_samples)

    def push(self, samples: np.ndarray) -> list[Update]:
        """Add float32 mono audio at 16 kHz, any length; returns an update for each chunk that became full."""
        self.state.receive(samples)
        return self._advance()

    def finish(self) -> list[Update]:
        """End the speech; the last update is final and has nothing tentative."""
        if self.state.finished:
            return []
        self.state.close()
        return self._advance()

    def _advance(self) -> list[Update]:
        updates: list[Update] = []
        while self.state.next_samples() is not None:
            updates += step(self.lalm, [self.state])
        return updates
