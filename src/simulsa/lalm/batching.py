"""Combine the audio tensors of single clips into one batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import pad

Features = Mapping[str, torch.Tensor]


def padded(clips: Sequence[Features]) -> dict[str, torch.Tensor]:
    """Concatenate the tensors `[windows, ...]` of all clips, zero-padded at the end of every other dimension."""
    return {name: torch.cat(_equally_large([clip[name] for clip in clips])) for name in clips[0]}


def _equally_large(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    largest = torch.tensor([tensor.shape[1:] for tensor in tensors]).amax(0).tolist()
    # `pad` takes the dimensions from last to first
    return [
        pad(tensor, [n for size, now in zip(reversed(largest), reversed(tensor.shape[1:]), strict=True) for n in (0, size - now)])
        for tensor in tensors
    ]


def equally_shaped(clips: Sequence[Features]) -> list[list[int]]:
    """Group clips whose tensors have the same shapes, so that no group needs padding."""
    groups = defaultdict(list)
    for row, clip in enumerate(clips):
        groups[tuple(tuple(tensor.shape) for tensor in clip.values())].append(row)
    return list(groups.values())
