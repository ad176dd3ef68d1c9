"""Trimmed padding: the audio encoder computes only the positions of a batch's longest clip, not its whole window.

Whisper-style encoders expect features padded to their window (30 s for Qwen2-Audio), so half a second of speech costs as much as
thirty seconds. Attention masks the padding, so the outputs without it are the same up to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from simulsa.lalm.device import RoundUp

_LOOKAHEAD_FRAMES = 2  # the encoder's two convolutions see this many frames after the last one of a clip
_FRAMES_PER_TOKEN = 4  # the second convolution and the pooling each halve the rate


def padded_samples(longest: int, extractor: Any) -> int:
    """Number of samples to pad a batch to if its longest clip has `longest`: whole audio tokens, at most the window.

    The clip must be followed by as much silence as its last position sees: the convolutions' look-ahead frames and half a
    Fourier window.
    """
    needed = longest + _LOOKAHEAD_FRAMES * extractor.hop_length + extractor.n_fft // 2
    token = _FRAMES_PER_TOKEN * extractor.hop_length
    return int(min(-(-needed // token) * token, extractor.n_samples))


def longer(features: Mapping[str, torch.Tensor], round_up: RoundUp, positions: int) -> dict[str, torch.Tensor]:
    """Features and their mask, `[clips, ..., frames]`, zero-padded at the end to a number of audio tokens on the grid.

    The limit is the encoder's window, `positions` of two frames each.
    """
    frames = features["input_features"].shape[-1]
    wanted = min(_FRAMES_PER_TOKEN * round_up(-(-frames // _FRAMES_PER_TOKEN)), 2 * positions)
    return {name: pad(tensor, (0, max(wanted - frames, 0))) for name, tensor in features.items()}


@contextlib.contextmanager
def trimmed_window(tower: Any, frames: int) -> Iterator[None]:
    """Make a `Qwen2AudioEncoder` accept features of `frames` frames instead of its window; not thread-safe."""
    positions = frames // (tower.conv1.stride[0] * tower.conv2.stride[0])
    window, embedding = tower.config.max_source_positions, tower.embed_positions
    tower.config.max_source_positions = positions
    tower.embed_positions = nn.Embedding.from_pretrained(embedding.weight[:positions])  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        tower.config.max_source_positions, tower.embed_positions = window, embedding
