"""When audio was due: the reference for measuring lag."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from simulsa.audio import s_to_samples, samples_to_s

# If a client sends faster than real time, its audio was not spoken that fast. Speech is assumed to take this share of its
# length, a little less than 1, so that the clock catches up with the speaker's own after the network has stalled.
PACE = 0.9


class SpeechClock:
    """When each sample of a stream was due: at its arrival, but no sooner than it can have been spoken.

    Positions are samples at `SAMPLE_RATE` from the start of the stream, times are seconds of any monotonic clock.
    """

    def __init__(self) -> None:
        self._ends: list[int] = []  # the last position of each packet,
        self._dues: list[float] = []  # and when it was due; both in order
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
        """The position up to which audio was due at `now`; 0 if all due audio has been forgotten."""
        packet = bisect_right(self._dues, now)
        if packet == len(self._dues):
            return self._end
        start = self._ends[packet - 1] if packet else 0
        return max(start, self._ends[packet] - s_to_samples((self._dues[packet] - now) / PACE))

    def forget(self, position: int) -> None:
        """Discard everything before `position`."""
        known = bisect_left(self._ends, position)
        del self._ends[:known], self._dues[:known]
