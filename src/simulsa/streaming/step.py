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
from simulsa.streaming.segment import SegmentState
from simulsa.streaming.state import Advance, StreamState, Update

logger = logging.getLogger("simulsa")


def step(lalm: LALM, streams: Sequence[StreamState]) -> list[Update]:
    """Advance every stream by one chunk; returns one `Update` per stream, in order.

    Each stream must have a chunk waiting (`ready()` is not `None`). The model hears all audio of the open segment up to the
    chunk's end, of all streams in one call, and continues the tokens committed so far, in one call for all policies that want the
    same. A stream's policy says how many of the new tokens become final. At the end of a segment all do, without the model if it
    has heard everything. No state changes if the model raises.
    """
    if not streams:
        return []
    segments = [stream.ready() for stream in streams]
    ends = [None if segment is None else segment.next_samples() for segment in segments]
    open_segments = [segment for segment, end in zip(segments, ends, strict=True) if segment is not None and end is not None]
    if len(open_segments) < len(streams):
        raise ValueError(f"stream {ends.index(None)} has no chunk waiting; pass only streams whose ready() is not None")
    started = time.perf_counter()
    said = _said(lalm, streams, open_segments, [end or 0 for end in ends])
    decided = [
        _decided(lalm, stream, segment, end or 0, continuation)
        for stream, segment, end, continuation in zip(streams, open_segments, ends, said, strict=True)
    ]
    compute_s = time.perf_counter() - started
    return [stream.apply(advance, compute_s) for stream, advance in zip(streams, decided, strict=True)]


def _said(
    lalm: LALM, streams: Sequence[StreamState], segments: Sequence[SegmentState], ends: Sequence[int]
) -> list[Continuation]:
    """How the model continues each segment; where no audio is new, at the end of whole chunks, what it said last."""
    said = {row: Continuation(segment.draft, segment.truncated) for row, segment in enumerate(segments)}
    asked = [row for row, (segment, end) in enumerate(zip(segments, ends, strict=True)) if end > segment.heard_samples]
    if not asked:
        return list(said.values())
    heard = lalm.hear([segments[row].audio[: ends[row]] for row in asked], [streams[row].config.direction for row in asked])
    clips = dict(zip(asked, heard, strict=True))
    wants = {row: TOKENS_ONLY if segments[row].is_final(ends[row]) else streams[row].policy.wants for row in asked}
    for want in dict.fromkeys(wants.values()):
        rows = [row for row in asked if wants[row] == want]
        continuations = lalm.continue_(
            [clips[row] for row in rows],
            [segments[row].committed for row in rows],
            [segments[row].draft if streams[row].config.drafts else [] for row in rows],
            want,
        )
        said |= zip(rows, continuations, strict=True)
    return list(said.values())


def _decided(lalm: LALM, stream: StreamState, segment: SegmentState, end: int, said: Continuation) -> Advance:
    """What becomes final of what the model said, and what is shown of it."""
    final = segment.is_final(end)
    kept = len(said.tokens)
    if kept and not final:
        hypothesis = Hypothesis(
            segment.committed,
            said.tokens,
            segment.previous,
            segment.chunks + 1,
            end,
            log_probs=said.log_probs,
            attention=said.attention,
        )
        if stream.policy.counts_words:
            hypothesis = replace(hypothesis, word_ends=word_ends(lalm, hypothesis.tokens, stream.config.direction.target_lang))
        kept = min(max(stream.policy.commit(hypothesis), 0), kept)
    tokens, committed = [*segment.committed, *said.tokens], len(segment.committed) + kept
    # text only grows: a word that the model completes after all is appended to, not taken back
    text = stable_text(lalm, tokens[:committed], tokens, stream.config.direction.target_lang, final)
    shown = max(segment.shown, text, key=len)
    tentative = lalm.decode(tokens)[len(shown) :].rstrip("\ufffd")
    if said.truncated and final:
        logger.warning(
            "a translation reached the model's limit of %d tokens for %.1f s of speech and may lack its end; shorter segments "
            "(max_segment_s) may help",
            len(tokens), samples_to_s(end),
        )  # fmt: skip
    return Advance(tokens, committed, shown, tentative, said.truncated, end, final)
