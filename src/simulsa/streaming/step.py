"""`step`: the one place where simultaneous decoding happens."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from simulsa.audio import samples_to_s
from simulsa.lalm.interface import LALM, TOKENS_ONLY, Continuation
from simulsa.lalm.text import stable_text, word_ends
from simulsa.streaming.policies import Hypothesis
from simulsa.streaming.state import StreamState, Update

logger = logging.getLogger("simulsa")


def step(lalm: LALM, streams: Sequence[StreamState]) -> list[Update]:
    """Advance every stream by one chunk with a single call of the model; returns one `Update` per stream, in order.

    Each stream must have a chunk waiting (`next_samples()` is not `None`). The model hears all audio up to the chunk's end and
    continues the tokens committed so far; the stream's policy says how many of the new tokens become final. At the end of the
    speech all do, without the model if it has heard everything. Streams whose policies want different probabilities or attention
    are continued in a call each. No state changes if the model raises.
    """
    if not streams:
        return []
    ends = [state.next_samples() for state in streams]
    if None in ends:
        raise ValueError(f"stream {ends.index(None)} has no chunk waiting; pass only streams whose next_samples() is not None")
    started = time.perf_counter()
    hypotheses = _hypotheses(lalm, streams, [end or 0 for end in ends])
    kept = [_kept(lalm, state, hypothesis) for state, hypothesis in zip(streams, hypotheses, strict=True)]
    compute_s = time.perf_counter() - started
    return [
        _advance(lalm, state, hypothesis, count, compute_s)
        for state, hypothesis, count in zip(streams, hypotheses, kept, strict=True)
    ]


def _hypotheses(lalm: LALM, streams: Sequence[StreamState], ends: Sequence[int]) -> list[Hypothesis]:
    """What the model says to each stream's audio; where none is new, at the end of whole chunks, what it said last."""
    asked = [row for row, (state, end) in enumerate(zip(streams, ends, strict=True)) if end > state.heard_samples]
    said = {row: Continuation(state.draft, state.truncated) for row, state in enumerate(streams)}
    if asked:
        said |= zip(asked, _said(lalm, [streams[row] for row in asked], [ends[row] for row in asked]), strict=True)
    return [
        Hypothesis(
            state.committed,
            said[row].tokens,
            state.previous,
            state.chunks + 1,
            end,
            said[row].truncated,
            log_probs=said[row].log_probs,
            attention=said[row].attention,
        )
        for row, (state, end) in enumerate(zip(streams, ends, strict=True))
    ]


def _said(lalm: LALM, streams: Sequence[StreamState], ends: Sequence[int]) -> list[Continuation]:
    """How the model continues each stream: all are heard in one call, and continued in one for each thing that policies want."""
    heard = lalm.hear(
        [state.audio[:end] for state, end in zip(streams, ends, strict=True)], [state.config.direction for state in streams]
    )
    wants = [
        TOKENS_ONLY if _is_final(state, end) else state.config.chosen_policy.wants
        for state, end in zip(streams, ends, strict=True)
    ]
    said: dict[int, Continuation] = {}
    for want in dict.fromkeys(wants):
        rows = [row for row, own in enumerate(wants) if own == want]
        continuations = lalm.continue_(
            [heard[row] for row in rows],
            [streams[row].committed for row in rows],
            [streams[row].draft if streams[row].config.drafts else [] for row in rows],
            want,
        )
        said |= zip(rows, continuations, strict=True)
    return [said[row] for row in range(len(streams))]


def _kept(lalm: LALM, state: StreamState, hypothesis: Hypothesis) -> int:
    """How many new tokens of a stream become final."""
    everything = len(hypothesis.continuation)
    if not everything or _is_final(state, hypothesis.heard_samples):
        return everything
    policy = state.config.chosen_policy
    if policy.counts_words:
        hypothesis = replace(hypothesis, word_ends=word_ends(lalm, hypothesis.tokens, state.config.target_lang))
    return min(max(policy.commit(hypothesis), 0), everything)


def _is_final(state: StreamState, end: int) -> bool:
    """Whether all speech was heard by `end`."""
    chunk = state.config.chunk_samples
    return chunk is None or end - state.heard_samples < chunk


def _advance(lalm: LALM, state: StreamState, hypothesis: Hypothesis, kept: int, compute_s: float) -> Update:
    final = _is_final(state, hypothesis.heard_samples)
    tokens = hypothesis.tokens
    state.committed = tokens[: len(state.committed) + kept]
    state.draft = tokens[len(state.committed) :]
    state.heard_samples = hypothesis.heard_samples
    remembered = state.config.chosen_policy.remembers
    state.previous = [*state.previous, tokens][-remembered:] if remembered else []
    state.chunks = hypothesis.chunk
    state.finished = final
    # text only grows: a word that the model completes after all is appended to, not taken back
    text = stable_text(lalm, state.committed, tokens, state.config.target_lang, final)
    state.shown = max(state.shown, text, key=len)
    tentative = lalm.decode(tokens)[len(state.shown) :].rstrip("\ufffd")
    state.truncated = hypothesis.truncated
    if hypothesis.truncated and final:
        logger.warning(
            "a translation reached the model's limit of %d tokens for %.1f s of speech and may lack its end; shorter segments "
            "(max_segment_s) may help",
            len(tokens), samples_to_s(state.heard_samples),
        )  # fmt: skip
    return Update(state.shown, tentative, state.heard_samples, compute_s, final, hypothesis.truncated)
