"""Stand-ins for tests, the project's own and those of its users: no weights, no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.interface import ALL_HEADS, Direction, Heads, TokenScores

Script = Callable[[np.ndarray], str]


@dataclass
class FakeLALM:
    """A scripted LALM: `script(audio)` is the translation of the audio heard; tokens are UTF-8 bytes.

    A prefix is continued from where the script's answer goes on behind it: forced tokens are never questioned, so a prefix
    that disagrees with the script is simply followed by the script's tokens from the same position. Scores are
    `-distance` nats where the script has another token, 0 where it agrees. Of n tokens that the script says, token i attends to
    the moment i/n of the audio, which has a frame for every `frame_samples`. `calls` counts the passes by verb.
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
    calls: list[tuple[str, int]] = field(default_factory=list)

    def encode(self, text: str) -> list[int]:
        """One token a UTF-8 byte."""
        return list(text.encode("utf-8"))

    def decode(self, tokens: Sequence[int]) -> str:
        """Bytes to text; an incomplete character becomes U+FFFD."""
        return bytes(token for token in tokens if token < 256).decode("utf-8", errors="replace")

    def token_limit(self, samples: int) -> int:
        """`max_target_tokens`, however long the clip."""
        return self.max_target_tokens

    def score(
        self, audios: Sequence[np.ndarray], targets: Sequence[Sequence[int]], directions: Sequence[Direction]
    ) -> list[TokenScores]:
        """0 nats and rank 0 where the script says the same token at the same place, −20 nats and rank 200 elsewhere."""
        self.calls.append(("score", len(audios)))
        scores = []
        for audio, target, _ in zip(audios, targets, directions, strict=True):
            answer = self.encode(self.script(audio))
            agrees = np.array([i < len(answer) and answer[i] == token for i, token in enumerate(target)], dtype=bool)
            scores.append(TokenScores(np.where(agrees, 0.0, -20.0).astype(np.float32), np.where(agrees, 0, 200)))
        return scores

    def attend(
        self,
        audios: Sequence[np.ndarray],
        targets: Sequence[Sequence[int]],
        directions: Sequence[Direction],
        heads: Heads = ALL_HEADS,
    ) -> list[np.ndarray]:
        """Half of each token's attention on one frame, as if the script were spoken evenly, whatever the heads."""
        self.calls.append(("attend", len(audios)))
        attentions = []
        for audio, target, _ in zip(audios, targets, directions, strict=True):
            frames = max(1, len(audio) // self.frame_samples)
            answer = max(1, len(self.encode(self.script(audio))))
            attention = np.zeros((len(target), frames), dtype=np.float32)
            for i in range(len(target)):
                attention[i, min(i * frames // answer, frames - 1)] = 0.5
            attentions.append(attention)
        return attentions

    def continue_(
        self,
        audios: Sequence[np.ndarray],
        prefixes: Sequence[Sequence[int]],
        directions: Sequence[Direction],
        drafts: Sequence[Sequence[int]] | None = None,
    ) -> list[list[int]]:
        """The script's tokens behind each prefix's length; drafts are ignored, as they must never matter."""
        self.calls.append(("continue_", len(audios)))
        return [
            self.encode(self.script(audio))[len(prefix) : self.max_target_tokens]
            for audio, prefix, _ in zip(audios, prefixes, directions, strict=True)
        ]


class FakeVAD:
    """Hears speech, without a doubt, in every window with a sample louder than `level`."""

    def __init__(self, level: float = 1e-3) -> None:
        self.level = level

    def __call__(self, window: np.ndarray) -> float:
        """1 for speech, 0 for silence."""
        return float(np.abs(window).max() > self.level)

    def reset(self) -> None:
        """Nothing to forget."""


def growing_script(text: str, samples_per_word: int = SAMPLE_RATE // 4) -> Script:
    """A script that has heard one more word of `text` for every `samples_per_word` samples."""
    words = text.split(" ")

    def script(audio: np.ndarray) -> str:
        return " ".join(words[: len(audio) // samples_per_word])

    return script
