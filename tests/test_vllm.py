"""The plugin and the client with a real vLLM process (`make vllm`): the same tokens and scores as in this process."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs vLLM: make vllm", allow_module_level=True)

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.interface import Direction
from simulsa.lalm.load import load
from simulsa.lalm.parts import EMBEDDED_MODELS
from simulsa.lalm.vllm_client import Answer, Request, VLLMClient, encode_audio
from tests.vllm_process import VLLMProcess, embedded_model, random_model, vllm_process

EN_DE = Direction("en", "de")
LONGEST = 40  # tokens


@dataclass
class Pair:
    """A model in this process and the same on a server."""

    here: Any
    server: VLLMProcess
    name: str

    def client(self) -> VLLMClient:
        return VLLMClient(self.server.url, self.name, self.here.audio_token_id, self.here.eos_ids)

    def ask(self, clips: Sequence[np.ndarray], suffixes: Sequence[Sequence[int]], **fields: Any) -> list[Answer]:
        """What the server says behind `suffixes`, or how it scores them."""
        requests = []
        for clip, suffix in zip(clips, suffixes, strict=True):
            prompt = self.here.prompts([clip], [EN_DE])[0][0]
            given = {"max_tokens": max(LONGEST - len(suffix), 1), **fields}
            if given.get("scored"):
                given["scored"] = len(suffix)
            requests.append(Request([*prompt, *suffix], encode_audio(clip), **given))
        with self.client() as vllm:
            return vllm.generate(requests)


def loaded(name: str) -> Any:
    lalm = load(name, "cpu")
    lalm.max_target_tokens = LONGEST
    return lalm


@pytest.fixture(scope="module")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, VLLMProcess]]:
    place = tmp_path_factory.mktemp("vllm")
    folder = embedded_model(place / "model")
    adapter = f"simul={EMBEDDED_MODELS / 'tiny-en-de-simul'}"
    with vllm_process(folder, place / "log", "--enable-lora", "--max-lora-rank", "8", "--lora-modules", adapter) as server:
        yield folder, server


@pytest.fixture(scope="module")
def random_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, VLLMProcess]]:
    place = tmp_path_factory.mktemp("vllm")
    folder = random_model(place / "model")
    with vllm_process(folder, place / "log") as server:
        yield folder, server


@pytest.fixture(params=["embedded", "adapter", "random"])
def pair(request: pytest.FixtureRequest) -> Pair:
    if request.param == "random":
        folder, server = request.getfixturevalue("random_server")
        return Pair(loaded(str(folder)), server, str(folder))
    folder, server = request.getfixturevalue("embedded_server")
    if request.param == "adapter":
        return Pair(loaded("tiny-en-de-simul"), server, "simul")
    return Pair(loaded(str(folder)), server, str(folder))


def clips(count: int, longest_s: float) -> list[np.ndarray]:
    """Chirps in noise, of different lengths."""
    rng = np.random.default_rng(0)
    sounds = []
    for i in range(count):
        time = np.arange(int(rng.uniform(0.06, longest_s) * SAMPLE_RATE)) / SAMPLE_RATE
        chirp = 0.3 * np.sin(2 * np.pi * (100 + 20 * i + 150 * rng.random() * time) * time)
        sounds.append((chirp + 0.05 * rng.standard_normal(len(time))).astype(np.float32))
    return sounds


def test_continuations_are_the_same(pair: Pair) -> None:
    sounds = clips(60, longest_s=6)
    free = pair.here.continue_(sounds, [[] for _ in sounds], [EN_DE] * len(sounds))
    assert len({tuple(tokens) for tokens in free}) > 20  # the clips are told apart
    for share in (0.0, 0.5, 1.0):
        prefixes = [tokens[: int(share * len(tokens))][: LONGEST - 1] for tokens in free]
        here = pair.here.continue_(sounds, prefixes, [EN_DE] * len(sounds))
        there = [pair.here._finish(answer.tokens, LONGEST) for answer in pair.ask(sounds, prefixes)]
        assert there == here


def test_log_probabilities_of_a_continuation_are_those_of_its_scores(pair: Pair) -> None:
    sounds = clips(8, longest_s=6)
    answers = pair.ask(sounds, [[] for _ in sounds])
    scores = pair.here.score(sounds, [answer.tokens for answer in answers], [EN_DE] * len(sounds))
    for answer, expected in zip(answers, scores, strict=True):
        np.testing.assert_allclose(answer.log_probs, expected.log_probs, atol=1e-4)


def test_scores_are_the_same(pair: Pair) -> None:
    sounds = clips(24, longest_s=6)
    said = pair.here.continue_(sounds, [[] for _ in sounds], [EN_DE] * len(sounds))
    targets = [tokens[:12] or [pair.here.eos_id] for tokens in (*said[1:], said[0])]
    here = pair.here.score(sounds, targets, [EN_DE] * len(sounds))
    for answer, expected in zip(pair.ask(sounds, targets, max_tokens=1, scored=1), here, strict=True):
        np.testing.assert_allclose(answer.prompt_log_probs, expected.log_probs, atol=1e-4)
        # among hundreds of words that the model would never say, two may be closer than rounding
        likely = expected.ranks < 100
        np.testing.assert_array_equal(answer.prompt_ranks[likely], expected.ranks[likely])
        np.testing.assert_allclose(answer.prompt_ranks, expected.ranks, atol=1)


def test_the_longest_clip_is_heard_whole(pair: Pair) -> None:
    sound = clips(1, longest_s=1)[0]
    longest = np.resize(sound, pair.here.max_samples)
    here = pair.here.continue_([longest], [[]], [EN_DE])[0]
    assert pair.here._finish(pair.ask([longest], [[]])[0].tokens, LONGEST) == here


def test_the_placeholder_is_never_said(pair: Pair) -> None:
    placeholder = pair.here.audio_token_id
    (answer,) = pair.ask(clips(1, longest_s=2), [[]], bias={placeholder: 100.0})
    assert placeholder not in answer.tokens


def test_a_server_says_what_it_is(pair: Pair) -> None:
    with pair.client() as vllm:
        about = vllm.server()
    assert about.version.count(".") >= 2
    assert about.contexts[pair.name] >= 512
