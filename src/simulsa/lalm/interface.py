"""The interface of an audio-language model (LALM), as the rest of simulsa uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from simulsa.languages import Direction

if TYPE_CHECKING:
    import torch

    from simulsa.lalm.frontend import Frontend


class LALMError(RuntimeError):
    """A model that cannot be loaded or used; the message gives what was found and the fix."""


@dataclass(frozen=True)
class TokenScores:
    """Plausibility of each token of a given target, under teacher forcing.

    `log_probs` float32 `[tokens]`, natural logarithm; `ranks` int64 `[tokens]`, the number of vocabulary entries that the model
    considers more likely (0 is its first choice).
    """

    log_probs: np.ndarray
    ranks: np.ndarray


@dataclass(frozen=True)
class Heads:
    """Which attention heads of the language model to average over: all, those of one `layer`, or one `head` of it, from 0."""

    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class Want:
    """What a caller of `continue_` wants besides token ids.

    `log_probs`: the log-probability of each token. `heads`: the audio attention of each token, averaged over these heads.
    """

    log_probs: bool = False
    heads: Heads | None = None


TOKENS_ONLY = Want()


@dataclass(frozen=True)
class Continuation:
    """A greedy continuation of a prefix.

    `tokens` are the new ids, without EOS. The rest is `None` unless requested: `log_probs` float32 `[tokens]`, natural logarithm;
    `attention` float32 `[tokens, frames]`, the attention weights on the audio at the position that predicts each token. Frames
    divide the clip evenly; a row sums to at most 1, because the model attends to text as well. `truncated` says that the
    translation, prefix included, reached the token limit before EOS. The limit is the room in the model's context besides the
    clip, and at most what speech of that length needs in any language, so that a model that loops is stopped.
    """

    tokens: list[int]
    truncated: bool = False
    log_probs: np.ndarray | None = None
    attention: np.ndarray | None = None


class Heard(Protocol):
    """A clip as heard by a model, with its prompt: the result of `LALM.hear` for one row.

    It belongs to the model that made it, so signatures that pass it on say `Any`. Keep it for as long as the same audio may be
    needed again.
    """

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        ...

    def detached(self) -> Heard:
        """The same, without holding on to the memory of the batch it was encoded in."""
        ...


class LALM(Protocol):
    """An audio-language model. All methods are batched; audio is float32 mono at `SAMPLE_RATE`, tokens are ids.

    Encoding and decoding are separate: `hear` encodes audio once, and any number of calls to `score` and `continue_` use the
    result.
    """

    name: str
    """What the user called it: hub id, folder or `tiny-en-de`."""
    signature: str
    """Name and content hash, recorded with every result."""
    max_samples: int
    """The longest clip that the model hears without truncation."""
    vocabulary_size: int
    eos_id: int
    directions: tuple[Direction, ...]
    """What it was trained to translate, the most frequent first; empty if that is not known."""
    approximate: str
    """Why its scores are approximate, and what would make them exact; empty if they are exact."""

    @property
    def frontend(self) -> Frontend | None:
        """What prepares audio for `hear` without the model, as loader processes do; `None` if `hear` takes audio only."""
        ...

    @property
    def device(self) -> torch.device | None:
        """Where the weights are; `None` if not in this process."""
        ...

    @property
    def exact(self) -> bool:
        """Whether equal inputs give equal tokens whatever the batch (float32 does, half precision may not)."""
        ...

    def warm_up(self, direction: Direction, rows: int, samples: int) -> None:
        """Do all one-time work before a first client waits for it: for up to `rows` streams and clips of `samples`."""
        ...

    def hear(self, audios: Sequence[np.ndarray], directions: Sequence[Direction]) -> list[Any]:
        """Encode each clip together with its translation prompt; returns one `Heard` per row, independent of the other rows.

        Raises `LALMError` for a clip longer than `max_samples`.
        """
        ...

    def score(self, heard: Sequence[Any], targets: Sequence[Sequence[int]]) -> list[TokenScores]:
        """Score every target token given the audio and the tokens before it, in one forward pass for the batch."""
        ...

    def continue_(
        self,
        heard: Sequence[Any],
        prefixes: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[int]] | None = None,
        want: Want = TOKENS_ONLY,
    ) -> list[Continuation]:
        """Continue each prefix greedily to the end of the translation.

        `drafts` are guesses of the continuation: the part that agrees with greedy decoding is verified in one forward pass
        instead of being decoded token by token. They change the speed, never the tokens. Raises `LALMError` for a model that does
        not expose the attention asked for, or has no such heads.
        """
        ...

    def encode(self, text: str) -> list[int]:
        """Text to target token ids, without special tokens."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Target token ids to text, special tokens left out; an incomplete character decodes to U+FFFD."""
        ...
