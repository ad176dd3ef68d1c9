"""The order in which an epoch passes the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from simulsa.training.examples import Example

POOL = 50  # batches that are sorted together: enough to find equals, few enough to mix


class LengthGrouped(Sampler[int]):
    """Rows of about the same length in each batch, so that little of it is padding; the batches in random order.

    Simultaneous rows are spread evenly: among their equals, the shortest, they would fill whole batches, and their share of an
    optimiser step would be all or nothing. The order depends on the seed and the epoch alone.
    """

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int) -> None:
        self._lengths = np.array([example.length_s for example in examples])
        self._simultaneous = np.array([example.row.is_augmented for example in examples])
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is about."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        keys = self._lengths.copy()
        keys[self._simultaneous] = rng.choice(self._lengths, int(self._simultaneous.sum()))
        order = rng.permutation(len(keys))
        pools = (order[start : start + POOL * self._batch_size] for start in range(0, len(order), POOL * self._batch_size))
        grouped = np.concatenate([pool[np.argsort(keys[pool], kind="stable")] for pool in pools])
        full = len(grouped) - len(grouped) % self._batch_size  # an epoch's last step has what is left over
        batches = rng.permutation(grouped[:full].reshape(-1, self._batch_size))
        return iter([*batches.ravel().tolist(), *grouped[full:].tolist()])
