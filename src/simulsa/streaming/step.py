"""`step`: the one place where simultaneous decoding happens."""

from __future__ import annotations

import time
from collections.abc import Sequence

from simulsa.lalm.interface import LALM
from simulsa.lalm.text import stable_text
from simulsa.streaming.state import StreamState, Update


def step(lalm: LALM, streams: Sequence[StreamState]) -> list[Update]:
    """Advance every stream by one chunk with a single call of the model; returns one `Update` per stream, in order.

    Each stream must have a chunk waiting (`next_samples()` is not `None`). The model hears all audio up to the chunk's end and
    continues the tokens committed so far; the stream's policy says how many of the new tokens become final. At the end of the
    speech all do. No state changes if the model raises.
    """
    if not streams:
        return []
    ends = [state.next_samples() for state in streams]
    if None in ends:
        raise ValueError(f"stream {ends.index(None)} has no chunk waiting; pass only streams whose next_samples() is not None")
    started = time.perf_counter()
    continuations = lalm.continue_(
        [state.audio[:end] for state, end in zip(streams, ends, strict=True)],
        [state.committed for state in streams],
        [state.config.direction for state in streams],
        [state.draft if state.config.drafts else [] for state in streams],
    )
    compute_s = time.perf_counter() - started
    return [
        _advance(lalm, state, int(end or 0), continuation, compute_s)
        for state, end, continuation in zip(streams, ends, continuations, strict=True)
    ]


def _advance(lalm: LALM, state: StreamState, end: int, continuation: list[int], compute_s: float) -> Update:
    chunk = state.config.chunk_samples
    final = chunk is None or end - state.heard_samples < chunk
    kept = len(continuation) if final else state.config.policy.commit(state.committed, continuation)
    hypothesis = [*state.committed, *continuation]
    state.committed = hypothesis[: len(state.committed) + kept]
    state.draft = continuation[kept:]
    state.heard_samples = end
    state.finished = final
    # text only grows: a word that the model completes after all is appended to, not taken back
    text = stable_text(lalm, state.committed, hypothesis, state.config.target_lang, final)
    state.shown = max(state.shown, text, key=len)
    tentative = lalm.decode(hypothesis)[len(state.shown) :].rstrip("\ufffd")
    return Update(state.shown, tentative, end, compute_s, final)
