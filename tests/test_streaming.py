"""Streams: the invariants of simultaneous decoding, with scripted models and with a real one."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE, AudioError
from simulsa.lalm.interface import Continuation
from simulsa.languages import Direction
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.policies import Hypothesis, Rollback
from simulsa.streaming.segment import SegmentState
from simulsa.streaming.state import StreamState, Update
from simulsa.streaming.step import step
from simulsa.streaming.stream import Stream
from simulsa.testing import FakeLALM, growing_script
from tests.conftest import examples, noise
from tests.lalms import continue_

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

SENTENCE = "Ein Mann in einem roten Hemd fährt über den Hügel, 漢字 🎉 und weiter."
WORDS = ["Tür", "über", "den", "Hügel,", "漢字", "🎉", "Hemd-", "größer.", "'s"]
CHUNK = 8_000  # samples in the default chunk of 500 ms

configs = st.builds(
    StreamConfig,
    target_lang=st.sampled_from(["de", "ja"]),
    chunk_ms=st.sampled_from([40, 333, 500, 1000, math.inf]),
    rollback=st.sampled_from([0, 1, 3, 5, 30]),
)
lengths = st.integers(1, 40_000)


def fickle(seed: int) -> FakeLALM:
    """A model that changes its whole mind with every change of the audio's length."""

    def script(audio: np.ndarray) -> str:
        rng = np.random.default_rng([seed, len(audio)])
        return " ".join(rng.choice(WORDS, size=rng.integers(0, 6)))

    return FakeLALM(script)


def growing() -> FakeLALM:
    return FakeLALM(growing_script(SENTENCE, samples_per_word=2_500))


def run(stream: Stream, audio: np.ndarray, cuts: Sequence[int] = ()) -> list[Update]:
    """Push `audio` in pieces cut at `cuts`; the updates without their compute time."""
    edges = [0, *sorted(cuts), len(audio)]
    updates = []
    for first, last in itertools.pairwise(edges):
        updates += stream.push(audio[first:last])
    return timeless(updates + stream.finish())


def timeless(updates: Sequence[Update]) -> list[Update]:
    return [dataclasses.replace(update, compute_s=0.0) for update in updates]


def snapshot(stream: Stream) -> list[Any]:
    """All of a stream's state that a failed step must leave as it was."""
    state = stream.state
    segment = state._open or SegmentState(None)
    names = ("heard_samples", "committed", "draft", "previous", "shown", "chunks", "finished")
    return [state.committed, state.finished, state.done_samples, *(copy.copy(getattr(segment, name)) for name in names)]


def check_stream(updates: Sequence[Update], audio: np.ndarray) -> None:
    """What must hold for any stream."""
    for before, after in itertools.pairwise(updates):
        assert after.committed.startswith(before.committed)
        assert after.audio_samples >= before.audio_samples
    assert [update.final for update in updates] == [False] * (len(updates) - 1) + [True]
    assert updates[-1].tentative == ""
    assert updates[-1].audio_samples == len(audio)


@given(st.integers(0, 10**6), configs, lengths, st.lists(st.integers(0, 40_000), max_size=6))
@settings(max_examples=examples(80), deadline=None)
def test_any_split_gives_the_same_updates(seed: int, config: StreamConfig, length: int, cuts: list[int]) -> None:
    audio = np.zeros(length, dtype=np.float32)
    for lalm in (fickle(seed), growing()):
        whole = run(Stream(lalm, config), audio)
        assert run(Stream(lalm, config), audio, [min(cut, length) for cut in cuts]) == whole


@given(st.integers(0, 10**6), configs, lengths)
@settings(max_examples=examples(80), deadline=None)
def test_committed_text_only_grows_and_all_is_committed_at_the_end(seed: int, config: StreamConfig, length: int) -> None:
    audio = np.zeros(length, dtype=np.float32)
    for lalm in (fickle(seed), growing()):
        stream = Stream(lalm, config)
        updates = run(stream, audio)
        check_stream(updates, audio)
        assert updates[-1].committed == stream.state.committed
    assert "\ufffd" not in "".join(update.committed + update.tentative for update in updates)  # of the growing one


@given(st.integers(0, 10**6), lengths, st.sampled_from([0, 3]))
def test_an_infinite_chunk_is_offline_translation(seed: int, length: int, rollback: int) -> None:
    lalm, audio = fickle(seed), np.zeros(length, dtype=np.float32)
    updates = run(Stream(lalm, StreamConfig(chunk_ms=math.inf, rollback=rollback)), audio, range(0, length, 5_000))
    (update,) = updates
    assert (update.committed, update.tentative, update.audio_samples, update.final) == (lalm.script(audio), "", length, True)
    assert lalm.calls == [("continue_", 1)]


@given(st.integers(0, 10**6), lengths, st.sampled_from([40, 500, 1000]))
@settings(deadline=None)
def test_a_rollback_past_every_hypothesis_ends_in_the_offline_text(seed: int, length: int, chunk_ms: int) -> None:
    lalm, audio = fickle(seed), np.zeros(length, dtype=np.float32)
    updates = run(Stream(lalm, StreamConfig(chunk_ms=chunk_ms, rollback=1000)), audio)
    assert {update.committed for update in updates[:-1]} <= {""}
    assert updates[-1].committed == lalm.script(audio)


def test_a_changed_mind_changes_only_what_is_tentative() -> None:
    lalm = FakeLALM(lambda audio: ["Ein Hund bellt laut.", "Das Pferd wiehert da."][len(audio) // CHUNK % 2])
    stream = Stream(lalm, StreamConfig(chunk_ms=500, rollback=6))
    updates = run(stream, np.zeros(4 * CHUNK, dtype=np.float32))
    assert [update.committed + "|" + update.tentative for update in updates] == [
        "Das Pferd| wiehert da.",  # "Das Pferd wiehe" is committed, half a word of it not shown
        "Das Pferd| wiehelaut.",
        "Das Pferd| wiehert da.",
        "Das Pferd| wiehelaut.",
        "Das Pferd wiehelaut.|",
    ]


def test_a_growing_translation_step_by_step() -> None:
    lalm = FakeLALM(growing_script("Der Hund schläft tief.", samples_per_word=CHUNK))
    updates = run(Stream(lalm, StreamConfig(chunk_ms=500, rollback=2)), np.zeros(3 * CHUNK + 5, dtype=np.float32))
    assert [(update.committed, update.tentative, update.audio_s) for update in updates] == [
        ("", "Der", 0.5),
        ("Der", " Hund", 1.0),
        ("Der Hund", " schläft", 1.5),
        ("Der Hund schläft", "", 1.5003125),
    ]


def test_the_final_step_happens_once_even_where_a_chunk_just_ended() -> None:
    lalm = growing()
    stream = Stream(lalm, StreamConfig(chunk_ms=500))
    assert [update.audio_samples for update in stream.push(np.zeros(2 * CHUNK))] == [CHUNK, 2 * CHUNK]
    (last,) = stream.finish()
    assert (last.final, last.audio_samples) == (True, 2 * CHUNK)
    assert stream.finish() == []


@given(st.lists(st.tuples(configs, lengths), min_size=1, max_size=5), st.integers(0, 10**6))
@settings(max_examples=examples(40), deadline=None)
def test_batched_steps_equal_single_ones(streams: list[tuple[StreamConfig, int]], seed: int) -> None:
    lalm = fickle(seed)
    audios = [np.zeros(length, dtype=np.float32) for _, length in streams]
    single = [run(Stream(lalm, config), audio) for (config, _), audio in zip(streams, audios, strict=True)]
    assert lock_step(lalm, [config for config, _ in streams], audios) == single


def lock_step(lalm: Any, configs: Sequence[StreamConfig], audios: Sequence[np.ndarray]) -> list[list[Update]]:
    """All streams together, each until its end; the updates of each without their compute time."""
    states = [StreamState(lalm, config) for config in configs]
    for state, audio in zip(states, audios, strict=True):
        state.receive(audio)
        state.close()
    updates: list[list[Update]] = [[] for _ in states]
    while waiting := [i for i, state in enumerate(states) if state.ready() is not None]:
        for i, update in zip(waiting, step(lalm, [states[i] for i in waiting]), strict=True):
            updates[i] += timeless([update])
    return updates


def test_a_step_calls_the_model_once() -> None:
    lalm = growing()
    states = [StreamState(lalm, StreamConfig()) for _ in range(3)]
    for state in states:
        state.receive(np.zeros(CHUNK))
    updates = step(lalm, states)
    assert lalm.calls == [("continue_", 3)]
    assert len({update.compute_s for update in updates}) == 1
    assert updates[0].compute_s > 0


def test_a_step_needs_waiting_chunks() -> None:
    lalm = growing()
    ready, waiting = (StreamState(lalm, StreamConfig()) for _ in range(2))
    ready.receive(np.zeros(CHUNK))
    waiting.receive(np.zeros(CHUNK - 1))
    with pytest.raises(ValueError, match="stream 1 has no chunk waiting"):
        step(lalm, [ready, waiting])
    assert ready.done_samples == 0
    assert lalm.calls == []
    assert step(lalm, []) == []


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_failing_model_leaves_the_stream_able_to_go_on(at: int) -> None:
    broken = {at}

    class Failing(FakeLALM):
        def continue_(self, *arguments: Any) -> list[Continuation]:
            outputs = super().continue_(*arguments)
            if len(self.calls) in broken:
                raise RuntimeError("out of memory")
            return outputs

    audio = np.zeros(2 * CHUNK + 100, dtype=np.float32)
    expected = run(Stream(growing(), StreamConfig()), audio)
    stream = Stream(Failing(growing().script), StreamConfig())
    updates: list[Update] = []
    pushes: list[Any] = [lambda: stream.push(audio[:CHUNK]), lambda: stream.push(audio[CHUNK:]), stream.finish]
    for number, act in enumerate(pushes, start=1):
        if number != at:
            updates += act()
            continue
        before = snapshot(stream)
        with pytest.raises(RuntimeError, match="out of memory"):
            act()
        assert snapshot(stream) == before
        # the audio is kept: an empty push, or finishing again, tries the step once more
        updates += stream.finish() if act == stream.finish else stream.push(np.zeros(0))
    assert timeless(updates) == expected


def test_an_empty_push_changes_nothing() -> None:
    stream = Stream(growing())
    assert stream.push(np.zeros(0)) == []
    assert stream.state.received_samples == 0
    stream.push(np.zeros(CHUNK - 1))
    assert stream.push(np.zeros(0)) == []
    assert len(stream.push(np.zeros(1))) == 1


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([0.0, np.nan, np.inf]), "pushed audio: 2 of 3 samples are NaN"),
        (np.zeros((100, 2)), r"pushed audio: audio has shape \(100, 2\)"),
    ],
)
def test_a_broken_push_is_refused_and_leaves_the_stream_alone(samples: np.ndarray, message: str) -> None:
    audio = np.zeros(CHUNK + 7, dtype=np.float32)
    stream = Stream(growing())
    stream.push(audio[:100])
    with pytest.raises(AudioError, match=message):
        stream.push(samples)
    assert run(stream, audio[100:]) == run(Stream(growing()), audio)


def test_audio_after_the_end_is_refused_until_reset() -> None:
    stream = Stream(growing())
    first = run(stream, np.zeros(CHUNK))
    with pytest.raises(AudioError, match="audio after the end"):
        stream.push(np.zeros(10))
    assert stream.finish() == []
    stream.reset()
    assert run(stream, np.zeros(CHUNK)) == first


def test_a_stream_without_audio_cannot_finish() -> None:
    stream = Stream(growing())
    with pytest.raises(AudioError, match=r"ended with no audio \(0 samples\)"):
        stream.finish()
    assert len(stream.push(np.zeros(CHUNK))) == 1  # it is still open
    assert stream.finish()[-1].final


def test_audio_past_the_window_is_refused() -> None:
    lalm = dataclasses.replace(growing(), max_samples=2 * SAMPLE_RATE)
    stream = Stream(lalm)
    stream.push(np.zeros(2 * SAMPLE_RATE))
    with pytest.raises(AudioError, match=r"the stream has 2\.50 s of audio and the model hears at most 2\.00 s"):
        stream.push(np.zeros(CHUNK))
    assert stream.finish()[-1].audio_s == 2.0


def test_the_policy_keeps_back_its_last_tokens() -> None:
    assert [Rollback(3).commit(Hypothesis([1, 2], list(range(n)))) for n in (0, 2, 3, 5)] == [0, 0, 0, 2]
    assert Rollback(0).commit(Hypothesis([], [1, 2])) == 2
    assert StreamConfig(rollback=5).commit_policy == Rollback(5)


def test_the_last_hypothesis_is_the_next_draft() -> None:
    seen: list[list[int]] = []

    class Watching(FakeLALM):
        def continue_(self, heard: Any, prefixes: Any, drafts: Any = None, *rest: Any) -> list[Continuation]:
            seen.append([*prefixes[0], -1, *drafts[0]])
            return super().continue_(heard, prefixes, drafts, *rest)

    for drafts in (True, False):
        seen.clear()
        run(Stream(Watching(lambda audio: "abcdef"), StreamConfig(rollback=2, drafts=drafts)), np.zeros(CHUNK + 1))
        assert seen == [[-1], [*b"abcd", -1, *(b"ef" if drafts else b"")]]


def test_speech_that_ends_with_a_chunk_is_not_heard_again() -> None:
    for drafts in (True, False):
        lalm = growing()
        updates = run(Stream(lalm, StreamConfig(rollback=2, drafts=drafts)), np.zeros(3 * CHUNK))
        assert lalm.calls == [("continue_", 1)] * 3
        assert [update.audio_samples for update in updates] == [CHUNK, 2 * CHUNK, 3 * CHUNK, 3 * CHUNK]
        *_, last, final = updates
        assert (final.committed, final.tentative) == (last.committed + last.tentative, "")


def test_a_batch_in_which_one_has_heard_all() -> None:
    states = [StreamState(growing(), StreamConfig(rollback=2)) for _ in range(3)]
    lalm = growing()
    for state, chunks in zip(states, (2, 1, 2), strict=True):
        state.receive(np.zeros(chunks * CHUNK))
    step(lalm, states)
    states[1].close()
    updates = step(lalm, states)
    assert lalm.calls == [("continue_", 3), ("continue_", 2)]
    assert [update.final for update in updates] == [False, True, False]
    alone = run(Stream(growing(), StreamConfig(rollback=2)), np.zeros(CHUNK))
    assert updates[1].committed == alone[-1].committed


@given(cuts=st.lists(st.integers(0, 27_000), max_size=4), rollback=st.sampled_from([0, 3, 20]), drafts=st.booleans())
@settings(max_examples=examples(4), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_real_model_any_split_and_drafts_on_or_off(
    random_lalm: HuggingFaceLALM, cuts: list[int], rollback: int, drafts: bool
) -> None:
    audio = noise(27_000 / SAMPLE_RATE, seed=1)
    config = StreamConfig(rollback=rollback, drafts=drafts)
    updates = run(Stream(random_lalm, config), audio, cuts)
    check_stream(updates, audio)
    assert updates == run(Stream(random_lalm, dataclasses.replace(config, drafts=not drafts)), audio)


def test_a_real_model_offline_and_in_lock_step(random_lalm: HuggingFaceLALM) -> None:
    audios = [noise(seconds, seed) for seed, seconds in enumerate((1.2, 0.3, 1.7))]
    (offline,) = continue_(random_lalm, audios[:1], [[]], [Direction("en", "de")])
    for config in (StreamConfig(chunk_ms=math.inf), StreamConfig(rollback=1000)):
        assert run(Stream(random_lalm, config), audios[0])[-1].committed == random_lalm.decode(offline)
    configs = [StreamConfig(), StreamConfig(chunk_ms=300, rollback=1), StreamConfig(rollback=0, target_lang="fr")]
    single = [run(Stream(random_lalm, config), audio) for config, audio in zip(configs, audios, strict=True)]
    assert lock_step(random_lalm, configs, audios) == single
