"""The settings and the state of one stream of speech, and the update that a step returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from simulsa.audio import SAMPLE_RATE, AudioError, check_samples, ms_to_samples, samples_to_s
from simulsa.lalm.interface import LALM, Direction
from simulsa.languages import base_language, language_name
from simulsa.streaming.policies import Policy, Rollback, check_rollback, policy_of

MIN_CHUNK_MS = 40
ENGLISH, GERMAN = "en", "de"  # what models that do not say otherwise are asked for


@dataclass(frozen=True)
class StreamConfig:
    """How speech is translated while it runs."""

    target_lang: str = ""
    """language of the translation; by default what the model was trained on, or else German"""
    source_lang: str = ""
    """language of the speech; by default what the model was trained on, or else English"""
    chunk_ms: float = 500
    """k: milliseconds of new audio between two hypotheses; `inf` waits for the end of the speech"""
    rollback: int = 3
    """b: tokens at the end of each hypothesis that are not committed yet"""
    drafts: bool = True
    """verify the last hypothesis in one forward pass instead of decoding it again (never changes the output)"""
    policy: str = ""
    """what to commit, in the place of `rollback`, as `local-agreement:2` or `wait-k:3,1` (docs/policies.md)"""

    def __post_init__(self) -> None:
        check_chunk_ms(self.chunk_ms)
        check_rollback(self.rollback)
        if self.policy:
            policy_of(self.policy)
        for lang in filter(None, (self.source_lang, self.target_lang)):
            language_name(lang)

    @property
    def direction(self) -> Direction:
        """Source and target language; where they are not given, English and German."""
        return Direction(self.source_lang or ENGLISH, self.target_lang or GERMAN)

    def for_model(self, lalm: LALM) -> StreamConfig:
        """The same with both languages: what is not given follows the first direction that the model was trained on and that has
        the language given, if there is one, and is English or German otherwise."""
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

    @property
    def chosen_policy(self) -> Policy:
        """The policy that these settings name."""
        return policy_of(self.policy) if self.policy else Rollback(self.rollback)


def check_chunk_ms(chunk_ms: float) -> None:
    """Raise `ValueError` for a chunk size that is not `inf` or at least 40 ms."""
    if not chunk_ms >= MIN_CHUNK_MS:  # also refuses NaN
        raise ValueError(f"chunk_ms is {chunk_ms}; it must be at least {MIN_CHUNK_MS} or inf (offline)")


@dataclass(frozen=True)
class Update:
    """What one step did to one stream.

    `committed` is the whole text that is final, `tentative` what would follow but may still change. `audio_samples` is the
    audio that the model had heard, at `SAMPLE_RATE`; `compute_s` the wall time of the step, which is shared by all streams
    of a batch. `truncated` says that the translation reached the model's limit (see `Continuation`) and may lack its end: so far,
    or for good where the update is `final`.
    """

    committed: str
    tentative: str
    audio_samples: int
    compute_s: float
    final: bool
    truncated: bool = False

    @property
    def audio_s(self) -> float:
        """Seconds of audio heard."""
        return samples_to_s(self.audio_samples)


@dataclass
class StreamState:
    """Everything that is known of a stream between two steps; `step` reads and advances it."""

    config: StreamConfig
    max_samples: int
    audio: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    """all audio received, float32 mono `[samples]`"""
    heard_samples: int = 0
    """how much of it the model has heard"""
    committed: list[int] = field(default_factory=list)
    """final tokens"""
    draft: list[int] = field(default_factory=list)
    """the rest of the last hypothesis"""
    previous: list[list[int]] = field(default_factory=list)
    """the last hypotheses, as many as the policy remembers"""
    truncated: bool = False
    """whether that reached the model's limit of tokens"""
    chunks: int = 0
    """how many hypotheses there were"""
    shown: str = ""
    """final text"""
    closed: bool = False
    """no more audio will come"""
    finished: bool = False
    """the final step was done"""
    chunks_at_once: int = 1
    """how many of the chunks that wait the next step hears; more than one makes up for time lost"""

    def receive(self, samples: np.ndarray) -> None:
        """Add audio. Raises `AudioError` after `close`, for broken samples, or past the model's window."""
        if self.closed:
            raise AudioError("audio after the end: the stream was closed; start a new Stream")
        if len(samples) == 0:
            return
        samples = check_samples(samples, "pushed audio")
        total = len(self.audio) + len(samples)
        if total > self.max_samples:
            raise AudioError(
                f"the stream has {total / SAMPLE_RATE:.2f} s of audio and the model hears at most "
                f"{self.max_samples / SAMPLE_RATE:.2f} s; end the stream at a pause and start a new one"
            )
        self.audio = np.concatenate([self.audio, samples])

    def close(self) -> None:
        """Say that no more audio will come. Raises `AudioError` if none came at all."""
        if len(self.audio) == 0:
            raise AudioError("the stream ended with no audio (0 samples); push some before finishing")
        self.closed = True

    def next_samples(self) -> int | None:
        """How much audio the next step will have heard, or `None` if it has to wait for more."""
        chunk = self.config.chunk_samples
        if chunk is not None and (waiting := (len(self.audio) - self.heard_samples) // chunk):
            return self.heard_samples + min(waiting, self.chunks_at_once) * chunk
        return len(self.audio) if self.closed and not self.finished else None
