"""Commit policies: how much of a hypothesis becomes final. docs/policies.md explains them to users.

None of them needs training. A policy is stateless: what it needs of a stream's past comes with each hypothesis.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from simulsa.lalm.interface import TOKENS_ONLY, Heads, Want
from simulsa.settings import check_whole_numbers

MAX_ROLLBACK = 1000
MAX_COUNT = 1_000_000  # of anything else that policies count: more than any speech has, and exact as text


@dataclass(frozen=True)
class Hypothesis:
    """The model's translation of the speech heard so far.

    It consists of the `committed` tokens and their `continuation`. `previous` holds the earlier hypotheses, latest last, as many
    as the policy `remembers`; `chunk` numbers the stream's hypotheses from 1; `heard_samples` is the audio heard, at
    `SAMPLE_RATE`. The rest is set only if the policy asks for it:

    - `word_ends`: for each word (character in languages without spaces), the token count, committed included, that completes it
    - `open_end`: the token count, committed included, before the marks that close the sentence at the hypothesis' end
    - `log_probs` float32 `[continuation]`, natural logarithm
    - `attention` float32 `[continuation, frames]`; the frames divide the audio heard evenly (see `Continuation`)
    """

    committed: Sequence[int]
    continuation: Sequence[int]
    previous: Sequence[Sequence[int]] = ()
    chunk: int = 1
    heard_samples: int = 0
    word_ends: Sequence[int] | None = None
    open_end: int | None = None
    log_probs: np.ndarray | None = None
    attention: np.ndarray | None = None

    @property
    def tokens(self) -> list[int]:
        """The whole hypothesis."""
        return [*self.committed, *self.continuation]


class Policy:
    """Decides after each chunk how many tokens of the hypothesis to commit."""

    name: ClassVar[str]
    """how flags, files and results call it"""

    @staticmethod
    def parse(text: str) -> Policy:
        """Parse the policy in a setting; see `parse_policy`."""
        return parse_policy(text)

    @property
    def wants(self) -> Want:
        """What it needs to know about each token: log-probabilities or attention."""
        return TOKENS_ONLY

    @property
    def counts_words(self) -> bool:
        """Whether it needs word boundaries."""
        return False

    @property
    def doubts_sentence_ends(self) -> bool:
        """Whether it needs to know what closes the sentence."""
        return False

    @property
    def remembers(self) -> int:
        """Number of earlier hypotheses it needs."""
        return 0

    def commit(self, hypothesis: Hypothesis) -> int:
        """Number of tokens of the continuation to commit now; `step` clamps it to the valid range.

        Not called for an empty continuation, nor at the end of the speech, when everything is committed. Committed tokens are
        never retracted: what a user has seen must not change.
        """
        raise NotImplementedError

    @property
    def arguments(self) -> tuple[float, ...]:
        """Its arguments, without trailing ones that are not set."""
        values = [getattr(self, field.name) for field in dataclasses.fields(self)]  # type: ignore[arg-type]  # every policy is a dataclass
        while values and values[-1] is None:
            values.pop()
        return tuple(values)

    @property
    def label(self) -> str:
        """Label in plots and the log."""
        return str(self)

    @property
    def slug(self) -> str:
        """Form used in file names."""
        return re.sub("[:,]", "-", str(self))

    @property
    def rollback(self) -> int | None:
        """SimulSA's b, if it is the policy of the paper."""
        return None

    @property
    def order(self) -> tuple[bool, str, tuple[float, ...]]:
        """Sort key: rollbacks first, then the others by name; each by its arguments."""
        return self.rollback is None, self.name, self.arguments

    def __str__(self) -> str:
        """As `parse_policy` reads it: `local-agreement:2`."""
        arguments = ",".join(f"{value:.10g}" for value in self.arguments)
        return f"{self.name}:{arguments}" if arguments else self.name


@dataclass(frozen=True)
class Rollback(Policy):
    """Commit all but the last `tokens` tokens of each hypothesis (SimulSA's b, arXiv 2509.15692).

    Equivalent to hold-n (Liu et al. 2020, arXiv 2005.11185).
    """

    name = "rollback"
    tokens: int = 3

    def __post_init__(self) -> None:
        tokens = self.tokens
        if not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 <= tokens <= MAX_ROLLBACK:
            raise ValueError(f"rollback is {tokens}; it must be a number of tokens from 0 to {MAX_ROLLBACK}")

    @property
    def label(self) -> str:
        """SimulSA's b."""
        return f"b = {self.tokens}"

    @property
    def slug(self) -> str:
        """SimulSA's b."""
        return f"b{self.tokens}"

    @property
    def rollback(self) -> int | None:
        """SimulSA's b."""
        return self.tokens

    def commit(self, hypothesis: Hypothesis) -> int:
        """All but the last `tokens` tokens."""
        return max(0, len(hypothesis.continuation) - self.tokens)


@dataclass(frozen=True)
class EosOnly(Policy):
    """Commit everything up to EOS but a closing full stop: the model decides how far to go, as SimulSA trains it to.

    A model that has heard the beginning of a sentence tends to close it, and a committed full stop ends the translation. So
    marks that close the sentence wait until the speech has ended; they are not words, so this adds little latency. `Rollback(0)`,
    SimulSA's b = 0, commits them as well.
    """

    name = "eos"

    @property
    def doubts_sentence_ends(self) -> bool:
        """True for this policy."""
        return True

    def commit(self, hypothesis: Hypothesis) -> int:
        """All tokens before the marks that close the sentence."""
        assert hypothesis.open_end is not None
        return hypothesis.open_end - len(hypothesis.committed)


@dataclass(frozen=True)
class LocalAgreement(Policy):
    """Commit the longest common prefix of the last `hypotheses` hypotheses.

    Liu et al. 2020 (arXiv 2005.11185) with two, Polák et al. 2022 (arXiv 2204.06028) with any number. Nothing is committed until
    there are that many hypotheses.
    """

    name = "local-agreement"
    hypotheses: int = 2

    def __post_init__(self) -> None:
        _check_counts(self, {"hypotheses": 2})

    @property
    def remembers(self) -> int:
        """All but the current one."""
        return self.hypotheses - 1

    def commit(self, hypothesis: Hypothesis) -> int:
        """Up to the first token in which one of them differs."""
        if len(hypothesis.previous) < self.remembers:
            return 0
        agreed = 0
        for tokens in zip(hypothesis.tokens, *hypothesis.previous, strict=False):
            if len(set(tokens)) > 1:
                break
            agreed += 1
        return agreed - len(hypothesis.committed)


@dataclass(frozen=True)
class WaitK(Policy):
    """Wait for `chunks` chunks, then write at most `words` words per chunk.

    wait-k (Ma et al. 2019, arXiv 1810.08398) reads k source words, then writes one for each word read. Speech has no word
    boundaries: as in SimulST with fixed pre-decision (Ma et al. 2020, arXiv 2011.02048), a stretch of fixed length, here the
    chunk, stands for a source word. After chunk i at most (i − `chunks` + 1) · `words` words of the whole translation are
    committed. Words are characters in languages without spaces.
    """

    name = "wait-k"
    chunks: int = 3
    words: int = 1

    def __post_init__(self) -> None:
        _check_counts(self, {"chunks": 1, "words": 1})

    @property
    def counts_words(self) -> bool:
        """True for this policy."""
        return True

    def commit(self, hypothesis: Hypothesis) -> int:
        """Up to the end of the last word allowed."""
        allowed = (hypothesis.chunk - self.chunks + 1) * self.words
        ends = list(hypothesis.word_ends or ())[: max(allowed, 0)]
        return ends[-1] - len(hypothesis.committed) if ends else 0


@dataclass(frozen=True)
class AlignAtt(Policy):
    """Stop at the first token that attends most to one of the last `frames` audio frames, because more speech may change it.

    AlignAtt (Papi et al. 2023, arXiv 2305.11408) takes the alignment from an encoder-decoder's cross-attention. A decoder-only
    model has none, so its self-attention over the audio tokens is used (DOA, simulstream). A frame is an audio token of the
    model. Attention is averaged over all heads of all layers, or over one `layer`, or taken from one `head` of it.
    """

    name = "alignatt"
    frames: int = 8
    layer: int | None = None
    head: int | None = None

    def __post_init__(self) -> None:
        _check_counts(self, {"frames": 0})
        for name in ("layer", "head"):
            if getattr(self, name) is not None:
                _check_counts(self, {name: 0})
        if self.head is not None and self.layer is None:
            raise ValueError(f"head is {self.head} but layer is not set; give the layer as well")

    @property
    def wants(self) -> Want:
        """Attention."""
        return Want(heads=Heads(self.layer, self.head))

    def commit(self, hypothesis: Hypothesis) -> int:
        """Up to the first token that is aligned with the end of the audio."""
        assert hypothesis.attention is not None
        heard = hypothesis.attention.shape[1]
        if heard <= self.frames:  # in some models, a clip of 40 ms has no frames at all
            return 0
        return _before_first(hypothesis.attention.argmax(1) >= heard - self.frames)


@dataclass(frozen=True)
class Confidence(Policy):
    """Stop at the first token with a probability below `threshold`."""

    name = "confidence"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must be a probability from 0 to 1")

    @property
    def wants(self) -> Want:
        """Probabilities."""
        return Want(log_probs=True)

    def commit(self, hypothesis: Hypothesis) -> int:
        """Up to the first token that is unlikely."""
        assert hypothesis.log_probs is not None
        return _before_first(np.exp(hypothesis.log_probs) < self.threshold)


POLICIES: dict[str, type[Policy]] = {
    policy.name: policy for policy in (Rollback, EosOnly, LocalAgreement, WaitK, AlignAtt, Confidence)
}


def parse_policy(text: str) -> Policy:
    """Parse a policy: its name and, after a colon, its arguments, as in `wait-k:3,2`.

    Raises `ValueError` for an unknown name, suggesting the nearest, and for invalid arguments.
    """
    name, colon, rest = text.partition(":")
    if name not in POLICIES:
        near = difflib.get_close_matches(name, POLICIES, n=1, cutoff=0.0)[0]
        known = ", ".join(map(_usage, POLICIES.values()))
        raise ValueError(f"policy is {text!r}; there is no {name!r}, did you mean {near!r}? (known: {known})")
    kind = POLICIES[name]
    try:
        return kind(*map(_number, rest.split(",") if colon else ()))
    except TypeError as error:
        raise ValueError(f"policy is {text!r}, with too many arguments; it must be {_usage(kind)}") from error
    except ValueError as error:
        raise ValueError(f"policy is {text!r}; it must be {_usage(kind)}: {error}") from error


def _check_counts(policy: Policy, lowest: Mapping[str, int]) -> None:
    """Raise `ValueError` for the first of the named arguments that is not a whole number from its minimum to a million."""
    check_whole_numbers(policy, lowest)
    for name in lowest:
        if getattr(policy, name) > MAX_COUNT:
            raise ValueError(f"{name} is {getattr(policy, name)}; it must be at most {MAX_COUNT}")


def _usage(kind: type[Policy]) -> str:
    """Usage of a policy: `wait-k:CHUNKS,WORDS`; trailing arguments may be omitted."""
    names = ",".join(field.name.upper() for field in dataclasses.fields(kind))  # type: ignore[arg-type]
    return f"{kind.name}:{names}" if names else kind.name


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def _before_first(stops: np.ndarray) -> int:
    """How many entries of a boolean `[tokens]` come before the first true one."""
    return int(stops.argmax()) if stops.any() else len(stops)
