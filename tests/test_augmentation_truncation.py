"""Where utterances are cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulsa.augmentation.truncation import TRUNCATIONS, CutRange, draw_cut, row_generator

PAPER = CutRange(8_000, 80_000, 8_000)  # 500 ms, 5000 ms, 500 ms
ranges = st.builds(
    lambda low, width, grid: CutRange(low, low + width, grid),
    st.integers(640, 20_000),
    st.integers(1, 90_000),
    st.integers(1, 20_000),
)
lengths = st.integers(1, 400_000)
truncations = st.sampled_from(TRUNCATIONS)
seeds = st.integers(0, 2**32)


def draws(truncation: str, length: int, count: int = 3000) -> np.ndarray:
    return np.array([draw_cut(truncation, length, PAPER, row_generator(0, str(i))) for i in range(count)])


@given(truncations, ranges, lengths, seeds, st.text(max_size=20))
def test_a_cut_lies_between_l_and_r(truncation: str, allowed: CutRange, length: int, seed: int, row_id: str) -> None:
    if not allowed.can_cut(length):
        with pytest.raises(ValueError, match="skip it"):
            draw_cut(truncation, length, allowed, row_generator(seed, row_id))
        return
    cut = draw_cut(truncation, length, allowed, row_generator(seed, row_id))
    latest = length if truncation == "beta-decay-full" else min(allowed.max_samples, length)
    assert type(cut) is int
    assert allowed.min_samples <= cut <= latest
    assert cut == draw_cut(truncation, length, allowed, row_generator(seed, row_id))
    if truncation == "beta-decay-discrete":
        assert (cut - allowed.min_samples) % allowed.grid_samples == 0


def test_an_utterance_as_long_as_l_cannot_be_cut() -> None:
    assert not PAPER.can_cut(8_000)
    assert PAPER.can_cut(8_001)


def test_seed_and_id_both_decide() -> None:
    cuts = {draw_cut("beta-decay", 80_000, PAPER, row_generator(seed, name)) for seed in (0, 1) for name in ("a", "b", "c")}
    assert len(cuts) == 6


@pytest.mark.parametrize(
    ("truncation", "length", "last"), [("beta-decay", 160_000, 80_000), ("beta-decay-full", 160_000, 160_000)]
)
def test_beta_decay_has_the_moments_of_beta_1_3(truncation: str, length: int, last: int) -> None:
    shares = (draws(truncation, length) - 8_000) / (last - 8_000)
    assert shares.mean() == pytest.approx(1 / 4, abs=0.015)  # α / (α + β)
    assert shares.var() == pytest.approx(3 / 80, abs=0.004)  # αβ / ((α + β)² (α + β + 1))
    assert np.mean(shares < 0.5) == pytest.approx(7 / 8, abs=0.02)


def test_uniform_is_uniform() -> None:
    shares = (draws("uniform", 160_000) - 8_000) / 72_000
    assert shares.mean() == pytest.approx(1 / 2, abs=0.02)
    assert shares.var() == pytest.approx(1 / 12, abs=0.006)


def test_discrete_cuts_use_the_whole_grid() -> None:
    assert set(draws("beta-decay-discrete", 40_100)) == {8_000, 16_000, 24_000, 32_000, 40_000}
    # the grid ends before the utterance does: the next point would lie past its end
    assert set(draws("beta-decay-discrete", 23_900)) == {8_000, 16_000}
