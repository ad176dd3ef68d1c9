"""When audio was due: the reference for measuring lag."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from simulsa.audio import s_to_samples, samples_to_s

# A client that sends faster than real time did not have its audio spoken that fast. Its speech is taken to last this much of its
# length, a little less than all, so that the clock comes back to a speaker's own after a stall of the network.
PACE = 0.9


class SpeechClock:
    """When each sample of a stream was due: at its arrival, but no sooner than it can have been spoken.

    Positions are samples at `SAMPLE_RATE` from the start of the stream, times are seconds of any monotonic clock.
    """

    def __init__(self) -> None:
        self._ends: list[int] = []  # of each packet, its last position,
        self._dues: list[float] = []  # and when that was due, both in order
        self._end = 0
        self._due = 0.0

    def arrived(self, samples: int, now: float) -> None:
        """Record that `samples` more have arrived."""
        spoken_s = PACE * samples_to_s(samples)
        self._due = max(now, self._due + spoken_s) if self._end else now + spoken_s
        self._end += samples
        self._ends.append(self._end)
        self._dues.append(self._due)

    def due(self, position: int) -> float:
        """When the audio before `position` was due; `inf` if it has not arrived."""
        packet = bisect_left(self._ends, position)
        if packet == len(self._ends):
            return float("inf")
        return self._dues[packet] - PACE * samples_to_s(self._ends[packet] - position)

    def due_by(self, now: float) -> int:
        """The position that was due at `now`; 0 if all due audio is forgotten."""
        packet = bisect_right(self._dues, now)
        if packet == len(self._dues):
            return self._end
        start = self._ends[packet - 1] if packet else 0
        return max(start, self._ends[packet] - s_to_samples((self._dues[packet] - now) / PACE))

    def forget(self, position: int) -> None:
        """Discard everything before `position`."""
        known = bisect_left(self._ends, position)
        del self._ends[:known], self._dues[:known]
