"""The settings of a stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from simulsa.audio import ms_to_samples
from simulsa.lalm.interface import LALM
from simulsa.languages import Direction, base_language, language_name
from simulsa.streaming.policies import Policy, Rollback

MIN_CHUNK_MS = 40
MAX_CHUNK_MS = 24 * 60 * 60 * 1000  # a day: no speech is longer, and no count of its samples overflows
ENGLISH, GERMAN = "en", "de"  # the default for models that do not declare their languages


@dataclass(frozen=True)
class StreamConfig:
    """How to translate a stream."""

    target_lang: str = ""
    """language of the translation; defaults to what the model was trained on, or German"""
    source_lang: str = ""
    """language of the speech; defaults to what the model was trained on, or English"""
    chunk_ms: float = 500
    """k: milliseconds of new audio between two hypotheses; `inf` waits for the end of the speech (offline)"""
    policy: Policy | None = None
    """commit policy, such as `rollback:3` (the default), `local-agreement:2` or `alignatt:8`; excludes `rollback`"""
    rollback: int | None = None
    """b: number of tokens at the end of each hypothesis that stay tentative; shorthand for the policy `rollback:b`"""
    drafts: bool = True
    """verify the last hypothesis in one forward pass instead of decoding it again (never changes the output)"""

    def __post_init__(self) -> None:
        check_chunk_ms(self.chunk_ms)
        if self.policy is not None and not isinstance(self.policy, Policy):
            raise ValueError(f"policy is {self.policy!r}; it must be a policy, such as simulsa.Policy.parse('alignatt:8')")
        if self.policy is not None and self.rollback is not None:
            raise ValueError(f"policy is {self.policy} and rollback is {self.rollback}; give one of them: rollback is a policy")
        if self.rollback is not None:
            Rollback(self.rollback)
        for lang in filter(None, (self.source_lang, self.target_lang)):
            language_name(lang)

    @property
    def commit_policy(self) -> Policy:
        """What decides how much is committed."""
        if self.policy is not None:
            return self.policy
        return Rollback() if self.rollback is None else Rollback(self.rollback)

    @property
    def direction(self) -> Direction:
        """Source and target language; where they are not given, English and German."""
        return Direction(self.source_lang or ENGLISH, self.target_lang or GERMAN)

    def for_model(self, lalm: LALM) -> StreamConfig:
        """The same settings with both languages: missing ones follow the first direction the model was trained on that matches
        the given language, else English or German."""
        known = [*lalm.directions, Direction(ENGLISH, GERMAN)]
        chosen = next((direction for direction in known if self._goes_with(direction)), known[0])
        return replace(
            self, source_lang=self.source_lang or chosen.source_lang, target_lang=self.target_lang or chosen.target_lang
        )

    def _goes_with(self, direction: Direction) -> bool:
        pairs = ((self.source_lang, direction.source_lang), (self.target_lang, direction.target_lang))
        return all(base_language(own) == base_language(trained) for own, trained in pairs if own)

    @property
    def chunk_samples(self) -> int | None:
        """k in samples, `None` for offline translation."""
        return None if math.isinf(self.chunk_ms) else ms_to_samples(self.chunk_ms)


def check_chunk_ms(chunk_ms: float) -> None:
    """Raise `ValueError` for a chunk size that is neither `inf` nor from 40 ms to a day."""
    if not chunk_ms >= MIN_CHUNK_MS:  # also refuses NaN
        raise ValueError(f"chunk_ms is {chunk_ms}; it must be at least {MIN_CHUNK_MS} or inf (offline)")
    if MAX_CHUNK_MS < chunk_ms < math.inf:
        raise ValueError(f"chunk_ms is {chunk_ms}; it must be at most {MAX_CHUNK_MS} (a day), or inf (offline)")
