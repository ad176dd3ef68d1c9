"""Clips of different lengths apart: for encoders in which the padding of one clip disturbs what is heard of it.

Every clip goes through the processor alone. The results travel as one padded batch that remembers their lengths, and the model
runs once for each group of equal ones; what comes out is put together again, in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import pad

from simulsa.lalm.grouping import joined_caches

_SHAPE = ".shape"  # behind the name of a padded tensor: int64 [clips, dimensions], how much of each row is real


def stacked(clips: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The audio tensors `[1, ...]` of single clips as `[clips, ...]`, padded with zeros, and their shapes beside them."""
    batch = {}
    for name, first in clips[0].items():
        tensors = [clip[name] for clip in clips]
        shapes = torch.tensor([tensor.shape[1:] for tensor in tensors], dtype=torch.long, device=first.device)
        largest = shapes.amax(0)
        # `pad` counts dimensions from the last
        behind = [[n for size in reversed((largest - shape).tolist()) for n in (0, size)] for shape in shapes]
        batch[name] = torch.cat([pad(tensor, padding) for tensor, padding in zip(tensors, behind, strict=True)])
        batch[name + _SHAPE] = shapes
    return batch


def equal_lengths(batch: dict[str, torch.Tensor]) -> list[tuple[list[int], dict[str, torch.Tensor]]]:
    """A batch of `stacked` as groups of clips that are equally long, without padding: which rows, and their tensors."""
    shapes = {name.removesuffix(_SHAPE): tensor.tolist() for name, tensor in batch.items() if name.endswith(_SHAPE)}
    groups = defaultdict(list)
    for row, key in enumerate(zip(*shapes.values(), strict=True)):
        groups[str(key)].append(row)
    return [(rows, {name: _cut(batch[name][rows], shape[rows[0]]) for name, shape in shapes.items()}) for rows in groups.values()]


def _cut(tensor: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The first `shape` of every row."""
    for dimension, size in enumerate(shape, start=1):
        tensor = tensor.narrow(dimension, 0, size)
    return tensor


def run_apart(
    run: Callable[[list[int], dict[str, torch.Tensor]], tuple[torch.Tensor, Any]], batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, Any]:
    """`run(rows, audio)` for each group; the hidden states `[clips, length, width]` and the caches of all, joined in order."""
    groups = equal_lengths(batch)
    results = [run(rows, audio) for rows, audio in groups]
    order = torch.tensor([row for rows, _ in groups for row in rows]).argsort().to(results[0][0].device)
    hidden = torch.cat([hidden for hidden, _ in results])[order]
    if results[0][1] is None:
        return hidden, None
    cache = joined_caches([cache for _, cache in results])
    cache.batch_select_indices(order)
    return hidden, cache
