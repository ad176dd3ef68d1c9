"""The order of the rows of a training."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulsa.manifest import Utterance
from simulsa.training.config import TrainConfig
from simulsa.training.examples import Example
from simulsa.training.order import grouped_order, passed_examples


def example(number: int, duration_s: float, augmented: bool = False) -> Example:
    row = Utterance(f"{number}", "a.wav", "en", "de", "Hund", duration_s=duration_s, parent_id="p" if augmented else None)
    return Example(row, ())


def steps(examples: list[Example], size: int, **changes: Any) -> list[list[Example]]:
    config = TrainConfig(batch_size=size, micro_batch_size=size, **{"length_grouping": True, "epochs": 1, **changes})
    passed = [examples[i] for i in grouped_order(examples, config)]
    made = [passed[start : start + size] for start in range(0, len(passed), size)]
    assert len(made) == config.optimiser_steps(len(examples))
    return made


def speech_share(made: list[list[Example]]) -> float:
    heard = sum(e.length_s for step in made for e in step)
    return heard / sum(max(e.length_s for e in step) * len(step) for step in made)


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 3))
def test_every_epoch_passes_every_row_once(number: int, size: int, epochs: int) -> None:
    examples = [example(i, 1 + i % 7, i % 5 == 0) for i in range(number)]
    made = steps(examples, size, epochs=epochs)
    assert Counter(e.row.id for step in made for e in step) == {f"{i}": epochs for i in range(number)}


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 3), st.booleans())
def test_steps_are_full_but_for_the_end_of_an_epoch(number: int, size: int, epochs: int, grouping: bool) -> None:
    examples = [example(i, 1 + i % 7) for i in range(number)]
    config = TrainConfig(batch_size=size, micro_batch_size=size, epochs=epochs, length_grouping=grouping)
    passed = passed_examples(examples, config)
    assert len(passed) == size * config.optimiser_steps(number)
    ends = [number] * epochs if not grouping else [epochs * number]
    for end in ends:
        one, passed = passed[: end + -end % size], passed[end + -end % size :]
        assert one[end:] == [None] * (-end % size)
        assert {e.row.id for e in one[:end] if e} == {e.row.id for e in examples}
    assert passed == []


def test_shuffling_is_seeded_and_every_epochs_own() -> None:
    examples = [example(i, 1) for i in range(40)]
    first, again, other = (
        passed_examples(examples, TrainConfig(batch_size=8, micro_batch_size=8, epochs=2, seed=seed)) for seed in (0, 0, 2)
    )
    assert first == again
    assert first[:40] != first[40:]
    assert not {tuple(e.row.id for e in part if e) for part in (first[:40], first[40:])} & {
        tuple(e.row.id for e in part if e) for part in (other[:40], other[40:])
    }


@given(st.integers(1, 60), st.integers(1, 9), st.floats(0.01, 3), st.integers(1, 7))
def test_of_a_broken_epoch_a_part_is_passed(number: int, size: int, epochs: float, every: int) -> None:
    examples = [example(i, 1 + i % 7, i % every == 0) for i in range(number)]
    passed = Counter(e.row.id for step in steps(examples, size, epochs=epochs) for e in step)  # steps() counts the steps
    assert sum(passed.values()) == math.ceil(epochs * number)
    assert all(math.floor(epochs) - 1 <= passed[e.row.id] <= math.ceil(epochs) for e in examples)


def test_half_an_epoch_passes_half_of_each_kind() -> None:
    examples = [example(i, 1, i % 4 == 0) for i in range(80)]
    passed = [e for step in steps(examples, 4, epochs=1.5) for e in step]
    assert len(passed) == 120
    assert sum(e.row.is_augmented for e in passed) == 30


def test_equals_share_a_step_and_steps_are_shuffled() -> None:
    lengths = np.random.default_rng(0).lognormal(1, 0.4, 2000)
    examples = [example(i, float(length)) for i, length in enumerate(lengths)]
    made = steps(examples, 16)
    assert speech_share(made) > 0.93
    shuffled = passed_examples(examples, TrainConfig(batch_size=16, micro_batch_size=16, epochs=1))
    assert speech_share([[e for e in shuffled[i : i + 16] if e] for i in range(0, len(shuffled), 16)]) < 0.6
    means = [float(np.mean([e.length_s for e in step])) for step in made]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.3


def test_the_order_follows_the_seed_and_epochs_differ() -> None:
    examples = [example(i, 1 + i % 7) for i in range(100)]
    made = steps(examples, 4, epochs=2)
    assert made == steps(examples, 4, epochs=2)
    assert made != steps(examples, 4, epochs=2, seed=1)
    assert made[:25] != made[25:]


def test_simultaneous_rows_are_spread_over_the_steps() -> None:
    examples = [example(i, 1.0, True) if i % 20 == 0 else example(i, 2 + (i % 19) / 4) for i in range(3200)]
    made = steps(examples, 32)
    counts = [sum(e.row.is_augmented for e in step) for step in made]
    assert np.mean(counts) == pytest.approx(1.6)
    assert max(counts) <= 8  # among their equals they would fill five steps
    offline = [[e for e in step if not e.row.is_augmented] for step in made]
    assert speech_share(offline) > 0.93
