"""The order of the rows in a whole training run, fixed before it starts, whatever the number of processes or micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from simulsa.training.config import TrainConfig
from simulsa.training.examples import Example

POOL = 50  # optimiser steps whose offline rows are sorted together: enough to find similar lengths, few enough to mix


def passed_examples(examples: Sequence[Example], config: TrainConfig) -> list[Example | None]:
    """The rows of all steps and epochs, `config.batch_size` per step; `None` where a step has fewer rows.

    Plain shuffling equals that of transformers' `Trainer` (accelerate's seedable sampler): every epoch ends with a smaller step.
    """
    size = config.batch_size
    if config.length_grouping:
        epochs = [grouped_order(examples, config)]
    else:
        epochs = [_shuffled(len(examples), config.seed + epoch) for epoch in range(math.ceil(config.epochs))]
    passed = [examples[index] if index is not None else None for order in epochs for index in _filled(order, size)]
    return passed[: config.optimiser_steps(len(examples)) * size]


def _shuffled(number: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(number, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def _filled(order: list[int], size: int) -> list[int | None]:
    """`order`, padded with `None` to a whole number of steps."""
    return [*order, *[None] * (-len(order) % size)]


def grouped_order(examples: Sequence[Example], config: TrainConfig) -> list[int]:
    """Length bucketing: indices of `examples` for all steps and epochs, `config.batch_size` per step.

    The offline rows of a step are of similar length, and the steps come in random order. Simultaneous rows are placed at random:
    they are the shortest, and would otherwise fill whole steps. Depends only on the number, kinds and lengths of the rows and on
    the settings.
    """
    rng = np.random.default_rng(config.seed)
    augmented = np.array([example.row.is_augmented for example in examples])
    lengths = np.array([example.length_s for example in examples])
    total = config.passed_rows(len(examples))
    offline, simultaneous = (_passes(np.flatnonzero(kind), config.epochs, rng) for kind in (~augmented, augmented))
    offline = offline[: total - round(config.epochs * augmented.sum())]  # of a partial epoch, the same share of each kind
    simultaneous = simultaneous[: total - len(offline)]
    taken = np.zeros(total, dtype=bool)
    taken[rng.permutation(total)[: len(simultaneous)]] = True
    order = np.empty(total, dtype=int)
    order[taken] = simultaneous
    free = np.flatnonzero(~taken)
    order[free] = _grouped(offline, free // config.batch_size, lengths, rng)
    return [int(index) for index in order]


def _passes(indices: np.ndarray, epochs: float, rng: np.random.Generator) -> np.ndarray:
    """The epochs' permutations one after the other; a partial last epoch is whole here."""
    return np.concatenate([rng.permutation(indices) for _ in range(math.ceil(epochs))])


def _grouped(rows: np.ndarray, steps: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`rows`, `[free places]`, ordered so that a step has rows of similar length; `steps` has the step of each place."""
    placed = np.empty_like(rows)
    for pool in np.unique(steps // POOL):
        places = np.flatnonzero(steps // POOL == pool)
        shuffled = rng.permutation(POOL)[steps[places] % POOL]  # in random order, not from short to long
        placed[places[np.argsort(shuffled, kind="stable")]] = rows[places][np.argsort(lengths[rows[places]], kind="stable")]
    return placed
