"""How much of a training run's batches is speech, with and without length grouping, and what the GPU shape grid adds.

python -m benchmarks.padding

Without a manifest, 20,000 lengths are drawn to resemble read speech: log-normal around 4.9 s, with CoVoST 2's mean of 5.6 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from simulsa.lalm.device import on_grid
from simulsa.manifest import Utterance, read_manifest
from simulsa.training.config import TrainConfig
from simulsa.training.examples import Example
from simulsa.training.order import passed_examples

TOKENS_PER_S, TEXT_TOKENS = 25, 60  # audio tokens in Qwen2-Audio's prompt; tokens of instruction and translation


@dataclass(frozen=True)
class Options:
    """Which lengths, in which batches."""

    manifest: Path | None = None
    """rows whose lengths are taken"""
    batch_size: int = 128
    micro_batch_size: int = 16


def drawn(count: int = 20_000) -> list[Example]:
    """Rows with drawn lengths, plus 1.3 % simultaneous rows cut from them."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(4.9), 0.5, count), 1, 30)
    rows = [Utterance(f"{i}", "", "en", "de", "", duration_s=float(length)) for i, length in enumerate(lengths)]
    cut = [
        replace(row, id=f"{row.id}@", parent_id=row.id, duration_s=row.duration_s and row.duration_s / 3) for row in rows[::77]
    ]
    return [Example(row, ()) for row in [*rows, *cut]]


def speech_share(passed: Sequence[Example | None], size: int) -> float:
    """The share of the passes' audio that is speech rather than padding."""
    heard = padded = 0.0
    for start in range(0, len(passed), size):
        lengths = [example.length_s for example in passed[start : start + size] if example is not None]
        heard += sum(lengths)
        padded += max(lengths, default=0.0) * len(lengths)
    return heard / padded


def grid_cost(passed: Sequence[Example | None], size: int) -> float:
    """The share of tokens added to the language model's passes by rounding each pass's length up to the grid."""
    exact = rounded = 0
    for start in range(0, len(passed), size):
        examples = [example for example in passed[start : start + size] if example is not None]
        longest = max((TEXT_TOKENS + round(TOKENS_PER_S * example.length_s) for example in examples), default=0)
        exact += longest * len(examples)
        rounded += on_grid(longest) * len(examples)
    return rounded / exact - 1


def main(options: Options) -> None:
    """Print the share of speech in both orders, and the cost of the grid."""
    examples = drawn() if options.manifest is None else [Example(row, ()) for row in read_manifest(options.manifest)]
    print(f"{len(examples)} rows, {options.batch_size} a step, {options.micro_batch_size} a pass")
    for grouping in (False, True):
        config = TrainConfig(
            batch_size=options.batch_size, micro_batch_size=options.micro_batch_size, epochs=1, length_grouping=grouping
        )
        share = speech_share(passed_examples(examples, config), options.micro_batch_size)
        print(f"{'grouped by length' if grouping else 'shuffled':<20}{share:6.1%} of the audio is speech")
        print(f"{'':<20}{grid_cost(passed_examples(examples, config), options.micro_batch_size):6.1%} more tokens on the grid")


if __name__ == "__main__":
    main(tyro.cli(Options))
