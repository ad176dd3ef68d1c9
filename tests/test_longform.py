"""Long-form streaming: segments, their text and times, with scripted models and a scripted voice activity detector."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE, AudioError, resample
from simulsa.lalm.interface import Continuation
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.state import Advance, Segment, StreamState, Update, run_vad
from simulsa.streaming.step import step
from simulsa.streaming.stream import Stream
from simulsa.streaming.vad import VAD, WINDOW_SAMPLES
from simulsa.testing import FakeHeard, FakeLALM, FakeVAD
from tests.conftest import examples, noise

WORDS = ["Tür", "über", "den", "Hügel,", "漢字", "🎉", "Hemd-", "größer.", "'s"]
WINDOW_S = 4  # of the scripted models
PADDING = 1_600  # samples in the default padding of 100 ms
MINUTE = 60 * SAMPLE_RATE

configs = st.builds(
    StreamConfig,
    target_lang=st.sampled_from(["de", "ja"]),
    chunk_ms=st.sampled_from([40, 333, 500, 1500, math.inf]),
    rollback=st.sampled_from([0, 3, 30]),
)
stretches = st.lists(st.tuples(st.integers(1, 150_000), st.integers(1, 30_000)), min_size=1, max_size=4)


def exact_lalm(seed: int = 0) -> FakeLALM:
    """A model that hears every single sample: another audio, by one sample, is another text."""

    def script(audio: np.ndarray) -> str:
        rng = np.random.default_rng([seed, zlib.crc32(audio.tobytes())])
        return " ".join(rng.choice(WORDS, size=rng.integers(0, 6)))

    return FakeLALM(script, max_samples=WINDOW_S * SAMPLE_RATE)


def session(lengths: Sequence[tuple[int, int]]) -> np.ndarray:
    """Silence, then in turns as many samples of speech (noise, here) and of silence as `lengths` say."""
    pieces = [np.zeros(5_000, dtype=np.float32)]
    for i, (speech, silence) in enumerate(lengths):
        pieces += [noise(speech / SAMPLE_RATE, seed=i), np.zeros(silence, dtype=np.float32)]
    return np.concatenate(pieces)


def long_stream(lalm: FakeLALM, config: StreamConfig | None = None, **longform: Any) -> Stream:
    return Stream(lalm, config, SegmentationConfig(**longform), FakeVAD())


def run(stream: Stream, audio: np.ndarray, cuts: Sequence[int] = ()) -> list[Update]:
    """Push `audio` in pieces cut at `cuts`; the updates without their compute time."""
    updates = []
    for first, last in itertools.pairwise([0, *sorted(cuts), len(audio)]):
        updates += stream.push(audio[first:last])
    return timeless(updates + stream.finish())


def timeless(updates: Sequence[Update]) -> list[Update]:
    return [dataclasses.replace(update, compute_s=0.0) for update in updates]


def joined(texts: Sequence[str], lang: str) -> str:
    """The texts of segments one after the other; where words have spaces between, with one unless a text ends with it already."""
    whole = ""
    for text in filter(None, texts):
        whole += (" " if whole and lang != "ja" and not whole[-1].isspace() else "") + text
    return whole


def segments_of(updates: Sequence[Update]) -> list[Segment]:
    """The complete ones."""
    return [update.segment for update in updates if update.segment is not None and update.segment.complete]


def check_session(updates: Sequence[Update], audio: np.ndarray) -> None:
    """What must hold for any session."""
    for before, after in itertools.pairwise(updates):
        assert after.committed == before.committed + after.new
        assert after.audio_samples >= before.audio_samples
    for update in updates[:-1]:
        assert update.segment is not None
        assert update.segment.start_samples < update.segment.end_samples <= update.audio_samples
    last = updates[-1]
    assert [update.final for update in updates] == [False] * (len(updates) - 1) + [True]
    assert (last.tentative, last.new, last.segment, last.audio_samples) == ("", "", None, len(audio))
    segments = segments_of(updates)
    assert [segment.index for segment in segments] == list(range(len(segments)))
    for one, two in itertools.pairwise(segments):
        assert one.end_samples <= two.start_samples


@given(st.integers(0, 10**6), configs, stretches, st.lists(st.integers(0, 300_000), max_size=6))
@settings(max_examples=examples(60), deadline=None)
def test_any_split_gives_the_same_updates(
    seed: int, config: StreamConfig, lengths: list[tuple[int, int]], cuts: list[int]
) -> None:
    audio = session(lengths)
    whole = run(long_stream(exact_lalm(seed), config), audio)
    assert run(long_stream(exact_lalm(seed), config), audio, [min(cut, len(audio)) for cut in cuts]) == whole
    check_session(whole, audio)


@given(st.integers(0, 10**6), configs, stretches, st.integers(1, 5))
@settings(max_examples=examples(60), deadline=None)
def test_chunks_heard_at_once_are_fewer_steps_of_the_same_segments(
    seed: int, config: StreamConfig, lengths: list[tuple[int, int]], chunks: int
) -> None:
    lalm, audio = exact_lalm(seed), session(lengths)
    state = StreamState(lalm, config, SegmentationConfig(), FakeVAD())
    state.receive(audio)
    state.close()
    state.chunks_at_once = chunks
    updates = []
    while state.ready() is not None:
        updates += step(lalm, [state])
    updates = timeless([*updates, state.conclude()])
    check_session(updates, audio)
    segments = segments_of(updates)
    places = [(segment.start_samples, segment.end_samples) for segment in segments]
    assert places == [
        (segment.start_samples, segment.end_samples) for segment in segments_of(run(long_stream(lalm, config), audio))
    ]
    chunk = config.chunk_samples
    steps = [1 if chunk is None else 1 + math.ceil((end - start) // chunk / chunks) for start, end in places]
    counted = collections.Counter(update.segment.index for update in updates if update.segment is not None)
    assert [counted[segment.index] for segment in segments] == steps


@given(st.integers(0, 10**6), configs, stretches)
@settings(max_examples=examples(60), deadline=None)
def test_the_text_is_that_of_its_segments(seed: int, config: StreamConfig, lengths: list[tuple[int, int]]) -> None:
    audio = session(lengths)
    lalm = exact_lalm(seed)
    updates = run(long_stream(lalm, config), audio)
    texts = []
    for segment in segments_of(updates):
        alone = Stream(lalm, config)
        alone.push(audio[segment.start_samples : segment.end_samples])
        texts.append(alone.finish()[-1].committed)
    assert [segment.text for segment in segments_of(updates)] == texts
    assert updates[-1].committed == joined(texts, config.target_lang)


@given(stretches)
@settings(max_examples=examples(60), deadline=None)
def test_all_speech_is_in_segments_that_fit(lengths: list[tuple[int, int]]) -> None:
    audio = session(lengths)
    updates = run(long_stream(exact_lalm(), min_speech_ms=0), audio)
    covered = np.zeros(len(audio), dtype=bool)
    for segment in segments_of(updates):
        assert segment.end_samples - segment.start_samples <= (WINDOW_S - 0.5) * SAMPLE_RATE
        covered[segment.start_samples : segment.end_samples] = True
    assert covered[np.abs(audio) > FakeVAD().level].all()


def test_times_are_those_of_the_windows_with_speech() -> None:
    audio = session([(20_000, 16_000), (9_999, 20_000)])
    segments = segments_of(run(long_stream(exact_lalm()), audio))
    speech = [(5_000, 25_000), (41_000, 50_999)]
    assert [(segment.start_samples, segment.end_samples) for segment in segments] == [
        (
            first // WINDOW_SAMPLES * WINDOW_SAMPLES - PADDING,
            -(-last // WINDOW_SAMPLES) * WINDOW_SAMPLES + PADDING,
        )
        for first, last in speech
    ]


def test_pauses_and_noises_that_are_too_short() -> None:
    def spans(*lengths: tuple[int, int], **longform: Any) -> int:
        return len(segments_of(run(long_stream(exact_lalm(), **longform), session(lengths))))

    assert spans((20_000, 7_000), (9_000, 20_000)) == 1
    assert spans((20_000, 9_500), (9_000, 20_000)) == 2
    assert spans((20_000, 5_000), (9_000, 20_000), min_silence_ms=200) == 2
    assert spans((1_000, 20_000), (9_000, 20_000), (1_000, 1)) == 1
    assert spans((1_000, 20_000), (9_000, 20_000), (1_000, 1), min_speech_ms=50) == 3


def test_running_speech_is_cut_where_it_is_quietest_and_nothing_is_heard_twice() -> None:
    audio = noise(8, seed=3)
    quiet = [3 * SAMPLE_RATE, round(5.75 * SAMPLE_RATE)]
    for middle in quiet:
        audio[middle - 1_000 : middle + 1_000] *= 0.1
    lalm, heard = exact_lalm(), []

    class Recording(FakeLALM):
        def hear(self, audios: Any, directions: Any) -> list[FakeHeard]:
            heard.append(len(audios[0]))
            return super().hear(audios, directions)

    segments = segments_of(run(long_stream(Recording(lalm.script, max_samples=lalm.max_samples)), audio))
    assert [segment.start_samples for segment in segments] == [0, *[segment.end_samples for segment in segments[:-1]]]
    assert [abs(segment.end_samples - middle) <= WINDOW_SAMPLES for segment, middle in zip(segments, quiet, strict=False)] == [
        True,
        True,
    ]
    ends = [segment.end_samples - segment.start_samples for segment in segments]
    assert max(heard) == max(ends)
    assert [length for length in heard if length in ends] == ends  # the last step of each segment is its longest


def test_silence_costs_nothing() -> None:
    lalm = exact_lalm()
    stream = long_stream(lalm)
    assert stream.push(np.zeros(MINUTE, dtype=np.float32)) == []
    (last,) = stream.finish()
    assert (last.committed, last.final, last.audio_samples, last.segment) == ("", True, MINUTE, None)
    assert stream.finish() == []
    assert lalm.calls == []


def test_a_push_of_an_hour_and_exact_times_at_its_end() -> None:
    starts = [100 * WINDOW_SAMPLES + minute * MINUTE for minute in range(60)]
    audio = np.zeros(60 * MINUTE + 7, dtype=np.float32)
    for start in starts:
        audio[start : start + SAMPLE_RATE] = noise(1)
    lalm = FakeLALM(lambda audio: "Satz.")
    updates = run(long_stream(lalm, StreamConfig(chunk_ms=math.inf)), audio)
    check_session(updates, audio)
    assert [segment.start_samples + PADDING for segment in segments_of(updates)] == starts
    assert updates[-1].committed == " ".join(["Satz."] * 60)
    assert lalm.calls == [("continue_", 1)] * 60


def test_pushes_of_one_sample() -> None:
    audio = session([(9_000, 9_000), (3_000, 100)])
    whole = run(long_stream(exact_lalm()), audio)
    assert len(segments_of(whole)) == 2
    assert run(long_stream(exact_lalm()), audio, range(1, len(audio))) == whole


def test_audio_that_stops_arriving_is_flushed_by_finish() -> None:
    audio = session([(20_000, 100)])
    stream = long_stream(exact_lalm())
    updates = timeless(stream.push(audio))
    assert segments_of(updates) == []
    assert timeless(stream.push(np.zeros(0))) == []
    flushed = timeless(stream.finish())
    assert [segment.end_samples for segment in segments_of(flushed)] == [len(audio)]
    with pytest.raises(AudioError, match="audio after the end"):
        stream.push(audio)
    stream.reset()
    assert run(stream, audio) == updates + flushed


def test_a_session_without_audio_cannot_finish() -> None:
    stream = long_stream(exact_lalm())
    with pytest.raises(AudioError, match=r"ended with no audio \(0 samples\)"):
        stream.finish()
    stream.push(np.zeros(10))
    assert stream.finish()[-1].audio_samples == 10


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([0.0, np.nan]), "pushed audio: 1 of 2 samples are NaN"),
        (np.zeros(10, dtype=np.int16), "divide int16 by 32768"),
    ],
)
def test_a_broken_push_is_refused_and_leaves_the_session_alone(samples: np.ndarray, message: str) -> None:
    audio = session([(20_000, 10_000)])
    stream = long_stream(exact_lalm())
    stream.push(audio[:100])
    with pytest.raises(AudioError, match=message):
        stream.push(samples)
    assert run(stream, audio[100:]) == run(long_stream(exact_lalm()), audio)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_failing_model_leaves_the_session_able_to_go_on(at: int) -> None:
    class Failing(FakeLALM):
        def continue_(self, *arguments: Any) -> list[Continuation]:
            outputs = super().continue_(*arguments)
            if len(self.calls) == at:
                raise RuntimeError("out of memory")
            return outputs

    audio = session([(20_000, 300)])
    expected = run(long_stream(exact_lalm()), audio)
    stream = long_stream(Failing(exact_lalm().script, max_samples=exact_lalm().max_samples))
    acts = [lambda first=first: stream.push(audio[first : first + 500]) for first in range(0, len(audio), 500)]
    updates: list[Update] = []
    failures = 0
    for act in [*acts, stream.finish]:
        try:
            updates += act()
        except RuntimeError:  # the audio is kept: an empty push, or finishing again, tries the step once more
            failures += 1
            updates += stream.finish() if act == stream.finish else stream.push(np.zeros(0))
    assert failures == 1
    assert timeless(updates) == expected


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_another_rate_is_resampled_on_its_way(rate: int) -> None:
    audio = np.concatenate([np.zeros(rate), 0.1 * np.sin(np.arange(3 * rate)), np.zeros(rate)]).astype(np.float32)
    expected = run(long_stream(exact_lalm()), resample(audio, rate))
    stream = long_stream(exact_lalm())
    updates: list[Update] = []
    for first in range(0, len(audio), 1_234):
        updates += stream.push(audio[first : first + 1_234], rate)
    assert timeless(updates + stream.finish()) == expected
    assert len(segments_of(expected)) == 1


def test_a_change_of_rate_is_refused() -> None:
    stream = long_stream(exact_lalm())
    stream.push(np.zeros(100), 48_000)
    with pytest.raises(AudioError, match="the audio has 16000 Hz and began with 48000 Hz; a stream has one rate"):
        stream.push(np.zeros(100))
    with pytest.raises(AudioError, match="sample_rate is 0"):
        long_stream(exact_lalm()).push(np.zeros(100), 0)


@pytest.mark.parametrize("together", [False, True])
def test_many_sessions_share_a_step(together: bool) -> None:
    def waiting() -> list[tuple[int, StreamState]]:
        if together:
            run_vad(sessions)
            assert all(session.next_window() is None for session in sessions)
        return [(i, session) for i, session in enumerate(sessions) if session.ready() is not None]

    lalm = exact_lalm()
    audios = [session([(30_000, 12_000), (9_000, 5_000)]), session([(50_000, 9_000)]), np.zeros(9_000)]
    configs = [StreamConfig(), StreamConfig(chunk_ms=300, rollback=0), StreamConfig()]
    sessions = [StreamState(lalm, config, SegmentationConfig(), FakeVAD()) for config in configs]
    updates: list[list[Update]] = [[] for _ in sessions]
    for state, audio in zip(sessions, audios, strict=True):
        state.receive(audio)
        state.close()
    while ready := waiting():
        for (i, _), update in zip(ready, step(lalm, [state for _, state in ready]), strict=True):
            updates[i].append(update)
    assert ("continue_", 2) in lalm.calls
    for state, done, config, audio in zip(sessions, updates, configs, audios, strict=True):
        assert timeless([*done, state.conclude()]) == run(long_stream(exact_lalm(), config), audio)


def test_the_halves_of_a_session_out_of_turn() -> None:
    state = StreamState(exact_lalm(), None, SegmentationConfig(), FakeVAD())
    state.receive(np.zeros(100))
    with pytest.raises(ValueError, match="the stream is not finished"):
        state.conclude()
    with pytest.raises(ValueError, match="no segment is open"):
        state.apply(Advance([], 0, "", "", False, 0, False), 0.0)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"min_silence_ms": 50}, r"padding_ms is 100 and min_silence_ms 50; the padding"),
        ({"min_silence_ms": 10}, r"min_silence_ms is 10; it must be at least 32"),
        ({"padding_ms": -1}, r"padding_ms is -1 and"),
        ({"max_segment_s": 1}, r"max_segment_s is 1; it must be at least 2"),
        ({"min_speech_ms": 2000}, r"min_speech_ms is 2000; it must be from 0 to less than 2000"),
        ({"speech_threshold": 1}, r"speech_threshold is 1; it must be between 0 and 1"),
    ],
)
def test_settings_out_of_range(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationConfig(**settings_)


def test_settings_that_the_window_cannot_hold() -> None:
    with pytest.raises(ValueError, match=r"the model hears at most 2\.00 s; segments need a window of at least 2\.5 s"):
        long_stream(FakeLALM(lambda audio: "", max_samples=2 * SAMPLE_RATE))
    with pytest.raises(ValueError, match=r"segments need a window of at least 2\.5 s"):  # although it need not segment yet
        StreamState(FakeLALM(lambda audio: "", max_samples=2 * SAMPLE_RATE), None, SegmentationConfig(), from_start=False)


class Probabilities(VAD):
    """A detector that returns the given probabilities, window by window."""

    def __init__(self, probabilities: Sequence[float]) -> None:
        self.probabilities = list(probabilities)

    def __call__(self, window: np.ndarray) -> float:
        return self.probabilities.pop(0)

    def reset(self) -> None:
        pass


@pytest.mark.parametrize(
    ("threshold", "dip", "segments"), [(0.5, 0.36, 1), (0.5, 0.34, 2), (0.1, 0.02, 1), (0.1, 0.005, 2), (0.005, 0.006, 1)]
)
def test_speech_goes_on_a_little_below_its_threshold(threshold: float, dip: float, segments: int) -> None:
    vad = Probabilities([0.9] * 20 + [dip] * 20 + [0.9] * 20)
    stream = Stream(exact_lalm(), segmentation=SegmentationConfig(speech_threshold=threshold), vad=vad)
    assert len(segments_of(run(stream, np.zeros(60 * WINDOW_SAMPLES, dtype=np.float32)))) == segments


def test_speech_behind_a_cut_is_kept_though_a_pause_has_begun() -> None:
    audio = noise(6, seed=4)
    dip, last = 88 * WINDOW_SAMPLES, 100  # in samples, in windows; the longest segment ends after window 109
    audio[dip - 1_000 : dip + 1_000] *= 0.1
    vad = Probabilities([0.9] * last + [0.0] * 88)
    first, second = segments_of(run(Stream(exact_lalm(), None, SegmentationConfig(), vad), audio))
    assert abs(first.end_samples - dip) <= WINDOW_SAMPLES
    assert (second.start_samples, second.end_samples) == (first.end_samples, last * WINDOW_SAMPLES + PADDING)
