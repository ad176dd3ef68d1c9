"""A real vLLM process (`make vllm`): what comes from it is what the model says in this process."""

from __future__ import annotations

import importlib.util
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs vLLM: make vllm", allow_module_level=True)

import httpx2

from simulsa.audio import SAMPLE_RATE
from simulsa.augmentation.augment import augment
from simulsa.augmentation.config import AugmentConfig
from simulsa.demo.speech import DATA
from simulsa.evaluation.config import EvaluateConfig
from simulsa.evaluation.evaluate import evaluate
from simulsa.lalm.engine import EngineLALM
from simulsa.lalm.interface import LALMError, Want
from simulsa.lalm.load import load
from simulsa.lalm.parts import EMBEDDED_MODELS
from simulsa.lalm.vllm_client import Request
from simulsa.languages import Direction
from simulsa.manifest import Utterance, read_manifest
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.stream import Stream
from tests.lalms import sentences
from tests.servers import events_until, expected, pcm, running, say, talking, transcript
from tests.vllm_process import VLLMProcess, embedded_model, random_model, vllm_process

EN_DE = Direction("en", "de")
LONGEST = 40  # tokens
ADAPTER = "simul"
LORA = ("--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"{ADAPTER}={EMBEDDED_MODELS / 'tiny-en-de-simul'}")


@dataclass
class Pair:
    """A model in this process and the same on a server."""

    here: Any
    there: EngineLALM

    def heard(self, sounds: Sequence[np.ndarray]) -> tuple[list[Any], list[Any]]:
        directions = [EN_DE] * len(sounds)
        return self.here.hear(sounds, directions), self.there.hear(sounds, directions)


@dataclass(frozen=True)
class Served:
    """A model's folder and the server that has it."""

    folder: Path
    process: VLLMProcess
    place: Path

    def engine(self, model: str = "", name: str = "") -> Any:
        lalm = load(model or str(self.folder), dtype="float32", engine_url=self.process.url, engine_model=name)
        assert isinstance(lalm, EngineLALM)
        lalm.max_target_tokens = LONGEST
        return lalm


def in_this_process(name: str) -> Any:
    lalm = load(name, "cpu")
    lalm.max_target_tokens = LONGEST
    return lalm


@pytest.fixture(scope="module")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("vllm")
    folder = embedded_model(place / "model")
    with vllm_process(folder, place / "log", *LORA) as process:
        yield Served(folder, process, place)


@pytest.fixture(scope="module")
def random_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("vllm")
    folder = random_model(place / "model")
    with vllm_process(folder, place / "log") as process:
        yield Served(folder, process, place)


@pytest.fixture(scope="module")
def embedded(embedded_server: Served) -> Pair:
    return Pair(in_this_process(str(embedded_server.folder)), embedded_server.engine())


@pytest.fixture(scope="module")
def adapter(embedded_server: Served) -> Pair:
    return Pair(in_this_process("tiny-en-de-simul"), embedded_server.engine("tiny-en-de-simul", ADAPTER))


@pytest.fixture(scope="module")
def random(random_server: Served) -> Pair:
    return Pair(in_this_process(str(random_server.folder)), random_server.engine())


@pytest.fixture(params=["embedded", "adapter", "random"])
def pair(request: pytest.FixtureRequest) -> Pair:
    found: Pair = request.getfixturevalue(request.param)
    return found


def test_what_the_server_is_found_to_be(pair: Pair) -> None:
    assert pair.there.exact
    assert pair.there.approximate == ""
    assert pair.there.signature.startswith(f"{pair.here.content}+vllm-0.")
    assert pair.there.signature.endswith("+float32")
    assert pair.there.max_samples == pair.here.max_samples
    assert pair.there.vocabulary_size == pair.here.vocabulary_size


def test_continuations_are_the_same(pair: Pair) -> None:
    sounds = [*sentences(59, longest_s=6), np.zeros(300, np.float32)]
    ours, theirs = pair.heard(sounds)
    free = [said.tokens for said in pair.here.continue_(ours, [[] for _ in sounds])]
    assert len({tuple(tokens) for tokens in free}) > 20  # the clips are told apart
    for share in (0.0, 0.5, 1.0):
        prefixes = [tokens[: int(share * len(tokens))] for tokens in free]
        here = pair.here.continue_(ours, prefixes)
        there = pair.there.continue_(theirs, prefixes)
        assert [(said.tokens, said.truncated) for said in there] == [(said.tokens, said.truncated) for said in here]


def test_log_probabilities_come_along(pair: Pair) -> None:
    ours, theirs = pair.heard(sentences(8, longest_s=6))
    here = pair.here.continue_(ours, [[]] * 8, None, Want(log_probs=True))
    there = pair.there.continue_(theirs, [[]] * 8, None, Want(log_probs=True))
    for said, meant in zip(there, here, strict=True):
        np.testing.assert_allclose(said.log_probs, meant.log_probs, atol=1e-4)


def test_scores_are_the_same(pair: Pair, request: pytest.FixtureRequest) -> None:
    ours, theirs = pair.heard(sentences(24, longest_s=6))
    said = [said.tokens for said in pair.here.continue_(ours, [[]] * 24)]
    targets = [tokens[:12] for tokens in (*said[1:], said[0])]
    here, there = pair.here.score(ours, targets), pair.there.score(theirs, targets)
    for found, meant in zip(there, here, strict=True):
        np.testing.assert_allclose(found.log_probs, meant.log_probs, atol=1e-4)
        np.testing.assert_allclose(found.ranks, meant.ranks, atol=1)
    # two words may be closer than rounding: among hundreds that the model would never say, or anywhere with random weights
    likely = np.concatenate([scores.ranks for scores in here]) < 100
    same = np.concatenate([found.ranks == meant.ranks for found, meant in zip(there, here, strict=True)])
    assert same[likely].mean() >= (0.98 if "random" in request.node.name else 1)


def test_the_longest_clip_is_heard_whole(pair: Pair) -> None:
    ours, theirs = pair.heard([np.resize(sentences(1, longest_s=1)[0], pair.here.max_samples)])
    assert pair.there.continue_(theirs, [[]])[0].tokens == pair.here.continue_(ours, [[]])[0].tokens


def test_the_placeholder_is_never_said(pair: Pair) -> None:
    placeholder = pair.here.audio_token_id
    (clip,) = pair.there.hear(sentences(1, longest_s=2), [EN_DE])
    (answer,) = pair.there.client.generate([Request(clip.prompt, clip.audio, 8, bias={placeholder: 100.0})])
    assert placeholder not in answer.tokens


# the commands' work, on speech


def rows(count: int) -> list[Utterance]:
    return read_manifest(DATA / "test.jsonl")[:count]


def without_model(made: list[Utterance]) -> list[dict[str, Any]]:
    return [{**vars(row), "made_by": {**(row.made_by or {}), "model": "", "run": ""}} for row in made]


AUGMENT = AugmentConfig(num=16, batch_size=4, preflight=False)
EVALUATE = EvaluateConfig(chunk_ms=(1000, float("inf")), rollback=(0, 3), batch_size=8, preflight=False)


def test_augmented_rows_are_the_same(embedded: Pair) -> None:
    here, there = (augment(rows(16), lalm, AUGMENT) for lalm in (embedded.here, embedded.there))
    assert without_model(there) == without_model(here)
    assert any(row.target_tokens for row in here)


def test_a_table_of_an_evaluation_is_the_same(adapter: Pair) -> None:
    here, there = (table(evaluate(lalm, rows(8), EVALUATE).scores) for lalm in (adapter.here, adapter.there))
    assert there == here


def table(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**score, "signature": ""} for score in scores]


def test_a_live_session_over_each_protocol(adapter: Pair) -> None:
    stream, audio = StreamConfig(chunk_ms=800, rollback=2), rows(1)[0].load()
    with running(adapter.there, stream, max_lag_chunks=1e6) as server:  # however slow the machine is
        data = pcm(audio)
        with talking(server) as socket:
            for start in range(0, len(data), 9_600):
                say(socket, "session.input_audio_buffer.append", audio=as_base64(data[start : start + 9_600]))
            say(socket, "session.close")
            assert transcript(events_until(socket, "session.closed")) == expected(adapter.here, data, 24_000, stream)
        with server.connect("/simulstream") as socket:
            socket.send(json.dumps({"sample_rate": SAMPLE_RATE, "source_lang": "en", "target_lang": "de"}))
            socket.send(data)
            socket.send(json.dumps({"end_of_stream": True}))
            assert simulstream_text(socket) == expected(adapter.here, data, SAMPLE_RATE, stream)
        file = io.BytesIO()
        soundfile.write(file, audio, SAMPLE_RATE, format="WAV", subtype="FLOAT")
        upload = {"files": {"file": ("a.wav", file.getvalue())}, "timeout": 120}
        answer = httpx2.post(f"{server.url}/v1/audio/translations", **upload)
        here = Stream(adapter.here, stream)
        here.push(audio)
        assert answer.json()["text"] == here.finish()[-1].committed != ""


def as_base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def simulstream_text(socket: Any) -> str:
    text = ""
    while "end_of_processing" not in (answer := json.loads(socket.recv(timeout=120))):
        text += answer["new"]
    return text


# the last test: it ends the server


def test_a_server_that_is_killed_in_the_middle(embedded: Pair, embedded_server: Served, tmp_path: Path) -> None:
    """`augment` and `evaluate` are both at work when it dies, and go on when it is back."""
    out, scores = tmp_path / "rows.jsonl", tmp_path / "scores"
    config = EvaluateConfig(chunk_ms=(1000, 2000), rollback=(0,), batch_size=8, preflight=False, out=scores)
    dead = threading.Barrier(2, action=embedded_server.process.kill, timeout=300)
    errors: dict[str, Exception] = {}

    def attempt(name: str, work: Callable[[Any], Any], is_in_the_middle: Callable[[], bool]) -> None:
        lalm = embedded_server.engine()
        lalm.client.patience_s = 2.0
        generate = lalm.client.generate

        def watched(requests: Sequence[Request]) -> Any:
            if is_in_the_middle() and not dead.broken and not embedded_server.process.process.poll():
                dead.wait()
            return generate(requests)

        lalm.client.generate = watched
        try:
            work(lalm)
        except Exception as error:
            errors[name] = error

    journal = out.with_suffix(".partial.jsonl")
    threads = [
        threading.Thread(target=attempt, args=arguments)
        for arguments in (
            ("augment", lambda lalm: augment(rows(16), lalm, AUGMENT, out), journal.exists),
            ("evaluate", lambda lalm: evaluate(lalm, rows(8), config), (scores / "scores.json").exists),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert set(errors) == {"augment", "evaluate"}
    assert all(isinstance(error, LALMError) for error in errors.values()), errors
    assert not out.exists()
    assert len(journal.read_text(encoding="utf-8").splitlines()) < 16
    assert [score["chunk_ms"] for score in json.loads((scores / "scores.json").read_text(encoding="utf-8"))] == [1000]

    port = int(embedded_server.process.url.rpartition(":")[2])
    with vllm_process(embedded_server.folder, embedded_server.place / "log-again", *LORA, port=port):
        lalm = embedded_server.engine()
        assert without_model(augment(rows(16), lalm, AUGMENT, out)) == without_model(augment(rows(16), embedded.here, AUGMENT))
        alone = EvaluateConfig(chunk_ms=(1000, 2000), rollback=(0,), batch_size=8, preflight=False)
        assert table(evaluate(lalm, rows(8), config).scores) == table(evaluate(embedded.here, rows(8), alone).scores)
