"""A stand-in for vLLM with a model behind it: the requests go over HTTP, the answers are computed by transformers."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs simulsa[engine]")

from simulsa.lalm import vllm_client
from simulsa.lalm.frontend import PreparedClip
from simulsa.lalm.interface import Want
from simulsa.languages import Direction
from tests.vllm_server import Scripted, as_vllm, audio_of, scripted

EN_DE = Direction("en", "de")  # any: the prompt is the request's


@dataclass
class Behind:
    """Answers requests by the models that a server has, by name; without the plugin the placeholder is not ruled out."""

    lalms: dict[str, Any]
    plugin: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            return self._answered(self.lalms[request["model"]], request)

    def _answered(self, lalm: Any, request: dict[str, Any]) -> dict[str, Any]:
        sampling, placeholder = request["sampling_params"], lalm.audio_token_id
        assert sampling["temperature"] == 0
        # a clip that is shorter than an audio token is not sent
        clip = lalm.frontend.prepare(audio_of(request) if "content_parts" in request else np.zeros(1, np.float32), EN_DE)
        prompt = list(request["token_ids"])
        if placeholder in prompt:
            place = prompt.index(placeholder)
            prompt[place : place + 1] = [placeholder] * clip.prompt.count(placeholder)
        last = max((place for place, token in enumerate(prompt) if token == placeholder), default=0) + 1
        both = [PreparedClip(ids, clip.features, clip.samples) for ids in (prompt[:last], prompt)]
        before, whole = (lalm.listen([clip])[0] for clip in both)
        scores = [(-1.0, 1)] * (last - 1)
        if sampling.get("prompt_logprobs") is None:
            scores += [(0.0, 1)] * (len(prompt) - last)
        else:
            (found,) = lalm.score([before], [prompt[last:]])
            scores += [(float(one), int(rank) + 1) for one, rank in zip(found.log_probs, found.ranks, strict=True)]
        if not self.plugin and sampling["logit_bias"].get(str(placeholder), 0) > 0:
            return as_vllm(request, prompt, scores, [placeholder], [-9.0], ended=False)
        short = copy.copy(lalm)
        short.max_target_tokens = sampling["max_tokens"]
        (said,) = short.continue_([whole], [[]], None, Want(log_probs=True))
        assert said.log_probs is not None
        ended = not said.truncated
        tokens, log_probs = [*said.tokens, *[lalm.eos_id] * ended], [*map(float, said.log_probs), *[-0.1] * ended]
        return as_vllm(request, prompt, scores, tokens, log_probs, ended)


@contextlib.contextmanager
def engine(lalms: dict[str, Any], plugin: bool = True, **script: Any) -> Iterator[Scripted]:
    """A server that has these models, by name."""
    with scripted(answer=Behind(lalms, plugin), models=tuple(lalms), **script) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that are away are given up soon."""
    monkeypatch.setattr(vllm_client, "_FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(vllm_client, "_LONGEST_DELAY_S", 0.02)
    original = vllm_client.VLLMClient.__init__

    def impatient(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **{"patience_s": 0.1, **options})

    monkeypatch.setattr(vllm_client.VLLMClient, "__init__", impatient)
