"""Trimmed padding: the audio encoder computes only the positions of a batch's longest clip, not its whole window.

Whisper-style encoders expect features padded to their window (30 s for Qwen2-Audio), so half a second of speech costs as much as
thirty. Attention masks the padding, so the outputs without it are the same up to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

_LOOKAHEAD_FRAMES = 2  # the encoder's two convolutions see so many frames behind the last one of a clip
_FRAMES_PER_TOKEN = 4  # the second convolution and the pooling halve the rate each


def padded_samples(longest: int, extractor: Any) -> int:
    """Number of samples to pad a batch to whose longest clip has `longest`: whole audio tokens, at most the window.

    The clip must be followed by silence within reach of its last position: the convolutions' look-ahead frames and half a Fourier
    window.
    """
    needed = longest + _LOOKAHEAD_FRAMES * extractor.hop_length + extractor.n_fft // 2
    token = _FRAMES_PER_TOKEN * extractor.hop_length
    return int(min(-(-needed // token) * token, extractor.n_samples))


@contextlib.contextmanager
def narrowed(tower: Any, frames: int) -> Iterator[None]:
    """Let a `Qwen2AudioEncoder` take features of `frames` frames instead of its window; not for two threads at a time."""
    positions = frames // (tower.conv1.stride[0] * tower.conv2.stride[0])
    window, embedding = tower.config.max_source_positions, tower.embed_positions
    tower.config.max_source_positions = positions
    tower.embed_positions = nn.Embedding.from_pretrained(embedding.weight[:positions])  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        tower.config.max_source_positions, tower.embed_positions = window, embedding
