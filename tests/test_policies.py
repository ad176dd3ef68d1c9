"""Policies: what each commits, how they are written, and what must hold for streams with any of them."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.lalm.interface import TOKENS_ONLY, Continuation, Heads, Want
from simulsa.lalm.text import word_ends
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.policies import (
    POLICIES,
    AlignAtt,
    Confidence,
    EosOnly,
    Hypothesis,
    LocalAgreement,
    Policy,
    Rollback,
    WaitK,
    parse_policy,
)
from simulsa.streaming.state import StreamState
from simulsa.streaming.step import step
from simulsa.streaming.stream import Stream
from simulsa.testing import FakeLALM, growing_script
from tests.conftest import examples, noise
from tests.test_streaming import CHUNK, SENTENCE, WORDS, check_stream, lock_step, run, snapshot

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

TEXTS = (
    "rollback:0", "rollback:3", "eos", "local-agreement:2", "local-agreement:4", "wait-k:1", "wait-k:3,2", "alignatt:0",
    "alignatt:4", "alignatt:4,1", "confidence:0", "confidence:0.5",
)  # fmt: skip

configs = st.builds(
    StreamConfig,
    target_lang=st.sampled_from(["de", "ja"]),
    chunk_ms=st.sampled_from([40, 333, 500, math.inf]),
    policy=st.sampled_from([parse_policy(text) for text in TEXTS]),
)
lengths = st.integers(1, 40_000)


class Doubting(FakeLALM):
    """A model that changes its mind with the audio's length and doubts some of what it says."""

    def continue_(self, heard: Any, prefixes: Any, drafts: Any = None, want: Want = TOKENS_ONLY) -> list[Continuation]:
        return [
            dataclasses.replace(said, log_probs=doubts(clip.audio, len(prefix) + len(said.tokens))[len(prefix) :])
            if want.log_probs
            else said
            for clip, prefix, said in zip(heard, prefixes, super().continue_(heard, prefixes, drafts, want), strict=True)
        ]


def doubts(audio: np.ndarray, tokens: int) -> np.ndarray:
    draw = np.random.default_rng([len(audio), tokens])
    return -draw.exponential(size=tokens).astype(np.float32)


def fickle(seed: int) -> FakeLALM:
    def script(audio: np.ndarray) -> str:
        rng = np.random.default_rng([seed, len(audio) // (2 * CHUNK)])
        return " ".join(rng.choice(WORDS, size=rng.integers(0, 6)))

    return Doubting(script)


def growing() -> FakeLALM:
    return Doubting(growing_script(SENTENCE, samples_per_word=2_500))


class TestStreams:
    @given(st.integers(0, 10**6), configs, lengths, st.lists(st.integers(0, 40_000), max_size=5))
    @settings(max_examples=examples(80), deadline=None)
    def test_text_only_grows_all_is_committed_and_any_split_is_the_same(
        self, seed: int, config: StreamConfig, length: int, cuts: list[int]
    ) -> None:
        audio = np.zeros(length, dtype=np.float32)
        for lalm in (fickle(seed), growing()):
            stream = Stream(lalm, config)
            updates = run(stream, audio)
            check_stream(updates, audio)
            assert updates[-1].committed == stream.state.committed
            assert run(Stream(lalm, config), audio, [min(cut, length) for cut in cuts]) == updates

    @pytest.mark.parametrize("policy", TEXTS)
    def test_an_infinite_chunk_is_offline_translation(self, policy: str) -> None:
        lalm, audio = growing(), np.zeros(3 * CHUNK, dtype=np.float32)
        updates = run(Stream(lalm, StreamConfig(chunk_ms=math.inf, policy=parse_policy(policy))), audio, [5, CHUNK])
        assert [(u.committed, u.tentative, u.audio_samples, u.final) for u in updates] == [
            (lalm.script(audio), "", 3 * CHUNK, True)
        ]
        assert lalm.calls == [("continue_", 1)], "at the end nobody asks the policy, nor what it needs"

    @given(st.lists(st.tuples(configs, lengths), min_size=1, max_size=5), st.integers(0, 10**6))
    @settings(max_examples=examples(40), deadline=None)
    def test_batched_steps_equal_single_ones(self, streams: list[tuple[StreamConfig, int]], seed: int) -> None:
        lalm = fickle(seed)
        audios = [np.zeros(length, dtype=np.float32) for _, length in streams]
        single = [run(Stream(lalm, config), audio) for (config, _), audio in zip(streams, audios, strict=True)]
        assert lock_step(lalm, [config for config, _ in streams], audios) == single

    @pytest.mark.parametrize(
        ("policy", "committed"),
        [
            ("eos", ["ein Hund", "ein Hund . bellt", "ein Hund . bellt", "ein Hund . bellt ."]),
            ("rollback:0", ["ein Hund .", "ein Hund . bellt .", "ein Hund . bellt .", "ein Hund . bellt ."]),
        ],
    )
    def test_with_eos_a_full_stop_waits_for_the_end_of_the_speech(self, policy: str, committed: list[str]) -> None:
        def script(audio: np.ndarray) -> str:
            return "ein Hund ." if len(audio) < 2 * CHUNK else "ein Hund . bellt ."

        updates = run(Stream(FakeLALM(script), StreamConfig(policy=parse_policy(policy))), np.zeros(3 * CHUNK))
        assert [update.committed.rstrip() for update in updates] == committed

    def test_the_model_is_called_once_for_all_that_want_the_same(self) -> None:
        lalm = growing()
        texts = ("rollback:3", "alignatt:4", "wait-k:1", "confidence:0.5", "alignatt:9", "confidence:0.1", "alignatt:4,1")
        states = [StreamState(lalm, StreamConfig(policy=parse_policy(text))) for text in texts]
        for state in states:
            state.receive(np.zeros(CHUNK))
        step(lalm, states)
        assert lalm.calls == [("continue_", 2), ("continue_", 2), ("continue_", 2), ("continue_", 1)]

    @pytest.mark.parametrize("policy", ["alignatt:4", "rollback:3", "confidence:0.5"])
    def test_audio_is_heard_and_read_once_a_step(self, random_lalm: HuggingFaceLALM, policy: str) -> None:
        heard, spoken = [], []
        handles = [
            random_lalm.encoder.conv1.register_forward_hook(lambda *_: heard.append(1)),
            random_lalm.model.model.language_model.layers[0].self_attn.register_forward_hook(
                lambda _, __, output: spoken.append(1) if output[0].shape[1] > 1 else None
            ),
        ]
        try:
            run(Stream(random_lalm, StreamConfig(policy=parse_policy(policy))), noise(1.1))
        finally:
            for handle in handles:
                handle.remove()
        assert (len(heard), len(spoken)) == (3, 3)

    def test_only_the_chosen_heads_are_asked_for_and_not_at_the_end(self) -> None:
        asked = []

        class Asked(FakeLALM):
            def continue_(self, heard: Any, prefixes: Any, drafts: Any = None, want: Want = TOKENS_ONLY) -> list[Continuation]:
                asked.append(want.heads)
                return super().continue_(heard, prefixes, drafts, want)

        run(Stream(Asked(growing().script), StreamConfig(policy=parse_policy("alignatt:4,2,1"))), np.zeros(CHUNK + 1))
        assert asked == [Heads(2, 1), None]

    @pytest.mark.parametrize("policy", ["alignatt:2", "confidence:0.5"])
    def test_a_model_that_fails_leaves_the_stream_able_to_go_on(self, policy: str) -> None:
        class Failing(Doubting):
            failing = True

            def continue_(self, *arguments: Any) -> list[Continuation]:
                said = super().continue_(*arguments)
                if self.failing and len(self.calls) == 3:
                    raise RuntimeError("out of memory")
                return said

        audio, config = np.zeros(4 * CHUNK + 100, dtype=np.float32), StreamConfig(policy=parse_policy(policy))
        expected = run(Stream(growing(), config), audio)
        lalm = Failing(growing().script)
        stream = Stream(lalm, config)
        updates = stream.push(audio[: 2 * CHUNK])
        before = snapshot(stream)
        with pytest.raises(RuntimeError, match="out of memory"):
            stream.push(audio[2 * CHUNK : 3 * CHUNK])
        assert snapshot(stream) == before
        lalm.failing = False
        updates += stream.push(np.zeros(0)) + stream.push(audio[3 * CHUNK :]) + stream.finish()
        assert [dataclasses.replace(update, compute_s=0.0) for update in updates] == expected

    def test_what_a_policy_is_told(self) -> None:
        told: list[Hypothesis] = []

        class Curious(LocalAgreement):
            def commit(self, hypothesis: Hypothesis) -> int:
                told.append(hypothesis)
                return -5 if hypothesis.chunk == 1 else 99 if hypothesis.chunk == 4 else 1

        class Config(StreamConfig):
            commit_policy = Curious(3)

        lalm = FakeLALM(lambda audio: "abcdefgh"[: 2 * (len(audio) // CHUNK)])
        updates = run(Stream(lalm, Config("ja")), np.zeros(4 * CHUNK))
        assert [update.committed for update in updates] == ["", "a", "ab", "abcdefgh", "abcdefgh"], "kept within bounds"
        assert [hypothesis.chunk for hypothesis in told] == [1, 2, 3, 4]
        assert [hypothesis.heard_samples for hypothesis in told] == [CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK]
        assert [bytes(tokens).decode() for tokens in told[3].previous] == ["abcd", "abcdef"]
        assert (bytes(told[3].committed), bytes(told[3].continuation)) == (b"ab", b"cdefgh")
        assert (told[3].word_ends, told[3].log_probs, told[3].attention) == (None, None, None)


class TestCommit:
    def test_eos_only_commits_all_that_does_not_close_the_sentence(self) -> None:
        assert EosOnly().commit(Hypothesis([1], [2, 3], open_end=3)) == 2
        assert EosOnly().commit(Hypothesis([1], [2, 3], open_end=2)) == 1

    @pytest.mark.parametrize(
        ("hypotheses", "previous", "expected"),
        [
            (2, [], 0),
            (2, [[1, 2, 3, 9]], 1),
            (2, [[1, 2]], 0),
            (2, [[1, 2, 3, 4, 5]], 2),
            (3, [[1, 2, 3, 4]], 0),
            (3, [[1, 2, 3, 9], [1, 2, 3, 4]], 1),
            (3, [[1, 2, 3, 4], [1, 2, 3, 4]], 2),
        ],
    )
    def test_local_agreement_commits_the_common_beginning(
        self, hypotheses: int, previous: list[list[int]], expected: int
    ) -> None:
        assert LocalAgreement(hypotheses).commit(Hypothesis([1, 2], [3, 4], previous)) == expected

    def test_wait_k_counts_words_of_the_whole_translation(self) -> None:
        commit = [
            WaitK(3, 2).commit(Hypothesis([1, 2], [3] * 6, chunk=chunk, word_ends=[1, 3, 4, 7, 8])) for chunk in range(1, 8)
        ]
        assert commit == [0, 0, 1, 5, 6, 6, 6]
        assert WaitK(1).commit(Hypothesis([], [3], word_ends=[])) == 0

    def test_wait_k_word_by_word(self) -> None:
        lalm = FakeLALM(lambda audio: "Der Hund schläft tief.")
        updates = run(Stream(lalm, StreamConfig(policy=parse_policy("wait-k:2,1"))), np.zeros(4 * CHUNK))
        assert [update.committed for update in updates] == [
            "", "Der", "Der Hund", "Der Hund schläft", "Der Hund schläft tief.",
        ]  # fmt: skip
        japanese = StreamConfig("ja", policy=parse_policy("wait-k:2,1"))
        lalm = FakeLALM(lambda audio: "犬が眠る")
        assert [update.committed for update in run(Stream(lalm, japanese), np.zeros(2 * CHUNK))] == ["", "犬", "犬が眠る"]

    def test_where_words_end(self) -> None:
        lalm = FakeLALM(str)
        assert word_ends(lalm, lalm.encode("Tür zu!"), "de") == [4, 8]
        assert word_ends(lalm, lalm.encode("漢字")[:-1], "ja") == [3]
        assert word_ends(lalm, [], "de") == []

    @pytest.mark.parametrize(("frames", "expected"), [(0, 4), (1, 3), (2, 2), (4, 1), (5, 0), (99, 0)])
    def test_alignatt_stops_where_attention_reaches_the_end(self, frames: int, expected: int) -> None:
        attention = np.eye(5, dtype=np.float32)[[0, 1, 3, 4]] * 0.4 + 0.01
        assert AlignAtt(frames).commit(Hypothesis([], [7, 7, 7, 7], attention=attention)) == expected

    def test_alignatt_commits_nothing_of_a_clip_without_frames(self) -> None:
        assert AlignAtt(0).commit(Hypothesis([], [7], attention=np.zeros((1, 0), dtype=np.float32))) == 0

    def test_confidence_stops_at_the_first_doubt(self) -> None:
        log_probs = np.log(np.array([0.9, 0.6, 0.2, 0.9], dtype=np.float32))
        commit = [Confidence(p).commit(Hypothesis([], [7] * 4, log_probs=log_probs)) for p in (0, 0.5, 0.7, 1)]
        assert commit == [4, 2, 1, 0]


class TestText:
    @pytest.mark.parametrize(
        ("text", "policy"),
        [
            ("rollback:0", Rollback(0)),
            ("rollback", Rollback(3)),
            ("eos", EosOnly()),
            ("local-agreement:3", LocalAgreement(3)),
            ("wait-k:3", WaitK(3, 1)),
            ("wait-k:3,2", WaitK(3, 2)),
            ("alignatt:8", AlignAtt(8)),
            ("alignatt:8,2,1", AlignAtt(8, 2, 1)),
            ("confidence:0.50", Confidence(0.5)),
        ],
    )
    def test_policies_are_read_and_written(self, text: str, policy: Policy) -> None:
        assert parse_policy(text) == policy
        assert parse_policy(str(policy)) == policy
        assert StreamConfig(policy=parse_policy(text)).commit_policy == policy

    def test_they_are_written_in_one_way(self) -> None:
        shown = ["rollback:3", "eos", "local-agreement:2", "wait-k:3,1", "alignatt:8", "confidence:0.5"]
        assert [str(policy()) for policy in POLICIES.values()] == shown
        assert str(AlignAtt(4, 2)) == "alignatt:4,2"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("roleback:3", "there is no 'roleback', did you mean 'rollback'"),
            ("", "there is no ''"),
            ("eos:1", "with too many arguments; it must be eos"),
            ("wait-k:3,1,1", "too many arguments; it must be wait-k:CHUNKS,WORDS"),
            ("wait-k:two", "it must be wait-k:CHUNKS,WORDS: 'two' is not a number"),
            ("wait-k:", "'' is not a number"),
            ("wait-k:1.5", "chunks is 1.5; it must be a whole number, 1 or more"),
            ("local-agreement:1", "hypotheses is 1; it must be a whole number, 2 or more"),
            ("wait-k:9999999", "chunks is 9999999; it must be at most 1000000"),
            ("alignatt:8,0,9999999", "head is 9999999; it must be at most 1000000"),
            ("rollback:-1", "rollback is -1; it must be a number of tokens from 0 to 1000"),
            ("rollback:1.5", "rollback is 1.5"),
            ("alignatt:-1", "frames is -1"),
            ("alignatt:4,-1", "layer is -1"),
            ("alignatt:4,1,1.5", "head is 1.5"),
            ("confidence:2", "threshold is 2; it must be a probability from 0 to 1"),
            ("confidence:nan", "threshold is nan"),
        ],
    )
    def test_what_is_no_policy(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match="policy is .*" + message):
            parse_policy(text)

    def test_a_head_needs_a_layer(self) -> None:
        with pytest.raises(ValueError, match="head is 1 but layer is not set"):
            AlignAtt(8, None, 1)
