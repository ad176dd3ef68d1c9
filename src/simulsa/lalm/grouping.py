"""Length bucketing within a batch: several passes if padding would cost more than another pass; KV caches are then joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch.nn.functional import pad

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.costs import PassCost

Item = TypeVar("Item")

PASS_SAMPLES = 480 * SAMPLE_RATE  # of audio in one pass, padding included: 16 clips that fill Qwen2-Audio's window


def grouped(lengths: Sequence[int], cost: PassCost) -> list[list[int]]:
    """Partition rows into buckets of similar length.

    Of all partitions of the rows sorted by length, it is the one with the lowest total cost.
    """
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    least, begins = [0], []  # for the first n rows: the lowest cost, and where the last group begins
    for end in range(1, len(rows) + 1):
        longest = lengths[rows[end - 1]]
        total, begin = min((least[begin] + cost(end - begin, longest), begin) for begin in range(end))
        least.append(total)
        begins.append(begin)
    groups: list[list[int]] = []
    end = len(rows)
    while end:
        groups.insert(0, rows[begins[end - 1] : end])
        end = begins[end - 1]
    return groups


def batches(ordered: Sequence[Item], length: Callable[[Item], int], rows: int, total: int) -> list[list[Item]]:
    """Split `ordered`, longest first, into batches of at most `rows` items and at most `total` in length, padding included.

    A longer item forms a batch of its own.
    """
    found: list[list[Item]] = []
    for item in ordered:
        if found and len(found[-1]) < rows and (len(found[-1]) + 1) * length(found[-1][0]) <= total:
            found[-1].append(item)
        else:
            found.append([item])
    return found


def joined_masks(masks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate attention masks `[rows, length]` along the rows, padded on the left to the longest."""
    longest = max(mask.shape[1] for mask in masks)
    return torch.cat([pad(mask, (longest - mask.shape[1], 0)) for mask in masks])


def joined_caches(caches: Sequence[Any]) -> Any:
    """Concatenate caches `[rows, heads, length, width]` along the rows into the first, padded on the left to the longest."""
    first, *others = caches
    if not others:
        return first
    for number, layer in enumerate(first.layers):
        if layer.keys is None:  # a layer that uses the keys of another
            continue
        parts = [cache.layers[number] for cache in caches]
        longest = max(part.keys.shape[2] for part in parts)
        layer.keys = torch.cat([_lengthened(part.keys, longest) for part in parts])
        layer.values = torch.cat([_lengthened(part.values, longest) for part in parts])
    return first


def _lengthened(states: torch.Tensor, length: int) -> torch.Tensor:
    return pad(states, (0, 0, length - states.shape[2], 0))
