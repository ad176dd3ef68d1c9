"""`step`: the one place where simultaneous decoding happens."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from simulsa.audio import samples_to_s
from simulsa.lalm.interface import LALM, TOKENS_ONLY, Continuation
from simulsa.lalm.text import stable_text, without_sentence_end, word_ends
from simulsa.streaming.policies import Hypothesis
from simulsa.streaming.segment import SegmentState
from simulsa.streaming.state import Advance, StreamState, Update

logger = logging.getLogger("simulsa")


def step(lalm: LALM, streams: Sequence[StreamState]) -> list[Update]:
    """Advance every stream by one chunk; returns one `Update` per stream, in order.

    Each stream must have a chunk waiting (`ready()` is not `None`). The model hears the open segments up to the ends of their
    chunks in one call, and continues the committed tokens in one call per distinct `want` of the policies. Each stream's policy
    says how many of the new tokens become final; at the end of a segment all do, without calling the model if it has heard
    everything. No state changes if the model raises.
    """
    if not streams:
        return []
    segments: list[SegmentState] = []
    ends: list[int] = []  # how much of each the model will have heard
    for number, stream in enumerate(streams):
        segment = stream.ready()
        end = None if segment is None else segment.next_samples(stream.chunks_at_once)
        if segment is None or end is None:
            raise ValueError(f"stream {number} has no chunk waiting; pass only streams whose ready() is not None")
        segments.append(segment)
        ends.append(end)
    started = time.perf_counter()
    continuations = _continuations(lalm, streams, segments, ends)
    advances = [
        _commit(lalm, stream, segment, end, continuation)
        for stream, segment, end, continuation in zip(streams, segments, ends, continuations, strict=True)
    ]
    compute_s = time.perf_counter() - started
    return [stream.apply(advance, compute_s) for stream, advance in zip(streams, advances, strict=True)]


def _continuations(
    lalm: LALM, streams: Sequence[StreamState], segments: Sequence[SegmentState], ends: Sequence[int]
) -> list[Continuation]:
    """The model's continuation of each segment; the last hypothesis again if the speech ended without new audio."""
    found = {row: Continuation(segment.draft, segment.truncated) for row, segment in enumerate(segments)}
    unheard = [row for row, (segment, end) in enumerate(zip(segments, ends, strict=True)) if end > segment.heard_samples]
    if not unheard:
        return list(found.values())
    heard = lalm.hear([segments[row].audio[: ends[row]] for row in unheard], [streams[row].config.direction for row in unheard])
    clips = dict(zip(unheard, heard, strict=True))
    wants = {row: TOKENS_ONLY if segments[row].is_final(ends[row]) else streams[row].policy.wants for row in unheard}
    for want in dict.fromkeys(wants.values()):
        rows = [row for row in unheard if wants[row] == want]
        continuations = lalm.continue_(
            [clips[row] for row in rows],
            [segments[row].committed for row in rows],
            [segments[row].draft if streams[row].config.drafts else [] for row in rows],
            want,
        )
        found |= zip(rows, continuations, strict=True)
    return list(found.values())


def _commit(lalm: LALM, stream: StreamState, segment: SegmentState, end: int, continuation: Continuation) -> Advance:
    """Let the policy commit tokens of the hypothesis, and split its text into final and tentative."""
    policy, target_lang = stream.policy, stream.config.direction.target_lang
    final = segment.is_final(end)
    tokens = [*segment.committed, *continuation.tokens]
    kept = len(continuation.tokens)
    if kept and not final:
        hypothesis = Hypothesis(
            segment.committed,
            continuation.tokens,
            segment.previous,
            segment.chunks + 1,
            end,
            word_ends=word_ends(lalm, tokens, target_lang) if policy.counts_words else None,
            open_end=without_sentence_end(lalm, tokens) if policy.doubts_sentence_ends else None,
            log_probs=continuation.log_probs,
            attention=continuation.attention,
        )
        kept = min(max(policy.commit(hypothesis), 0), kept)
    committed = len(segment.committed) + kept
    # shown text only grows: a word that the model extends later is appended to, never retracted
    text = stable_text(lalm, tokens[:committed], tokens, target_lang, final)
    shown = max(segment.shown, text, key=len)
    tentative = lalm.decode(tokens)[len(shown) :].rstrip("\ufffd")
    if continuation.truncated and final:
        logger.warning(
            "a translation reached the model's limit of %d tokens for %.1f s of speech and may be incomplete; shorter segments "
            "(max_segment_s) may help",
            len(tokens), samples_to_s(end),
        )  # fmt: skip
    return Advance(tokens, committed, shown, tentative, continuation.truncated, end, final)
