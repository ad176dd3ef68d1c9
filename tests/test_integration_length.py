"""Speech of unknown length, as other people's tools hand it over: whole up to the longest segment, in segments beyond."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE
from simulsa.integrations.tools import Setup
from simulsa.settings import SettingsError
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.stream import Stream
from simulsa.testing import FakeLALM, FakeVAD, growing_script
from tests.test_longform import run, segments_of

CONFIG = StreamConfig("de", "en", 500, rollback=0)
SEGMENTS = SegmentationConfig(max_segment_s=3)
WORDS = " ".join(f"w{i}" for i in range(100))


def stream_of(lalm: FakeLALM | None = None) -> Stream:
    return Stream(lalm or FakeLALM(growing_script(WORDS)), CONFIG, SEGMENTS, FakeVAD(), from_start=False)


def speech(seconds: float) -> np.ndarray:
    """A tone, quieter from 2.4 to 2.6 s."""
    samples = np.full(round(seconds * SAMPLE_RATE), 0.1, dtype=np.float32)
    samples[round(2.4 * SAMPLE_RATE) : round(2.6 * SAMPLE_RATE)] = 0.01
    return samples


def test_up_to_a_segment_it_is_one_stream() -> None:
    for seconds in (0.3, 1.9, 3.0):
        samples = speech(seconds)
        whole = Stream(FakeLALM(growing_script(WORDS)), CONFIG)
        assert run(stream_of(), samples, range(0, len(samples), 8_000)) == run(whole, samples)


def test_behind_it_long_form_begins_at_a_quiet_place() -> None:
    samples = speech(8.0)
    heard: list[int] = []
    lalm = FakeLALM(lambda audio: heard.append(len(audio)) or growing_script(WORDS)(audio))  # type: ignore[func-returns-value]
    updates = run(stream_of(lalm), samples, range(0, len(samples), 8_000))
    assert [update.final for update in updates] == [False] * (len(updates) - 1) + [True]
    assert updates[-1].audio_samples == len(samples)
    assert "".join(update.new for update in updates) == updates[-1].committed
    assert max(heard) <= 3 * SAMPLE_RATE, "nothing is heard again and again"
    segments = segments_of(updates)
    assert [segment.index for segment in segments] == [0, 1, 2]
    assert [segments[0].start_samples, segments[-1].end_samples] == [0, len(samples)]
    assert all(one.end_samples == two.start_samples for one, two in itertools.pairwise(segments))
    assert 2.4 * SAMPLE_RATE <= segments[0].end_samples <= 2.6 * SAMPLE_RATE
    words = updates[-1].committed.split()
    assert words.count("w0") == 3
    assert len(words) >= 8 * 4 - 4


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 100_000), max_size=10))
def test_any_split_gives_the_same_updates(cuts: list[int]) -> None:
    samples = speech(6.25)
    assert run(stream_of(), samples, cuts) == run(stream_of(), samples)


def test_a_stream_that_outgrew_its_segment_starts_anew_after_a_reset() -> None:
    stream = stream_of()
    first = run(stream, speech(4.0))
    stream.reset()
    assert run(stream, speech(4.0)) == first


@pytest.mark.parametrize(
    ("longform", "segments"), [(None, [(0, 2.5), (2.5, 4.0)]), (True, [(0.4, 2.5), (2.5, 4.0)]), (False, [(0, 4.0)])]
)
def test_what_the_settings_say(
    longform: bool | None, segments: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulsa.streaming.state.SileroVAD", FakeVAD)
    setup = Setup.of({} if longform is None else {"longform": longform}, 500, "here")
    setup = dataclasses.replace(setup, segments=SEGMENTS)
    samples = speech(4.0)
    samples[: SAMPLE_RATE // 2] = 0
    updates = run(setup.start(FakeLALM(growing_script(WORDS)), setup.stream), samples)
    found = [(segment.start_samples / SAMPLE_RATE, segment.end_samples / SAMPLE_RATE) for segment in segments_of(updates)]
    assert np.array(found) == pytest.approx(np.array(segments), abs=0.1)


def test_settings_of_long_form_require_it() -> None:
    with pytest.raises(SettingsError, match="max_segment_s is a long-form setting; it requires longform: true"):
        Setup.of({"max_segment_s": 5}, 500, "here")
