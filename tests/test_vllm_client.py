"""The HTTP client of vLLM against a scripted server: order, checks, retries, errors."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs simulsa[engine]")

from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.lalm import vllm_client
from simulsa.lalm.vllm_client import Request, VLLMClient, VLLMError, encode_audio
from tests.conftest import noise
from tests.vllm_server import EOS, PLACEHOLDER, SAMPLES_PER_TOKEN, Scripted, audio_of, scripted

AUDIO = noise(0.25)  # 4 tokens


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_client, "_FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(vllm_client, "_LONGEST_DELAY_S", 0.02)


@contextlib.contextmanager
def serving(script: dict[str, Any] | None = None, **options: Any) -> Iterator[tuple[Scripted, VLLMClient]]:
    """A scripted server and a client of it."""
    settings = {"model": "model", "placeholder": PLACEHOLDER, "patience_s": 5.0, **options}
    with scripted(**script or {}) as server, contextlib.closing(VLLMClient(server.url, **settings)) as vllm:
        yield server, vllm


def request(*suffix: int, audio: np.ndarray = AUDIO, **fields: Any) -> Request:
    heard = [PLACEHOLDER] * -(-len(audio) // SAMPLES_PER_TOKEN)
    return Request([1, *heard, 3, *suffix], encode_audio(audio), **{"max_tokens": 8, **fields})


def test_a_request_is_what_vllm_takes_and_its_answer_is_read() -> None:
    with serving(stop_ids=(EOS, 9), key="secret") as (server, vllm):
        (answer,) = vllm.generate([request(20, 21, scored=2)])
        (sent,) = server.seen
        assert server.headers[0]["Authorization"] == "Bearer secret"
    np.testing.assert_array_equal(audio_of(sent), AUDIO)
    assert sent["token_ids"] == [1, PLACEHOLDER, 3, 20, 21]
    assert sent["model"] == "model"
    assert sent["sampling_params"] == {
        "temperature": 0,
        "max_tokens": 8,
        "logit_bias": {"5": -100},
        "stop_token_ids": [EOS, 9],
        "detokenize": False,
        "logprobs": 0,
        "prompt_logprobs": 0,
    }
    assert answer.tokens == [22, EOS]
    np.testing.assert_allclose(answer.log_probs, [-0.22, -0.02], rtol=1e-6)
    np.testing.assert_allclose(answer.prompt_log_probs, [-2.0, -2.1], rtol=1e-6)
    assert answer.prompt_ranks.tolist() == [19, 20]
    assert (answer.log_probs.dtype, answer.prompt_log_probs.dtype, answer.prompt_ranks.dtype) == ("float32", "float32", "int64")


def test_without_scored_tokens_no_prompt_log_probabilities_are_asked_for() -> None:
    with serving() as (server, vllm):
        (answer,) = vllm.generate([request(20, bias={7: 3.0})])
        sampling = server.seen[0]["sampling_params"]
    assert "prompt_logprobs" not in sampling
    assert sampling["logit_bias"] == {"5": -100, "7": 3.0}
    assert len(answer.prompt_log_probs) == len(answer.prompt_ranks) == 0


def test_answers_come_in_the_order_of_the_requests_and_few_are_in_flight() -> None:
    inside, most, gate = 0, 0, threading.Lock()
    two = threading.Barrier(2)

    def count() -> None:
        nonlocal inside, most
        with gate:
            inside += 1
            most = max(most, inside)
        two.wait(10)  # nobody is answered before another has come
        with gate:
            inside -= 1

    with serving({"before_answer": count}, in_flight=2) as (server, vllm):
        answers = vllm.generate([request(100 + i) for i in range(12)])
    assert [answer.tokens[0] for answer in answers] == [101 + i for i in range(12)]
    assert most == 2
    assert len(server.clients) == 2  # connections, kept


def test_nothing_to_send_is_nothing_answered() -> None:
    with serving() as (_, vllm):
        assert vllm.generate([]) == []


def test_several_threads_may_use_one_client() -> None:
    with serving() as (_, vllm):
        results: dict[int, int] = {}

        def ask(number: int) -> None:
            results[number] = vllm.generate([request(number)])[0].tokens[0]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(10, 18)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert results == {number: number + 1 for number in range(10, 18)}


# what may pass


@pytest.mark.parametrize(
    "fault",
    [(0, b""), (200, b""), (200, b"<html>"), (429, b"slow down"), (500, b"oops"), (502, b""), (503, b"starting"), (504, b"")],
    ids=["dropped", "empty", "not JSON", "429", "500", "502", "503", "504"],
)
def test_what_may_pass_is_tried_again(fault: tuple[int, bytes]) -> None:
    with serving({"faults": [fault, fault]}) as (_, vllm):
        assert [answer.tokens[0] for answer in vllm.generate([request(20), request(30)])] == [21, 31]


def test_an_overloaded_server_is_waited_for_longer_than_an_internal_error_is_believed_to_pass() -> None:
    with serving({"faults": [(503, b"")] * 9}) as (server, vllm):
        assert vllm.generate([request(20)])[0].tokens == [21, EOS]
    error = b'{"error":{"message":"EngineCore encountered an issue.","code":500}}'
    with serving({"faults": [(500, error)] * 9}) as (server, vllm):
        with pytest.raises(VLLMError, match=r"row 1 of 1: .*generate: 500, EngineCore encountered an issue.; tried 3 times"):
            vllm.generate([request(20)])
        assert len(server.headers) == 3


def test_patience_has_an_end() -> None:
    with (
        serving({"faults": [(503, b"busy")] * 1000}, patience_s=0.1) as (_, vllm),
        pytest.raises(VLLMError, match=r"503, busy; tried \d+ times"),
    ):
        vllm.generate([request(20)])


def test_a_server_that_restarts_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    vllm = VLLMClient(f"http://127.0.0.1:{port}", "model", PLACEHOLDER, patience_s=0.05)
    with caplog.at_level(logging.WARNING, "simulsa"), pytest.raises(VLLMError, match=r"Cannot connect .*; tried \d+ times"):
        vllm.generate([request(20), request(30)])
    assert len(caplog.records) == 1  # not one for each row and try
    vllm.close()


# what will not pass


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((400, b'{"error":{"message":"The audio (len=0) is too short"}}'), r"400, The audio \(len=0\) is too short"),
        ((401, b'{"error":"Unauthorized"}'), "401, .*Unauthorized"),
        ((404, b'{"detail":"Not Found"}'), "404; start vLLM with --enable-scale-out"),
        ((200, b"[1]"), "a list where a JSON object was expected"),
    ],
)
def test_what_will_not_pass_is_an_error_at_once(fault: tuple[int, bytes], message: str) -> None:
    with serving({"faults": [fault]}) as (server, vllm):
        with pytest.raises(VLLMError, match=rf"{server.url}: row 1 of 1: /inference/v1/generate: {message}"):
            vllm.generate([request(20)])
        assert len(server.headers) == 1


def test_an_error_names_its_row_and_ends_the_batch() -> None:
    with serving(in_flight=1) as (server, vllm):
        with pytest.raises(VLLMError, match=r"row 2 of 9: .*max_tokens must be at least 1"):
            vllm.generate([request(20 + i, max_tokens=0 if i == 1 else 8) for i in range(9)])
        assert vllm.generate([request(20)])[0].tokens == [21, EOS]  # comes behind all that is still to be sent
        assert len(server.seen) <= 4


def test_audio_that_was_cut_or_not_heard_is_an_error() -> None:
    def deaf(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "prompt_token_ids": [token for token in answer["prompt_token_ids"] if token != PLACEHOLDER]}

    with (
        serving({"change": deaf}) as (_, vllm),
        pytest.raises(VLLMError, match="read 3 tokens, 0 of them audio, where 7, 4 of them audio, were meant"),
    ):
        vllm.generate([request(20)])
    with (
        serving({"change": lambda answer: {**answer, "prompt_token_ids": None}}) as (_, vllm),
        pytest.raises(VLLMError, match="does not say which prompt it belongs to"),
    ):
        vllm.generate([request(20)])


def without(name: str) -> Any:
    def change(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][0][name] = None
        return answer

    return change


@pytest.mark.parametrize("name", ["token_ids", "logprobs"])
def test_an_answer_that_lacks_what_was_asked_for_is_an_error(name: str) -> None:
    with serving({"change": without(name)}) as (_, vllm), pytest.raises(VLLMError, match="lacks what was asked for"):
        vllm.generate([request(20)])


def test_scores_of_other_tokens_are_no_scores() -> None:
    with (
        serving({"change": lambda answer: {**answer, "prompt_logprobs": [None, {"1": {}}]}}) as (_, vllm),
        pytest.raises(VLLMError, match="lacks what was asked for"),
    ):
        vllm.generate([request(20, scored=1)])


def test_a_context_that_ends_is_not_the_end_of_a_translation() -> None:
    def short(answer: dict[str, Any]) -> dict[str, Any]:
        choice = answer["choices"][0]
        choice.update(token_ids=[21], finish_reason="length", logprobs={"content": choice["logprobs"]["content"][:1]})
        return answer

    with serving({"change": short}) as (_, vllm):
        assert vllm.generate([request(20, max_tokens=1)])[0].tokens == [21]
        with pytest.raises(VLLMError, match=r"context ended after 1 of 8 tokens behind a prompt of 7; .*--max-model-len"):
            vllm.generate([request(20)])


def test_an_aborted_answer_is_an_error() -> None:
    def aborted(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][0]["finish_reason"] = "abort"
        return answer

    with serving({"change": aborted}) as (_, vllm), pytest.raises(VLLMError, match="ended by 'abort'"):
        vllm.generate([request(20)])


# the server


def test_a_server_says_what_it_is() -> None:
    with serving({"roots": {"model": "/models/base"}}) as (_, vllm):
        assert vllm.use(["adapter"]) == vllm_client.Server(
            "0.32.0", {"model": 512, "adapter": 512}, {"model": "/models/base", "adapter": "adapter"}
        )


def test_a_model_that_the_server_has_not_is_an_error() -> None:
    with (
        serving() as (_, vllm),
        pytest.raises(VLLMError, match="has no model 'other'; it serves 'model', 'adapter': choose one with --engine-model"),
    ):
        vllm.use(["other"])


@pytest.mark.parametrize(("names", "found"), [(["x", "adapter"], "adapter"), (["/models/base"], "model"), (["model"], "model")])
def test_a_model_is_found_by_its_name_or_by_its_place(names: list[str], found: str) -> None:
    with serving({"roots": {"model": "/models/base", "adapter": "model"}}, model="x") as (server, vllm):
        vllm.use(names)
        vllm.generate([request(20)])
        assert server.seen[0]["model"] == found


def test_a_placeholder_that_no_word_stands_for_is_not_ruled_out() -> None:
    with serving(vocabulary_size=PLACEHOLDER) as (server, vllm):
        vllm.generate([request(20)])
        assert server.seen[0]["sampling_params"]["logit_bias"] == {}


def test_a_number_that_is_none_is_an_error_at_once() -> None:
    with serving({"faults": [(200, b'{"choices": [-Infinity]}')]}) as (server, vllm):
        with pytest.raises(VLLMError, match="-Infinity"):
            vllm.generate([request(20)])
        assert len(server.headers) == 1


# audio


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-32_768, 32_767), min_size=1, max_size=50))
def test_sixteen_bits_are_sent_as_they_are(values: list[int]) -> None:
    audio = np.array(values, dtype=np.float32) / 32_768
    encoded = encode_audio(audio)
    assert len(encoded) <= (44 + 2 * len(audio) + 2) * 4 / 3
    np.testing.assert_array_equal(audio_of(part(encoded)), audio)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=50))
def test_no_sample_is_changed(values: list[float]) -> None:
    audio = np.array(values, dtype=np.float32)
    np.testing.assert_array_equal(audio_of(part(encode_audio(audio))), audio)


def part(encoded: str) -> dict[str, Any]:
    return {"content_parts": [{"type": "audio_url", "url": f"data:audio/wav;base64,{encoded}"}]}
