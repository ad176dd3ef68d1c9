"""What the rest of simulsa needs of an audio-language model (LALM)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np


class LALMError(RuntimeError):
    """A model that cannot be loaded or used; the message says what was found and what to do."""


class Direction(NamedTuple):
    """Which language is spoken and which is written."""

    source_lang: str
    target_lang: str


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


@dataclass(frozen=True)
class Want:
    """What a caller of `continue_` wants to know of the tokens besides their ids.

    `log_probs`: how likely each was. `heads`: what each of them attends to in the audio, averaged over these heads.
    """

    log_probs: bool = False
    heads: Heads | None = None


TOKENS_ONLY = Want()


@dataclass(frozen=True)
class Continuation:
    """What a model says behind a prefix, by greedy decoding.

    `tokens` are the new ids, without EOS. What was not wanted is `None`: `log_probs` float32 `[tokens]`, natural logarithm;
    `attention` float32 `[tokens, frames]`, the attention weights on the audio at the position that predicts each token. Frames
    divide the clip evenly; a row sums to 1 at most, because the model attends to text as well. `truncated` says that the
    translation, its prefix included, reached the limit of tokens before EOS. The limit is what the model's context has room for
    beside the clip, and no more than speech of that length takes in any language: a model that repeats itself is stopped.
    """

    tokens: list[int]
    truncated: bool = False
    log_probs: np.ndarray | None = None
    attention: np.ndarray | None = None


class Heard(Protocol):
    """A clip as a model has heard it, with the prompt around it: what `LALM.hear` returns for each row.

    It belongs to the model that made it. Keep it for as long as the same audio may be asked about again.
    """

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        ...

    def detached(self) -> Any:
        """The same, without the memory of the batch in which it was heard."""
        ...


class LALM(Protocol):
    """An audio-language model. All verbs are batched; audio is float32 mono at `SAMPLE_RATE`, tokens are ids.

    Hearing and speaking are apart: `hear` encodes audio once, and any number of calls of `score` and `continue_` use the result.
    """

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
    approximate: str
    """Why its scores are approximate, and what would make them exact; empty where they are what the model computes."""

    @property
    def exact(self) -> bool:
        """Whether equal inputs give equal tokens whatever the batch (float32 does, half precision may not)."""
        ...

    def hear(self, audios: Sequence[np.ndarray], directions: Sequence[Direction]) -> list[Any]:
        """Encode each clip behind the prompt that asks for its translation; one `Heard` per row, which depends on no other row.

        Raises `LALMError` for a clip that is longer than `max_samples`.
        """
        ...

    def score(self, heard: Sequence[Any], targets: Sequence[Sequence[int]]) -> list[TokenScores]:
        """Score every target token given what was heard and the tokens before it, in one forward pass for the batch."""
        ...

    def continue_(
        self,
        heard: Sequence[Any],
        prefixes: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[int]] | None = None,
        want: Want = TOKENS_ONLY,
    ) -> list[Continuation]:
        """Continue each prefix greedily to the end of the translation.

        `drafts` are guesses of the continuation: the part that greedy decoding would produce as well is verified in one
        forward pass instead of being decoded token by token. They change the speed, never the tokens. Raises `LALMError` for a
        model whose attention is wanted and cannot be seen, or that has no such heads.
        """
        ...

    def encode(self, text: str) -> list[int]:
        """Text to target token ids, without special tokens."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Target token ids to text, special tokens left out; an incomplete character decodes to U+FFFD."""
        ...
