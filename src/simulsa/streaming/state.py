"""The state of a stream between two steps, and the update that a step returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulsa.audio import SAMPLE_RATE, AudioError, StreamResampler, check_samples, samples_to_s
from simulsa.lalm.interface import LALM
from simulsa.languages import is_spaced
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segment import SegmentState
from simulsa.streaming.segmentation import SegmentationConfig, Segmenter, WholeAudio, quiet_end
from simulsa.streaming.vad import VAD, WINDOW_SAMPLES, SileroVAD, speech_probabilities


@dataclass(frozen=True)
class Segment:
    """A segment of the stream: its position, in samples at `SAMPLE_RATE`, and its final text so far.

    `end_samples` is how far the model has heard the segment, and the segment's end once it is `complete`.
    """

    index: int
    start_samples: int
    end_samples: int
    text: str
    complete: bool


@dataclass(frozen=True)
class Update:
    """The effect of one step on one stream.

    `committed` is the whole final text, `new` the part that this update added, `tentative` the continuation that may still
    change. `audio_samples` is the amount of audio, from the start of the stream at `SAMPLE_RATE`, that had to arrive for this
    update. `compute_s` is the wall time of the step, shared by all streams of the batch.

    `segment` is the one that was advanced: the whole audio, if the stream is not segmented. The last update of a stream is
    `final`; that of a segmented stream calls no model and has no segment. `truncated` says that the translation reached the
    model's token limit (see `Continuation`) and may be incomplete: so far, or permanently if the segment is complete; in the last
    update, that of any segment.
    """

    committed: str
    tentative: str
    audio_samples: int
    compute_s: float
    final: bool
    new: str = ""
    segment: Segment | None = None
    truncated: bool = False

    @property
    def audio_s(self) -> float:
        """Seconds of audio up to here."""
        return samples_to_s(self.audio_samples)


@dataclass(frozen=True)
class Advance:
    """What a step decided for a stream: the `tokens` of the hypothesis, how many of them are `committed`, their final text
    `shown`, the `tentative` rest, and how far the open segment was heard."""

    tokens: list[int]
    committed: int
    shown: str
    tentative: str
    truncated: bool
    heard_samples: int
    final: bool


class StreamState:
    """Everything known about a stream between two steps: received audio, the open segment, committed text.

    Without `segmentation` the whole stream is one segment, which must fit the model's window. With it, memory and cost per chunk
    do not depend on the length of the speech. Segmentation begins at the first sample or, with `from_start=False`, once the audio
    is too long to be heard as a whole (`SegmentationConfig.is_long`); the second before that limit is withheld until then.

    `vad` must not be shared with another stream; it defaults to Silero VAD. Raises `ValueError` for settings that do not fit the
    model's window, and `RuntimeError` if the package `silero-vad` is missing.
    """

    def __init__(
        self,
        lalm: LALM,
        config: StreamConfig | None = None,
        segmentation: SegmentationConfig | None = None,
        vad: VAD | None = None,
        from_start: bool = True,
    ) -> None:
        self.config = (config or StreamConfig()).for_model(lalm)
        self.policy = self.config.commit_policy
        self.segmented = segmentation is not None and from_start
        """whether the open segment, or the next one, is found by voice activity detection"""
        self.committed = ""
        self.closed = False
        """no more audio will come"""
        self.finished = False
        """the last update was returned"""
        self.chunks_at_once = 1
        """how many pending chunks the next step processes; more than one makes up for lost time"""
        self._max_samples = lalm.max_samples
        self._longest_segment = segmentation.longest_segment(lalm.max_samples) if segmentation else lalm.max_samples
        self._segmentation = segmentation
        self._given_vad = vad
        self._segmenter: Segmenter | WholeAudio
        if segmentation is None:
            self._segmenter = WholeAudio(lalm.max_samples, more=False)
        elif from_start:
            self._start_segmenting(segmentation)
        else:
            self._segmenter = WholeAudio(segmentation.longest_recording(lalm.max_samples), more=True)
        self._rate = 0  # of the audio pushed, 0 before the first push
        self._resampler = StreamResampler(SAMPLE_RATE)
        self._audio = np.zeros(0, dtype=np.float32)  # audio not yet handed to a segment
        self._first = 0  # position of its first sample
        self._open: SegmentState | None = None
        self._segment = Segment(-1, 0, 0, "", True)
        self._truncated = False  # whether the translation of a completed segment was truncated

    def receive(self, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
        """Add float32 mono audio of any length; audio at a rate other than `SAMPLE_RATE` is resampled on arrival.

        Raises `AudioError` for broken samples, after `close`, when the rate changes, and past the model's window if the stream is
        not segmented.
        """
        if self.closed:
            raise AudioError("audio after the end: the stream is closed; start a new one")
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
        """End of the audio. Raises `AudioError` if there was none."""
        if not self._rate:
            raise AudioError("the stream ended with no audio (0 samples); push some before finishing")
        if not self.closed:
            self._append(self._resampler(np.zeros(0, dtype=np.float32), last=True))
        self.closed = True

    def _append(self, samples: np.ndarray) -> None:
        total, config = self.received_samples + len(samples), self._segmentation
        outgrown = not self._segmenter.fits(total)
        if outgrown and config is None:
            raise AudioError(
                f"the stream has {samples_to_s(total):.2f} s of audio and the model hears at most "
                f"{samples_to_s(self._max_samples):.2f} s; end the stream at a pause and start a new one, or segment it"
            )
        self._audio = np.concatenate([self._audio, samples])
        self._segmenter.arrived(len(samples))
        if outgrown and config is not None:
            limit = config.longest_recording(self._max_samples)
            self._start_segmenting(config, self._first + quiet_end(self._audio[: limit - self._first]))

    def _start_segmenting(self, config: SegmentationConfig, first_end: int | None = None) -> None:
        """Find segments from now on; `first_end` is the end of the segment that is open."""
        self.vad = self._given_vad or SileroVAD()
        self.vad.reset()
        self._segmenter = Segmenter(config, self._longest_segment, first_end)

    @property
    def received_samples(self) -> int:
        """Amount of audio received."""
        return self._first + len(self._audio)

    @property
    def done_samples(self) -> int:
        """Amount of audio that needs no more work: heard by the model, or found to be non-speech."""
        return self._segmenter.position if self.segmented else self._segment.end_samples

    def ready(self) -> SegmentState | None:
        """The open segment if it has a chunk waiting for `step`; `None` if more audio must arrive first."""
        run_vad([self])
        return self._open if self._open is not None and self._open.next_samples(self.chunks_at_once) is not None else None

    def apply(self, advance: Advance, compute_s: float) -> Update:
        """Apply what a step of `compute_s` decided for the open segment."""
        state = self._open
        if state is None:
            raise ValueError("no segment is open; call apply with the result of a step on the segment of ready()")
        new = self._separated(advance.shown[len(state.shown) :])
        state.advance(advance.tokens, advance.committed, advance.shown, advance.heard_samples, self.policy.remembers)
        state.truncated, state.finished = advance.truncated, advance.final
        self.committed += new
        segment = self._segment = Segment(
            self._segment.index,
            self._segment.start_samples,
            self._first - (len(state.audio) - state.heard_samples),
            (self._segment.text + new).lstrip(),
            state.finished,
        )
        tentative = self._separated(advance.tentative)
        if state.finished:
            self._open = None
            self._truncated = self._truncated or state.truncated
            self.segmented = self._segmenter.restart()
            self.finished = not self.segmented
        return Update(
            self.committed, tentative, self.done_samples, compute_s, self.finished, new, segment, truncated=advance.truncated
        )

    def conclude(self) -> Update:
        """The last update of a closed, segmented stream, when `ready` returns `None`."""
        if not self.closed or self.ready() is not None:
            raise ValueError("the stream is not finished; close it and step until ready() is None")
        self.finished = True
        return Update(self.committed, "", self.done_samples, 0.0, final=True, truncated=self._truncated)

    def _separated(self, text: str) -> str:
        """`text` as it follows the committed text: with a space at the start of a segment, if the language uses spaces."""
        if not self.segmented or self._segment.text:
            return text
        text = text.lstrip()
        spaced = is_spaced(self.config.target_lang) and self.committed and not self.committed[-1].isspace()
        return f" {text}" if text and spaced else text

    def _drop(self, samples: int) -> None:
        self._audio = self._audio[samples:]
        self._first += samples

    def next_window(self) -> np.ndarray | None:
        """The audio that `vad` must judge next, float32 `[WINDOW_SAMPLES]`; `None` if there is none.

        The last window of a stream is zero-padded.
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
        """Record the speech probability of the window that `next_window` returned."""
        window, segmenter = self._unjudged(), self._segmenter
        assert isinstance(segmenter, Segmenter)  # `WholeAudio` leaves no window to judge
        segmenter.add_window(probability, float(window @ window), len(window))
        if segmenter.start is None:
            self._drop(segmenter.oldest - self._first)

    def _unjudged(self) -> np.ndarray:
        start = self._segmenter.position - self._first
        return self._audio[start : start + WINDOW_SAMPLES]

    def _hand_over(self) -> bool:
        """Give the open segment its next chunks, or its remaining audio at the end; returns whether it has as many as allowed."""
        segmenter, chunk, chunks = self._segmenter, self.config.chunk_samples, self.chunks_at_once
        if segmenter.start is None:
            return False
        state = self._open or self._begin(segmenter.start)
        waiting, samples = len(state.audio) - state.heard_samples, segmenter.released - self._first
        if chunk is not None:
            samples = max(0, min(samples, chunks * chunk - waiting))
        if not state.closed and (segmenter.end is not None or (chunk is not None and waiting + samples >= chunk)):
            state.audio = np.concatenate([state.audio, self._audio[:samples]])
            self._drop(samples)
            waiting += samples
            state.closed = self._first == segmenter.end
        return state.closed or (chunk is not None and waiting >= chunks * chunk)

    def _begin(self, start: int) -> SegmentState:
        self._drop(start - self._first)
        self._segment = Segment(self._segment.index + 1, start, start, "", False)
        self._open = SegmentState(self.config.chunk_samples)
        return self._open


def run_vad(streams: Sequence[StreamState]) -> None:
    """Run voice activity detection on new audio, one window of all streams per network call: cheaper than stream by stream."""
    while asked := [(stream, window) for stream in streams if (window := stream.next_window()) is not None]:
        probabilities = speech_probabilities([stream.vad for stream, _ in asked], [window for _, window in asked])
        for (stream, _), probability in zip(asked, probabilities, strict=True):
            stream.judge(probability)
        streams = [stream for stream, _ in asked]
