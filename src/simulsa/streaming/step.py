"""`step`: the one place where simultaneous decoding happens."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from simulsa.audio import samples_to_s
from simulsa.lalm.interface import LALM
from simulsa.lalm.text import stable_text, word_ends
from simulsa.streaming.policies import Hypothesis, Need
from simulsa.streaming.state import StreamState, Update

logger = logging.getLogger("simulsa")

AUDIO_MEMORY_MIB = 256  # for as long as a step takes


def step(lalm: LALM, streams: Sequence[StreamState]) -> list[Update]:
    """Advance every stream by one chunk with a single call of the model; returns one `Update` per stream, in order.

    Each stream must have a chunk waiting (`next_samples()` is not `None`). The model hears all audio up to the chunk's end and
    continues the tokens committed so far; the stream's policy says how many of the new tokens become final. At the end of the
    speech all do, without the model if it has heard everything. Where a policy needs probabilities or attention, the model is
    called once more for all that need the same. No state changes if the model raises.
    """
    if not streams:
        return []
    ends = [state.next_samples() for state in streams]
    if None in ends:
        raise ValueError(f"stream {ends.index(None)} has no chunk waiting; pass only streams whose next_samples() is not None")
    started = time.perf_counter()
    with _hearing_once(lalm, streams):
        hypotheses = _hypotheses(lalm, streams, [end or 0 for end in ends])
        kept = _kept(lalm, streams, hypotheses)
    compute_s = time.perf_counter() - started
    return [
        _advance(lalm, state, hypothesis, count, compute_s)
        for state, hypothesis, count in zip(streams, hypotheses, kept, strict=True)
    ]


def _hypotheses(lalm: LALM, streams: Sequence[StreamState], ends: Sequence[int]) -> list[Hypothesis]:
    """What the model says to each stream's audio; where none is new, at the end of whole chunks, what it said last."""
    asked = [(state, end) for state, end in zip(streams, ends, strict=True) if end > state.heard_samples]
    answers = iter(lalm.continue_(
        [state.audio[:end] for state, end in asked],
        [state.committed for state, _ in asked],
        [state.config.direction for state, _ in asked],
        [state.draft if state.config.drafts else [] for state, _ in asked],
    ) if asked else ())  # fmt: skip
    continuations = [
        next(answers) if end > state.heard_samples else state.draft for state, end in zip(streams, ends, strict=True)
    ]
    return [
        Hypothesis(state.committed, continuation, state.previous, state.chunks + 1, end)
        for state, end, continuation in zip(streams, ends, continuations, strict=True)
    ]


@contextlib.contextmanager
def _hearing_once(lalm: LALM, streams: Sequence[StreamState]) -> Iterator[None]:
    """Remember what the audio tower made of this step's audio, if a policy will have the model hear it again."""
    if all(state.config.chosen_policy.needs in (None, "words") for state in streams):
        yield
        return
    from simulsa.lalm.memory import remembering  # which imports torch

    with remembering(lalm, AUDIO_MEMORY_MIB):
        yield


def _kept(lalm: LALM, streams: Sequence[StreamState], hypotheses: Sequence[Hypothesis]) -> list[int]:
    """How many new tokens of each stream become final."""
    kept = [len(hypothesis.continuation) for hypothesis in hypotheses]
    asked = [
        row
        for row, (state, hypothesis) in enumerate(zip(streams, hypotheses, strict=True))
        if hypothesis.continuation and not _is_final(state, hypothesis)
    ]
    needs = {row: streams[row].config.chosen_policy.needs for row in asked}
    for need in dict.fromkeys(needs.values()):
        rows = [row for row in asked if needs[row] == need]
        informed = _informed(lalm, need, [streams[row] for row in rows], [hypotheses[row] for row in rows])
        for row, hypothesis in zip(rows, informed, strict=True):
            kept[row] = min(max(streams[row].config.chosen_policy.commit(hypothesis), 0), kept[row])
    return kept


def _informed(lalm: LALM, need: Need, streams: Sequence[StreamState], hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """The hypotheses with what a policy needs to know of them."""
    if need is None:
        return list(hypotheses)
    if need == "words":
        return [
            replace(hypothesis, word_ends=word_ends(lalm, hypothesis.tokens, state.config.target_lang))
            for state, hypothesis in zip(streams, hypotheses, strict=True)
        ]
    audios = [state.audio[: hypothesis.heard_samples] for state, hypothesis in zip(streams, hypotheses, strict=True)]
    targets = [hypothesis.tokens for hypothesis in hypotheses]
    directions = [state.config.direction for state in streams]
    if need == "log_probs":
        scores = lalm.score(audios, targets, directions)
        return [
            replace(hypothesis, log_probs=score.log_probs[len(hypothesis.committed) :])
            for hypothesis, score in zip(hypotheses, scores, strict=True)
        ]
    attentions = lalm.attend(audios, targets, directions, need)
    return [
        replace(hypothesis, attention=attention[len(hypothesis.committed) :])
        for hypothesis, attention in zip(hypotheses, attentions, strict=True)
    ]


def _is_final(state: StreamState, hypothesis: Hypothesis) -> bool:
    """Whether all speech was heard."""
    chunk = state.config.chunk_samples
    return chunk is None or hypothesis.heard_samples - state.heard_samples < chunk


def _advance(lalm: LALM, state: StreamState, hypothesis: Hypothesis, kept: int, compute_s: float) -> Update:
    final = _is_final(state, hypothesis)
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
    limit = lalm.token_limit(state.heard_samples)
    truncated = len(tokens) >= limit
    if truncated and final:
        logger.warning(
            "a translation reached the model's limit of %d tokens for %.1f s of speech and may lack its end; shorter segments "
            "(max_segment_s) may help",
            limit, samples_to_s(state.heard_samples),
        )  # fmt: skip
    return Update(state.shown, tentative, state.heard_samples, compute_s, final, truncated)
