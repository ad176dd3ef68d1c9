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

_LENGTH = ".length"  # behind the name of a padded tensor: int64 [clips], how much of each row is real


def stacked(clips: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The audio tensors `[1, length, ...]` of single clips as `[clips, longest, ...]`, their lengths beside them."""
    batch = {}
    for name in clips[0]:
        tensors = [clip[name] for clip in clips]
        if tensors[0].dim() > 1:
            lengths = torch.tensor([tensor.shape[1] for tensor in tensors], device=tensors[0].device)
            batch[name + _LENGTH] = lengths
            longest = int(lengths.max())
            tensors = [pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, longest - tensor.shape[1])) for tensor in tensors]
        batch[name] = torch.cat(tensors)
    return batch


def equal_lengths(batch: dict[str, torch.Tensor]) -> list[tuple[list[int], dict[str, torch.Tensor]]]:
    """A batch of `stacked` as groups of clips that are equally long, without padding: which rows, and their tensors."""
    lengths = {name.removesuffix(_LENGTH): tensor.tolist() for name, tensor in batch.items() if name.endswith(_LENGTH)}
    groups = defaultdict(list)
    for row, key in enumerate(zip(*lengths.values(), strict=True)):
        groups[key].append(row)
    cut: list[tuple[list[int], dict[str, torch.Tensor]]] = []
    for rows in groups.values():
        tensors = {name: tensor[rows] for name, tensor in batch.items() if not name.endswith(_LENGTH)}
        cut.append((rows, {name: t[:, : lengths[name][rows[0]]] if name in lengths else t for name, t in tensors.items()}))
    return cut


def run_apart(
    run: Callable[[list[int], dict[str, torch.Tensor]], tuple[torch.Tensor, Any]], batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, Any]:
    """`run(rows, audio)` for each group; the hidden states `[clips, length, width]` and the caches of all, joined in order."""
    groups = equal_lengths(batch)
    results = [run(rows, audio) for rows, audio in groups]
    order = torch.tensor([row for rows, _ in groups for row in rows]).argsort().to(results[0][0].device)
    hidden = torch.cat([hidden for hidden, _ in results])[order]
    cache, *others = [cache for _, cache in results]
    if cache is not None:
        for number, layer in enumerate(cache.layers):
            same = [layer, *(other.layers[number] for other in others)]
            layer.keys = torch.cat([part.keys for part in same])[order]
            layer.values = torch.cat([part.values for part in same])[order]
    return hidden, cache
