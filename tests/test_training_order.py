"""The order in which an epoch passes the rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulsa.manifest import Utterance
from simulsa.training.examples import Example
from simulsa.training.order import LengthGrouped


def example(number: int, duration_s: float, augmented: bool = False) -> Example:
    row = Utterance(f"{number}", "a.wav", "en", "de", "Hund", duration_s=duration_s, parent_id="p" if augmented else None)
    return Example(row, ())


def batches(examples: list[Example], size: int, epoch: int = 0) -> list[list[Example]]:
    order = LengthGrouped(examples, size, seed=0)
    order.set_epoch(epoch)
    passed = [examples[i] for i in order]
    return [passed[start : start + size] for start in range(0, len(passed), size)]


def speech_share(made: list[list[Example]]) -> float:
    heard = sum(e.length_s for batch in made for e in batch)
    return heard / sum(max(e.length_s for e in batch) * len(batch) for batch in made)


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 3))
def test_every_row_is_passed_once_an_epoch(number: int, size: int, epoch: int) -> None:
    examples = [example(i, 1 + i % 7, i % 5 == 0) for i in range(number)]
    passed = [e.row.id for batch in batches(examples, size, epoch) for e in batch]
    assert sorted(passed, key=int) == [f"{i}" for i in range(number)]
    assert len(LengthGrouped(examples, size, 0)) == number


def test_equals_share_a_batch_and_batches_are_shuffled() -> None:
    lengths = np.random.default_rng(0).lognormal(1, 0.4, 2000)
    examples = [example(i, float(length)) for i, length in enumerate(lengths)]
    made = batches(examples, 16)
    assert speech_share(made) > 0.93
    assert speech_share([examples[i : i + 16] for i in range(0, 2000, 16)]) < 0.6
    means = [float(np.mean([e.length_s for e in batch])) for batch in made]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.3


def test_epochs_differ_and_can_be_repeated() -> None:
    examples = [example(i, 1 + i % 7) for i in range(100)]
    first, again, second = (batches(examples, 4, epoch) for epoch in (0, 0, 1))
    assert first == again
    assert first != second


def test_simultaneous_rows_are_spread_over_the_batches() -> None:
    examples = [example(i, 1.0, True) if i % 20 == 0 else example(i, 2 + (i % 19) / 4) for i in range(3200)]
    counts = [sum(e.row.is_augmented for e in batch) for batch in batches(examples, 32)]
    assert np.mean(counts) == pytest.approx(1.6)
    assert max(counts) <= 8  # among their equals they would fill five batches
