"""Which target tokens stay."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulsa.augmentation.speculation import CRITERIA, kept_tokens, resolve_tau
from simulsa.lalm.interface import LALMError, TokenScores


def scores(probabilities: list[float], ranks: list[int] | None = None) -> TokenScores:
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.array(probabilities, dtype=np.float32))
    return TokenScores(log_probs, np.array(ranks or [0] * len(probabilities), dtype=np.int64))


def test_probability_stops_at_the_first_token_below_tau() -> None:
    assert kept_tokens(scores([0.9, 0.5, 0.25, 0.1, 0.9]), "probability", 0.2, 1000) == 3
    assert kept_tokens(scores([0.9, 0.5]), "probability", 0.2, 1000) == 2
    assert kept_tokens(scores([0.0, 0.5]), "probability", 0.2, 1000) == 0
    assert kept_tokens(scores([]), "probability", 0.2, 1000) == 0


def test_rank_stops_at_the_first_token_that_is_not_among_the_first_choices() -> None:
    assert kept_tokens(scores([0.1] * 4, [0, 99, 100, 0]), "rank", 0.1, 1000) == 2
    assert kept_tokens(scores([0.1] * 4, [0, 99, 98, 0]), "rank", 0.1, 1000) == 4


def test_each_criterion_looks_at_its_own_score() -> None:
    improbable_but_best = scores([1e-9], [0])
    assert kept_tokens(improbable_but_best, "probability", 0.01, 1000) == 0
    assert kept_tokens(improbable_but_best, "rank", 0.01, 1000) == 1


@given(st.integers(101, 300_000))
def test_auto_lets_exactly_a_hundred_choices_pass(vocabulary: int) -> None:
    tau = resolve_tau("auto", vocabulary)
    assert tau == 100 / vocabulary
    assert kept_tokens(scores([0.5] * 2, [99, 100]), "rank", tau, vocabulary) == 1


def test_auto_of_the_paper_and_of_a_tiny_vocabulary() -> None:
    assert resolve_tau("auto", 151_646) == pytest.approx(6.594e-4, rel=1e-3)
    assert resolve_tau("auto", 50) == 1.0
    assert resolve_tau(0.3, 50) == 0.3


@given(
    st.lists(st.tuples(st.floats(-30, 0), st.integers(0, 999)), max_size=30),
    st.sampled_from(CRITERIA),
    st.floats(1e-3, 1),
    st.floats(1e-3, 1),
)
def test_the_kept_tokens_are_the_longest_plausible_prefix(
    pairs: list[tuple[float, int]], criterion: str, tau: float, other: float
) -> None:
    given_scores = TokenScores(np.array([p for p, _ in pairs], dtype=np.float64), np.array([r for _, r in pairs], dtype=np.int64))
    kept = kept_tokens(given_scores, criterion, tau, 1000)
    plausible = [p >= math.log(tau) if criterion != "rank" else r < round(tau * 1000, 6) for p, r in pairs]
    assert all(plausible[:kept])
    assert kept == len(pairs) or not plausible[kept]
    # a stricter threshold never keeps more
    other_kept = kept_tokens(given_scores, criterion, other, 1000)
    stricter_keeps_less = (other_kept <= kept) if (other >= tau) == (criterion != "rank") else (other_kept >= kept)
    assert stricter_keeps_less or tau == other


@pytest.mark.parametrize("criterion", CRITERIA)
def test_nan_is_an_error_not_a_choice(criterion: str) -> None:
    with pytest.raises(LALMError, match="NaN"):
        kept_tokens(scores([0.5, math.nan]), criterion, 0.1, 1000)
