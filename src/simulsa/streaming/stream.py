"""`Stream`: audio in, updates out, for one speaker."""

from __future__ import annotations

import numpy as np

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.interface import LALM
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.state import StreamState, Update
from simulsa.streaming.step import step
from simulsa.streaming.vad import VAD


class Stream:
    """Translate speech while it arrives.

    >>> stream = Stream(lalm, StreamConfig(target_lang="de", chunk_ms=500, rollback=3))
    >>> for chunk in chunks:
    ...     for update in stream.push(chunk):
    ...         print(update.committed, update.tentative)
    >>> stream.finish()[-1].committed

    With `segmentation=SegmentationConfig()` the speech may be of any length (long-form); with `from_start=False` as well, it is
    segmented only if it turns out to be long. Any split of the same audio into pushes gives the same updates. A failed step
    leaves the state as it was. The arguments are those of `StreamState`.
    """

    def __init__(
        self,
        lalm: LALM,
        config: StreamConfig | None = None,
        segmentation: SegmentationConfig | None = None,
        vad: VAD | None = None,
        from_start: bool = True,
    ) -> None:
        self.lalm = lalm
        self.config = (config or StreamConfig()).for_model(lalm)
        self._segmentation, self._vad, self._from_start = segmentation, vad, from_start
        self.reset()

    def reset(self) -> None:
        """Discard all state, ready for a new stream."""
        self.state = StreamState(self.lalm, self.config, self._segmentation, self._vad, self._from_start)

    def push(self, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> list[Update]:
        """Add float32 mono audio of any length; returns an update for each full chunk and each segment that ended."""
        self.state.receive(samples, sample_rate)
        return self._advance()

    def finish(self) -> list[Update]:
        """End the stream; the last update is final and has no tentative text."""
        if self.state.finished:
            return []
        self.state.close()
        updates = self._advance()
        return updates if self.state.finished else [*updates, self.state.conclude()]

    def _advance(self) -> list[Update]:
        updates: list[Update] = []
        while self.state.ready() is not None:
            updates += step(self.lalm, [self.state])
        return updates
