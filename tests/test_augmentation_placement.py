"""Where a drawn cut falls exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE
from simulsa.augmentation.placement import FRAME_SAMPLES, nearest, place_cut, quietest
from simulsa.manifest import ManifestError, Utterance

Rows = Callable[..., list[Utterance]]


def test_the_quietest_place_is_the_pause() -> None:
    samples = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    samples[8_000:8_640] = 0
    assert 8_000 <= quietest(samples, 4_000, 12_000) <= 8_640
    assert quietest(samples, 100, 100 + FRAME_SAMPLES) == 100 + FRAME_SAMPLES // 2  # too short to look around


@given(st.lists(st.integers(0, 1000), unique=True).map(sorted), st.integers(0, 500), st.integers(0, 500), st.data())
def test_the_nearest_end_in_the_range(ends: list[int], first: int, room: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(first, first + room))
    found = nearest(ends, cut, first, first + room)
    allowed = [end for end in ends if first <= end <= first + room]
    assert found == cut if not allowed else found in allowed
    assert all(abs(found - cut) <= abs(end - cut) for end in allowed)


def test_a_cut_goes_to_a_pause_or_a_word_end_or_stays(make_rows: Rows) -> None:
    row = make_rows(1)[0]
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * SAMPLE_RATE)
    samples[17_000:17_700] = 0
    soundfile.write(row.audio, samples, SAMPLE_RATE)
    row = dataclasses.replace(row, extra={"word_ends_s": [0.5, 1.1, 1.5]})
    assert place_cut("anywhere", row, 16_000, 8_000, 32_000) == 16_000
    assert 17_000 <= place_cut("pause", row, 16_000, 8_000, 32_000) <= 17_700
    assert abs(place_cut("pause", row, 26_000, 8_000, 32_000) - 26_000) <= 4_800  # the pause is out of reach
    assert place_cut("word-end", row, 16_000, 8_000, 32_000) == 17_600
    assert place_cut("word-end", row, 16_000, 16_000, 17_000) == 16_000


@pytest.mark.parametrize("value", [None, "0.5", [0.5, "1"]])
def test_word_ends_must_be_there(make_rows: Rows, value: object) -> None:
    row = dataclasses.replace(make_rows(1)[0], extra={"word_ends_s": value})
    with pytest.raises(ManifestError, match="it must list where the words end"):
        place_cut("word-end", row, 16_000, 8_000, 32_000)
