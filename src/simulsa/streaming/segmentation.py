"""Segmentation of long-form speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulsa.audio import SAMPLE_RATE, ms_to_samples, s_to_samples, samples_to_ms
from simulsa.streaming.vad import WINDOW_SAMPLES

MIN_SEGMENT_S = 2.0
_MARGIN_SAMPLES = SAMPLE_RATE // 2  # kept unused at the end of the model's window
_SEARCH_SAMPLES = SAMPLE_RATE  # the last second of a segment of maximum length is searched for a quiet point
_HYSTERESIS = 0.15  # speech continues until the probability is this far below the threshold, as in Silero's iterator,
_LEAST_PROBABILITY = 0.01  # or below this value in any case
_QUIET_WINDOWS = 3  # 96 ms: quiet places shorter than this are consonants


@dataclass(frozen=True)
class SegmentationConfig:
    """How long-form speech is split into segments."""

    min_silence_ms: float = 500
    """length of a pause that ends a segment"""
    max_segment_s: float = 20
    """maximum segment length; speech without pauses is split at its quietest spot, earlier if the model's window requires it;
    recordings up to this length are not segmented"""
    padding_ms: float = 100
    """audio kept before and after the speech of a segment"""
    min_speech_ms: float = 100
    """shorter bursts of speech are ignored as noise"""
    speech_threshold: float = 0.5
    """Silero VAD's probability from which a 32 ms window counts as speech"""

    def __post_init__(self) -> None:
        if not samples_to_ms(WINDOW_SAMPLES) <= self.min_silence_ms < float("inf"):
            raise ValueError(f"min_silence_ms is {self.min_silence_ms}; it must be at least {samples_to_ms(WINDOW_SAMPLES):g}")
        if not 0 <= self.padding_ms <= self.min_silence_ms:
            raise ValueError(
                f"padding_ms is {self.padding_ms} and min_silence_ms {self.min_silence_ms}; "
                "the padding must be 0 or more, and no longer than the pause"
            )
        if not self.max_segment_s >= MIN_SEGMENT_S:
            raise ValueError(f"max_segment_s is {self.max_segment_s}; it must be at least {MIN_SEGMENT_S:g}")
        if not 0 <= self.min_speech_ms < 1000 * MIN_SEGMENT_S:
            raise ValueError(f"min_speech_ms is {self.min_speech_ms}; it must be from 0 to less than {1000 * MIN_SEGMENT_S:g}")
        if not 0 < self.speech_threshold < 1:
            raise ValueError(f"speech_threshold is {self.speech_threshold}; it must be between 0 and 1")

    def is_long(self, samples: int, max_samples: int) -> bool:
        """Whether speech of `samples` is segmented for a model with a window of `max_samples`."""
        return samples > self.longest_recording(max_samples)

    def longest_recording(self, max_samples: int) -> int:
        """The longest speech, in samples, that is not segmented (see `is_long`)."""
        return int(min(self.max_segment_s * SAMPLE_RATE, max_samples))

    def longest_segment(self, max_samples: int) -> int:
        """The longest segment, in samples, for a model with a window of `max_samples`.

        Raises `ValueError` if the window is too short for any segment.
        """
        room = max_samples - _MARGIN_SAMPLES
        if room < s_to_samples(MIN_SEGMENT_S):
            raise ValueError(
                f"the model hears at most {max_samples / SAMPLE_RATE:.2f} s; segments need a window of at least "
                f"{MIN_SEGMENT_S + _MARGIN_SAMPLES / SAMPLE_RATE:g} s"
            )
        return int(min(self.max_segment_s * SAMPLE_RATE, room))


class WholeAudio:
    """One segment from the first sample to the last. The counterpart of `Segmenter` for audio that is not segmented, or not yet.

    `longest` is the longest audio, in samples, that is not segmented. If more may follow, audio near that limit is withheld until
    the speech ends or turns out to be longer, so that the model hears nothing after the cut.
    """

    def __init__(self, longest: int, more: bool) -> None:
        self._longest = longest
        self._held_from = max(0, longest - _SEARCH_SAMPLES) if more else longest
        self.position = 0
        self.start: int | None = 0
        self.end: int | None = None

    @property
    def released(self) -> int:
        """The end of the audio that certainly belongs to the segment."""
        return min(self.position, self._held_from) if self.end is None else self.end

    def fits(self, samples: int) -> bool:
        """Whether the segment may be this long."""
        return samples <= self._longest

    def arrived(self, samples: int) -> None:
        """Add this many samples to the segment."""
        self.position += samples

    def finish(self) -> bool:
        """End of the audio; returns whether that completes the segment."""
        self.end = None if self.start is None else self.position
        return self.end is not None

    def restart(self) -> bool:
        """The segment is done; returns whether others may follow, which is never the case here."""
        self.start = self.end = None
        return False


class Segmenter:
    """Finds segments in the speech probabilities, window by window. Positions are samples since the start of the stream.

    A segment is open while `start` is set. Its audio up to `released` certainly belongs to it; a pause is withheld until speech
    resumes. When `end` is set, the segment is complete, and `restart` must be called before the next window. `longest` is the
    longest segment in samples: near it, audio is withheld until the quietest spot is known, so that the model hears nothing
    after the cut. `first_end` is the end of a first segment that was not found here: the windows begin there.
    """

    def __init__(self, config: SegmentationConfig, longest: int, first_end: int | None = None) -> None:
        self._config = config
        self._longest = longest
        self._padding = ms_to_samples(config.padding_ms)
        self._min_silence = ms_to_samples(config.min_silence_ms)
        self._min_speech = max(1, ms_to_samples(config.min_speech_ms))
        self.position = self.released = first_end or 0
        self.start: int | None = None if first_end is None else 0
        self.end: int | None = first_end
        self._speaking = False  # in the last window
        self._speech_start = 0  # of the last run of speech
        self._speech_end = 0
        self._last_end = 0  # of the previous segment
        self._held_from = 0  # where withheld audio starts, near the limit
        self._energies: list[float] = []  # of the windows withheld since then

    @property
    def oldest(self) -> int:
        """The first sample that may still be needed."""
        if self.start is not None:
            return self.start
        return max(self._last_end, (self._speech_start if self._speaking else self.position) - self._padding)

    def add_window(self, probability: float, energy: float, samples: int = WINDOW_SAMPLES) -> None:
        """Advance by a window of `samples`, given its speech probability and its energy (any unit)."""
        threshold = self._config.speech_threshold
        if self._speaking:
            threshold = min(threshold, max(threshold - _HYSTERESIS, _LEAST_PROBABILITY))
        speech = probability >= threshold
        if speech and not self._speaking:
            self._speech_start = self.position
        self.position += samples
        if speech:
            self._speech_end = self.position
        self._speaking = speech
        if self.start is None and speech and self._speech_end - self._speech_start >= self._min_speech:
            self.start = max(self._speech_start - self._padding, self._last_end)
        if self.start is not None:
            self._follow(self.start, energy, samples)

    def fits(self, samples: int) -> bool:
        """The stream may be of any length."""
        return True

    def arrived(self, samples: int) -> None:
        """Do nothing: new audio counts only once its window is judged."""

    def finish(self) -> bool:
        """End of the audio; returns whether that completes a segment."""
        if self.start is None:
            return False
        self.end = self.released = min(self._speech_end + self._padding, self.position)
        return True

    def restart(self) -> bool:
        """Continue after a complete segment; returns whether others may follow, which is always the case here.

        If speech continues past its end, the next one opens at once.
        """
        if self.end is None:
            raise ValueError("no segment is complete; restart follows when `end` is a position")
        self._last_end, self.start, self.end, self._energies = self.end, None, None, []
        if self._speech_end - self._last_end >= self._min_speech:
            self.start = self.released = self._last_end
        else:
            self._speech_start = max(self._speech_start, self._last_end)
        return True

    def _follow(self, start: int, energy: float, samples: int) -> None:
        self.released = min(self._speech_end + self._padding, self.position)
        if self.position - self._speech_end >= self._min_silence:
            self.end = self.released
        elif self.position > start + self._longest - _SEARCH_SAMPLES:
            if not self._energies:
                self._held_from = self.position - samples
            self._energies.append(energy)
            if self.position + WINDOW_SAMPLES > start + self._longest:
                self.end = min(self._held_from + quietest(self._energies), self.released)
            self.released = self.end or min(self._held_from, self.released)


def quiet_end(audio: np.ndarray) -> int:
    """Where to cut audio, float32 `[samples]`: the quietest spot of its last second, in samples."""
    first = max(0, len(audio) - _SEARCH_SAMPLES)
    windows = audio[first : first + (len(audio) - first) // WINDOW_SAMPLES * WINDOW_SAMPLES].reshape(-1, WINDOW_SAMPLES)
    return first + quietest((windows**2).sum(axis=1).tolist())


def quietest(energies: Sequence[float]) -> int:
    """The middle of the quietest run of three windows by energy (the last, if tied), in samples since the first window."""
    sums = np.convolve(energies, np.ones(_QUIET_WINDOWS), "valid")
    best = len(sums) - 1 - int(np.argmin(sums[::-1]))
    return best * WINDOW_SAMPLES + _QUIET_WINDOWS * WINDOW_SAMPLES // 2
