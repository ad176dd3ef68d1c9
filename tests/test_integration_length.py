"""Speech of unknown length in other people's tools: whole as long as one segment may be, in segments from there on."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE
from simulsa.integrations.tools import AutoSegmentedStream, Setup
from simulsa.settings import SettingsError
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.state import Update
from simulsa.streaming.stream import Stream
from simulsa.testing import FakeLALM, FakeVAD, growing_script

CONFIG = StreamConfig("de", "en", 500, rollback=0)
SEGMENTS = SegmentationConfig(max_segment_s=3)
WORDS = " ".join(f"w{i}" for i in range(100))


@pytest.fixture(autouse=True)
def _scripted_ear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulsa.streaming.state.SileroVAD", FakeVAD)
    monkeypatch.setattr("simulsa.streaming.stream.SileroVAD", FakeVAD)


def speech(seconds: float) -> np.ndarray:
    """A tone, quieter from 2.4 to 2.6 s."""
    samples = np.full(round(seconds * SAMPLE_RATE), 0.1, dtype=np.float32)
    samples[round(2.4 * SAMPLE_RATE) : round(2.6 * SAMPLE_RATE)] = 0.01
    return samples


def updates_of(stream: Stream | Stream | AutoSegmentedStream, samples: np.ndarray, sizes: list[int]) -> list[Update]:
    updates: list[Update] = []
    start = 0
    for size in [*sizes, len(samples)]:
        updates += stream.push(samples[start : start + size])
        start += size
    return [*updates, *stream.finish()]


def test_up_to_a_segment_it_is_one_stream() -> None:
    for seconds in (0.3, 1.9, 3.0):
        samples = speech(seconds)
        ours = updates_of(AutoSegmentedStream(FakeLALM(growing_script(WORDS)), CONFIG, SEGMENTS), samples, [8_000] * 6)
        theirs = updates_of(Stream(FakeLALM(growing_script(WORDS)), CONFIG), samples, [])
        assert [(u.committed, u.audio_samples, u.final) for u in ours] == [
            (u.committed, u.audio_samples, u.final) for u in theirs
        ]


def test_behind_it_long_form_begins_at_a_quiet_place() -> None:
    samples = speech(8.0)
    heard: list[int] = []
    lalm = FakeLALM(lambda audio: heard.append(len(audio)) or growing_script(WORDS)(audio))  # type: ignore[func-returns-value]
    updates = updates_of(AutoSegmentedStream(lalm, CONFIG, SEGMENTS), samples, [8_000] * 16)
    assert [update.final for update in updates] == [False] * (len(updates) - 1) + [True]
    assert updates[-1].audio_samples == len(samples)
    texts = [update.committed for update in updates]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts)), "text only grows"
    assert max(heard) <= 3 * SAMPLE_RATE, "nothing is heard again and again"
    first = max(length for length in heard[:6])
    assert 2.4 * SAMPLE_RATE <= first <= 2.6 * SAMPLE_RATE
    words = texts[-1].split()
    assert words.count("w0") == 3
    assert len(words) >= 8 * 4 - 4


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 30_000), max_size=10))
def test_any_chunking_gives_the_same_text(sizes: list[int]) -> None:
    samples = speech(5.0)
    whole = updates_of(AutoSegmentedStream(FakeLALM(growing_script(WORDS)), CONFIG, SEGMENTS), samples, [])
    parts = updates_of(AutoSegmentedStream(FakeLALM(growing_script(WORDS)), CONFIG, SEGMENTS), samples, sizes)
    assert parts[-1].committed == whole[-1].committed


def test_what_the_settings_say() -> None:
    lalm = FakeLALM(growing_script(WORDS))
    kinds: dict[bool | None, Callable[..., object]] = {None: AutoSegmentedStream, False: Stream, True: Stream}
    for longform, kind in kinds.items():
        values = {} if longform is None else {"longform": longform}
        setup = Setup.of(values, 500, "here")
        assert isinstance(setup.start(lalm, setup.stream), kind)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="max_segment_s is a long-form setting; it requires longform: true"):
        Setup.of({"max_segment_s": 5}, 500, "here")
