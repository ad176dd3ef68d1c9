"""When speech was spoken, as far as its arrival tells: what lag is measured against."""

from __future__ import annotations

from collections import deque

from simulsa.audio import samples_to_s

# A client that sends faster than real time did not have its audio spoken that fast. Its speech is taken to last this much of its
# length, a little less than all, so that the clock comes back to a speaker's own after a stall of the network.
PACE = 0.9


class SpeechClock:
    """When each sample of a stream was due: at its arrival, but no sooner than it can have been spoken.

    Positions are samples at `SAMPLE_RATE` from the start of the stream, times seconds of any monotonic clock.
    """

    def __init__(self) -> None:
        self._packets: deque[tuple[int, float]] = deque()  # (position of the end, when that was due), in order
        self._end = 0
        self._due = 0.0

    def arrived(self, samples: int, now: float) -> None:
        """Note that `samples` more have come in."""
        spoken_s = PACE * samples_to_s(samples)
        self._due = max(now, self._due + spoken_s) if self._end else now + spoken_s
        self._end += samples
        self._packets.append((self._end, self._due))

    def due(self, position: int) -> float:
        """When the audio before `position` was due; `inf` if it has not come in."""
        for end, due in self._packets:
            if position <= end:
                return due - PACE * samples_to_s(end - position)
        return float("inf")

    def forget(self, position: int) -> None:
        """Nothing before `position` will be asked for again."""
        while self._packets and self._packets[0][0] < position:
            self._packets.popleft()
