"""Policies: how much of a hypothesis becomes final."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Policy(Protocol):
    """Decides after each chunk how many tokens of the hypothesis are committed."""

    @property
    def name(self) -> str:
        """How results call this policy."""
        ...

    def commit(self, committed: Sequence[int], continuation: Sequence[int]) -> int:
        """How many tokens of `continuation`, which follows the `committed` ones, become final now.

        Not asked at the end of the speech: then everything is committed.
        """
        ...


@dataclass(frozen=True)
class Rollback:
    """Take back the last `tokens` tokens of each hypothesis, commit the rest (SimulSA's b, arXiv 2509.15692).

    The same as hold-n. Tokens committed at an earlier chunk are never taken back: what a user has seen must not change.
    """

    tokens: int = 3
    name: str = "rollback"

    def commit(self, committed: Sequence[int], continuation: Sequence[int]) -> int:
        """All but the last `tokens` tokens."""
        return max(0, len(continuation) - self.tokens)
