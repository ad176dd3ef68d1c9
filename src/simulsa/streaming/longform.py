"""Speech without end: segments at pauses, through the same `step` as everything else, at a cost that does not grow.

`LongState` takes audio and says which `StreamState` wants a step; whoever serves many sessions hands those of all of them to one
`step` and gives each its update back. `LongStream` is that loop for one speaker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulsa.audio import SAMPLE_RATE, AudioError, StreamResampler, check_samples, samples_to_ms, samples_to_s
from simulsa.lalm.interface import LALM
from simulsa.lalm.text import ends_sentence
from simulsa.languages import is_spaced
from simulsa.streaming.history import carrier
from simulsa.streaming.segmentation import LongformConfig, Segmenter
from simulsa.streaming.state import StreamConfig, StreamState, Update
from simulsa.streaming.step import step
from simulsa.streaming.vad import VAD, WINDOW_SAMPLES, SileroVAD, speech_probabilities


@dataclass(frozen=True)
class Segment:
    """A stretch of speech: where it lies in the session, in samples at `SAMPLE_RATE`, and its final text so far.

    `end_samples` is how far the model has heard it; where it ends once `complete`.
    """

    index: int
    start_samples: int
    end_samples: int
    text: str
    complete: bool


@dataclass(frozen=True, kw_only=True)
class LongUpdate(Update):
    """An `Update` of a whole session.

    `committed` is the final text of all segments, `new` the end of it that this update added. `audio_samples` counts from the
    beginning of the session up to the audio that had to arrive for this update. `segment` is the one that was advanced, `None` in
    the last update (`final`), which closes the session and calls no model.
    """

    new: str
    segment: Segment | None


class LongState:
    """A session of unbounded speech between two steps. Memory and the cost of a chunk do not depend on its length.

    `vad` must be no other session's; by default it is Silero's. Raises `ValueError` for settings that the model's window cannot
    hold, and `RuntimeError` when the package `silero-vad` is missing.
    """

    def __init__(
        self, lalm: LALM, config: StreamConfig | None = None, longform: LongformConfig | None = None, vad: VAD | None = None
    ) -> None:
        self.config = config or StreamConfig()
        self.longform = longform or LongformConfig()
        self.committed = ""
        self.closed = False
        self.finished = False
        self.chunks_at_once = 1
        """how many of the chunks that wait the next step hears, as in `StreamState`; a sliding window takes one at a time"""
        if self.longform.history != "none" and self.config.chosen_policy.needs == "words":
            raise ValueError(
                f"policy is {self.config.policy!r}, which counts words from where the model begins to hear, and history is "
                f"{self.longform.history!r}, which carries words over: choose another policy, or history 'none'"
            )
        self._max_samples = lalm.max_samples
        self._carrier = carrier(lalm, self.longform)
        self._segmenter = Segmenter(self.longform, self._longest(lalm.max_samples))
        self.vad = vad or SileroVAD()
        self.vad.reset()
        self._rate = 0  # of the audio pushed, 0 before there was any
        self._resampler = StreamResampler(SAMPLE_RATE)
        self._audio = np.zeros(0, dtype=np.float32)  # what was not handed to a segment yet
        self._first = 0  # position of its first sample
        self._state: StreamState | None = None  # of the open segment
        self._segment = Segment(-1, 0, 0, "", True)
        self._heard = self._shown = 0  # samples and characters of the state before its step

    def _longest(self, max_samples: int) -> int | None:
        longest = self.longform.longest_segment(max_samples)
        if self.longform.history != "window":
            return longest
        if not self.config.chunk_ms <= samples_to_ms(longest) / 2:
            raise ValueError(
                f"chunk_ms is {self.config.chunk_ms:g}; a sliding window of {samples_to_s(longest):g} s takes chunks of at most "
                "half its length: choose smaller chunks or another history"
            )
        return None

    def receive(self, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
        """Add float32 mono audio, any length; audio at another rate than `SAMPLE_RATE` is resampled on its way.

        Raises `AudioError` for broken samples, after `close`, or when the rate changes.
        """
        if self.closed:
            raise AudioError("audio after the end: the stream was closed; start a new one")
        if len(samples) == 0:
            return
        samples = check_samples(samples, "pushed audio")
        if not self._rate:
            if sample_rate < 1:
                raise AudioError(f"sample_rate is {sample_rate}; it must be a number of samples per second, such as 16000")
            self._rate, self._resampler = sample_rate, StreamResampler(sample_rate)
        if sample_rate != self._rate:
            raise AudioError(
                f"the audio has {sample_rate} Hz and began with {self._rate} Hz; a stream has one rate: "
                "start a new one, or resample before pushing"
            )
        self._append(self._resampler(samples))

    def close(self) -> None:
        """Say that no more audio will come. Raises `AudioError` if none came at all."""
        if not self._rate:
            raise AudioError("the stream ended with no audio (0 samples); push some before finishing")
        if not self.closed:
            self._append(self._resampler(np.zeros(0, dtype=np.float32), last=True))
        self.closed = True

    def next_state(self) -> StreamState | None:
        """The state that wants a step, or `None` if more audio must come first. The step's update goes to `apply`."""
        listen([self])
        state = self._state
        if state is None or state.next_samples() is None:
            return None
        self._heard, self._shown = state.heard_samples, len(state.shown)
        return state

    def apply(self, update: Update) -> LongUpdate:
        """Take in what `step` returned for the state of `next_state`; returns it with the session's text and times."""
        state = self._state
        if state is None:
            raise ValueError("no segment is open; apply takes the update of a step of what next_state returned")
        new = self._separated(update.committed[self._shown :])
        self.committed += new
        segment = self._segment = Segment(
            self._segment.index,
            self._segment.start_samples,
            self._first - (len(state.audio) - state.heard_samples),
            (self._segment.text + new).lstrip(),
            state.finished,
        )
        tentative = self._separated(update.tentative)
        self._carrier.advance(state, self._heard)
        if state.finished:
            self._carrier.end(state)
            self._segmenter.restart()
            self._state = None
        return self._update(tentative, update.compute_s, new, segment)

    def conclude(self) -> LongUpdate:
        """The last update of a closed session, when `next_state` has nothing left."""
        if not self.closed or self.next_state() is not None:
            raise ValueError("the session goes on; close it and step until next_state is None")
        self.finished = True
        return self._update("", 0.0, "", None)

    @property
    def position(self) -> int:
        """How far the voice activity detector has judged the audio, in samples; it waits while a chunk of speech is due."""
        return self._segmenter.position

    def _update(self, tentative: str, compute_s: float, new: str, segment: Segment | None) -> LongUpdate:
        return LongUpdate(self.committed, tentative, self.position, compute_s, segment is None, new=new, segment=segment)

    def _separated(self, text: str) -> str:
        """`text` as it follows all that is committed: with a space where a segment begins, if its language has spaces.

        A model that reads on from carried text puts its own, but for one that was taught single sentences.
        """
        if self._segment.text or (self._shown and not ends_sentence(self.committed)):
            return text
        text = text.lstrip()
        spaced = is_spaced(self.config.target_lang) and self.committed and not self.committed[-1].isspace()
        return f" {text}" if text and spaced else text

    def _append(self, samples: np.ndarray) -> None:
        self._audio = np.concatenate([self._audio, samples])

    def _drop(self, samples: int) -> None:
        self._audio = self._audio[samples:]
        self._first += samples

    def next_window(self) -> np.ndarray | None:
        """The audio that `vad` must judge before the next state is known, float32 `[WINDOW_SAMPLES]`; `None` if there is none.

        The last of a session is filled up with zeros.
        """
        while not self._hand_over():
            window = self._unjudged()
            if len(window) < WINDOW_SAMPLES and not self.closed:
                return None
            if len(window):
                return window if len(window) == WINDOW_SAMPLES else np.pad(window, (0, WINDOW_SAMPLES - len(window)))
            if not self._segmenter.finish():
                return None
        return None

    def judge(self, probability: float) -> None:
        """Take note of the probability that what `next_window` returned is speech."""
        window = self._unjudged()
        self._segmenter.hear(probability, float(window @ window), len(window))
        if self._segmenter.start is None:
            self._drop(self._segmenter.oldest - self._first)

    def _unjudged(self) -> np.ndarray:
        start = self._segmenter.position - self._first
        return self._audio[start : start + WINDOW_SAMPLES]

    def _hand_over(self) -> bool:
        """Give the open segment its next chunks, or what is left of it at its end; returns whether it has as many as it may."""
        segmenter, chunk = self._segmenter, self.config.chunk_samples
        if segmenter.start is None:
            return False
        state = self._state or self._open(segmenter.start)
        chunks = state.chunks_at_once = 1 if self.longform.history == "window" else self.chunks_at_once
        waiting, samples = len(state.audio) - state.heard_samples, segmenter.released - self._first
        if chunk is not None:
            samples = max(0, min(samples, chunks * chunk - waiting))
        if not state.closed and (segmenter.end is not None or (chunk is not None and waiting + samples >= chunk)):
            self._carrier.make_room(state, samples)
            state.receive(self._audio[:samples])
            self._drop(samples)
            waiting += samples
            if self._first == segmenter.end:
                state.close()
        return state.closed or (chunk is not None and waiting >= chunks * chunk)

    def _open(self, start: int) -> StreamState:
        self._drop(start - self._first)
        self._segment = Segment(self._segment.index + 1, start, start, "", False)
        self._state = StreamState(self.config, self._max_samples)
        self._carrier.start(self._state)
        return self._state


def listen(sessions: Sequence[LongState]) -> None:
    """Judge what `next_state` of each session would have to judge, a window of all of them at a time: cheaper than one by one."""
    while asked := [(session, window) for session in sessions if (window := session.next_window()) is not None]:
        probabilities = speech_probabilities([session.vad for session, _ in asked], [window for _, window in asked])
        for (session, _), probability in zip(asked, probabilities, strict=True):
            session.judge(probability)
        sessions = [session for session, _ in asked]


class LongStream:
    """Translate speech without end while it arrives: a `Stream` for hours.

    >>> stream = LongStream(lalm, StreamConfig(target_lang="de"), LongformConfig())
    >>> for chunk in chunks:
    ...     for update in stream.push(chunk):
    ...         print(update.new, end="", flush=True)
    >>> stream.finish()[-1].committed

    Any split of the same audio into pushes gives the same updates. A failed step leaves the state as it was. The other
    arguments are those of `LongState`.
    """

    def __init__(
        self, lalm: LALM, config: StreamConfig | None = None, longform: LongformConfig | None = None, vad: VAD | None = None
    ) -> None:
        self.lalm = lalm
        self.config = config or StreamConfig()
        self.longform = longform or LongformConfig()
        self._vad = vad or SileroVAD()
        self.reset()

    def reset(self) -> None:
        """Forget everything, ready for another session."""
        self.state = LongState(self.lalm, self.config, self.longform, self._vad)

    def push(self, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> list[LongUpdate]:
        """Add float32 mono audio, any length; returns an update for each chunk of speech that became full or ended."""
        self.state.receive(samples, sample_rate)
        return self._advance()

    def finish(self) -> list[LongUpdate]:
        """End the session; the last update is final, has nothing tentative and no segment."""
        if self.state.finished:
            return []
        self.state.close()
        return [*self._advance(), self.state.conclude()]

    def _advance(self) -> list[LongUpdate]:
        updates: list[LongUpdate] = []
        while (state := self.state.next_state()) is not None:
            (update,) = step(self.lalm, [state])
            updates.append(self.state.apply(update))
        return updates
