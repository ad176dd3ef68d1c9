"""Test doubles, for the project's own tests and its users': no weights, no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.interface import TOKENS_ONLY, Continuation, TokenScores, Want
from simulsa.languages import Direction
from simulsa.streaming.vad import VAD

if TYPE_CHECKING:
    import torch

    from simulsa.lalm.frontend import Frontend

Script = Callable[[np.ndarray], str]


@dataclass
class FakeLALM:
    """A scripted LALM: `script(audio)` is the translation of the audio heard; tokens are UTF-8 bytes.

    A prefix is continued with the script's tokens from the same position on: forced tokens are never questioned, even if the
    prefix disagrees with the script. Scores are −20 nats where the script has another token, 0 where it agrees. Of the n
    tokens of the script's answer, token i attends to the audio at the fraction i/n of its length; there is one frame for every
    `frame_samples` samples. `calls` records the number of rows in each call of `score` and `continue_`.
    """

    script: Script
    name: str = "fake"
    signature: str = "fake@0"
    max_samples: int = 3600 * SAMPLE_RATE
    vocabulary_size: int = 257
    eos_id: int = 256
    exact: bool = True
    frame_samples: int = SAMPLE_RATE // 25
    max_target_tokens: int = 100_000
    directions: tuple[Direction, ...] = ()
    approximate: str = ""
    frontend: Frontend | None = None
    device: torch.device | None = None
    calls: list[tuple[str, int]] = field(default_factory=list)

    def encode(self, text: str) -> list[int]:
        """One token per UTF-8 byte."""
        return list(text.encode("utf-8"))

    def decode(self, tokens: Sequence[int]) -> str:
        """Bytes to text; an incomplete character becomes U+FFFD."""
        return bytes(token for token in tokens if token < 256).decode("utf-8", errors="replace")

    def warm_up(self, direction: Direction, rows: int, samples: int) -> None:
        """Do nothing: there is nothing to prepare."""

    def hear(self, audios: Sequence[np.ndarray], directions: Sequence[Direction]) -> list[FakeHeard]:
        """The audio itself, with its direction."""
        return [FakeHeard(audio, direction) for audio, direction in zip(audios, directions, strict=True)]

    def score(self, heard: Sequence[FakeHeard], targets: Sequence[Sequence[int]]) -> list[TokenScores]:
        """0 nats and rank 0 where the script has the same token at the same position, −20 nats and rank 200 elsewhere."""
        self.calls.append(("score", len(heard)))
        scores = []
        for clip, target in zip(heard, targets, strict=True):
            answer = self.encode(self.script(clip.audio))
            agrees = np.array([i < len(answer) and answer[i] == token for i, token in enumerate(target)], dtype=bool)
            scores.append(TokenScores(np.where(agrees, 0.0, -20.0).astype(np.float32), np.where(agrees, 0, 200)))
        return scores

    def continue_(
        self,
        heard: Sequence[FakeHeard],
        prefixes: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[int]] | None = None,
        want: Want = TOKENS_ONLY,
    ) -> list[Continuation]:
        """The script's tokens after each prefix's length, with 0 nats each; drafts are ignored, as they must never matter."""
        self.calls.append(("continue_", len(heard)))
        said = []
        for clip, prefix in zip(heard, prefixes, strict=True):
            answer = self.encode(self.script(clip.audio))
            tokens = answer[len(prefix) : self.max_target_tokens]
            log_probs = np.zeros(len(tokens), dtype=np.float32) if want.log_probs else None
            attention = None if want.heads is None else self._attention(clip.audio, len(answer), len(prefix))[: len(tokens)]
            said.append(Continuation(tokens, len(answer) > self.max_target_tokens, log_probs, attention))
        return said

    def _attention(self, audio: np.ndarray, answer: int, prefix: int) -> np.ndarray:
        """Attention of each token after the prefix: half of it on one frame, as if the script were spoken evenly."""
        frames = max(1, len(audio) // self.frame_samples)
        attention = np.zeros((max(answer - prefix, 0), frames), dtype=np.float32)
        for row in range(len(attention)):
            attention[row, min((prefix + row) * frames // max(1, answer), frames - 1)] = 0.5
        return attention


@dataclass(frozen=True)
class FakeHeard:
    """What a `FakeLALM` heard."""

    audio: np.ndarray
    direction: Direction

    @property
    def nbytes(self) -> int:
        """The memory of the audio."""
        return self.audio.nbytes

    def detached(self) -> FakeHeard:
        """A copy."""
        return FakeHeard(self.audio.copy(), self.direction)


class FakeVAD(VAD):
    """Detects speech, with certainty, in every window with a sample louder than `level`."""

    def __init__(self, level: float = 1e-3) -> None:
        self.level = level

    def __call__(self, window: np.ndarray) -> float:
        """1 for speech, 0 for silence."""
        return float(np.abs(window).max() > self.level)

    def reset(self) -> None:
        """Do nothing: there is no state."""


def growing_script(text: str, samples_per_word: int = SAMPLE_RATE // 4) -> Script:
    """A script whose answer grows by one word of `text` for every `samples_per_word` samples."""
    words = text.split(" ")

    def script(audio: np.ndarray) -> str:
        return " ".join(words[: len(audio) // samples_per_word])

    return script
