"""What the rest of simulsa needs of an audio-language model (LALM)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from simulsa.manifest import Latency


class LALMError(RuntimeError):
    """A model that cannot be loaded or used; the message says what was found and what to do."""


class Direction(NamedTuple):
    """Which language is spoken and which is written, and with which `Latency` word, if any."""

    source_lang: str
    target_lang: str
    latency: Latency | None = None


@dataclass(frozen=True)
class TokenScores:
    """How plausible a model finds each token of a given target, under teacher forcing.

    `log_probs` float32 `[tokens]`, natural logarithm; `ranks` int64 `[tokens]`, the number of vocabulary entries that the
    model finds more likely (0 is its first choice).
    """

    log_probs: np.ndarray
    ranks: np.ndarray


@dataclass(frozen=True)
class Heads:
    """Which attention heads of the language model to average over: all, those of one `layer`, or one `head` of it, from 0."""

    layer: int | None = None
    head: int | None = None


ALL_HEADS = Heads()


class LALM(Protocol):
    """An audio-language model. All verbs are batched; audio is float32 mono at `SAMPLE_RATE`, tokens are ids."""

    name: str
    """What the user called it: hub id, folder or `tiny-en-de`."""
    signature: str
    """Name and content hash, recorded with every result."""
    max_samples: int
    """The longest clip that the model hears whole."""
    vocabulary_size: int
    eos_id: int
    directions: tuple[Direction, ...]
    """What it was trained to translate, the most frequent first; empty where that is not known."""

    @property
    def exact(self) -> bool:
        """Whether equal inputs give equal tokens whatever the batch (float32 does, half precision may not)."""
        ...

    def token_limit(self, samples: int) -> int:
        """The most tokens that a translation of a clip of `samples` can have, its prefix included; `continue_` stops there.

        It is what the model's context has room for beside the clip, and no more than speech of that length takes in any language,
        so that a model that repeats itself without end is stopped.
        """
        ...

    def score(
        self, audios: Sequence[np.ndarray], targets: Sequence[Sequence[int]], directions: Sequence[Direction]
    ) -> list[TokenScores]:
        """Score every target token given its audio and the tokens before it, in one forward pass for the batch."""
        ...

    def continue_(
        self,
        audios: Sequence[np.ndarray],
        prefixes: Sequence[Sequence[int]],
        directions: Sequence[Direction],
        drafts: Sequence[Sequence[int]] | None = None,
    ) -> list[list[int]]:
        """Continue each prefix greedily to the end of the translation; returns the new tokens, without EOS.

        A translation that has as many tokens as `token_limit` allows was cut off there.

        `drafts` are guesses of the continuation: the part that greedy decoding would produce as well is verified in one
        forward pass instead of being decoded token by token. They change the speed, never the tokens.
        """
        ...

    def attend(
        self,
        audios: Sequence[np.ndarray],
        targets: Sequence[Sequence[int]],
        directions: Sequence[Direction],
        heads: Heads = ALL_HEADS,
    ) -> list[np.ndarray]:
        """How much each target token attends to each moment of its audio, in one teacher-forced pass for the batch.

        float32 `[tokens, frames]` per row, the mean over `heads`: the weights that the model's audio tokens have where it says
        the token. Frames divide the clip evenly; a row sums to 1 at most, because the model attends to text as well. Raises
        `LALMError` for a model whose attention cannot be seen, or that has no such heads.
        """
        ...

    def encode(self, text: str) -> list[int]:
        """Text to target token ids, without special tokens."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Target token ids to text, special tokens left out; an incomplete character decodes to U+FFFD."""
        ...
