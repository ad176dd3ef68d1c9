"""HTTP client of vLLM's `/inference/v1/generate`: token ids and audio in, greedy tokens and log-probabilities out.

It handles requests and answers, retries and checks, and knows nothing about translation. Written for vLLM 0.32, which must be
started with `--enable-scale-out`.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from simulsa import strict_json
from simulsa.audio import wav_bytes
from simulsa.extras import optional
from simulsa.lalm.interface import LALMError

GENERATE = "/inference/v1/generate"
IN_FLIGHT = 64  # requests sent to a server at a time; it batches them as it likes
PATIENCE_S = 120.0  # how long to wait for a server that is away, restarting or overloaded
ANSWER_S = 600.0  # how long a server may take to answer a request
_CONNECT_S = 10.0
_KEPT_S = 4.0  # idle connections; vLLM closes them after 5 s, and a request sent at that moment fails
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.25, 8.0
_OVERLOADED = frozenset({408, 425, 429, 502, 503, 504})
_INTERNAL_TRIES = 3  # an internal error may be a crash, or specific to this request
_NEVER = -100.0  # vLLM's lowest logit bias

T = TypeVar("T")
logger = logging.getLogger("simulsa")


class VLLMError(LALMError):
    """A server that cannot be reached, refuses a request or gives an answer that cannot be right."""


class _TemporaryError(Exception):
    """An error that a retry may resolve; `internal` for an internal error of the server."""

    def __init__(self, message: str, internal: bool = False) -> None:
        super().__init__(message)
        self.internal = internal


@dataclass(frozen=True)
class Request:
    """One prompt to continue greedily, to score, or both.

    `prompt` has as many audio placeholders as the clip has audio tokens, as in transformers' processors, followed by the
    committed or scored tokens. `audio` is a WAV file in base64 (see `encode_audio`), or empty if the clip is shorter than an
    audio token. `scored` is the number of tokens at the prompt's end whose log-probabilities are wanted. `bias` adds to logits
    by token id.
    """

    prompt: Sequence[int]
    audio: str
    max_tokens: int
    scored: int = 0
    bias: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """`tokens`, with the end-of-sequence token if it was generated, and `log_probs` float32 `[tokens]`, natural logarithm.

    For the scored tokens of the prompt, `prompt_log_probs` float32 `[scored]` and `prompt_ranks` int64 `[scored]`, from 0.
    """

    tokens: list[int]
    log_probs: np.ndarray
    prompt_log_probs: np.ndarray
    prompt_ranks: np.ndarray


@dataclass(frozen=True)
class Server:
    """What a server reports about itself: vLLM's version and its models.

    For each model and adapter, by name: its longest context in tokens, and the id or folder that it was loaded from.
    """

    version: str
    contexts: dict[str, int]
    sources: dict[str, str]


class VLLMClient:
    """Sends requests to one model of one vLLM server; usable from any thread.

    `model` is the name under which the server has the model or a LoRA adapter, `placeholder` the id of the audio token, which is
    never generated (an id of `vocabulary_size` or more cannot be), and `stop_ids` are what ends an answer besides the model's
    own end-of-sequence tokens. Connections are kept between calls; at most `in_flight` requests are with the server at a time.
    A request that fails for a temporary reason is retried for at most `patience_s`, which is safe: requests change nothing.
    """

    def __init__(
        self,
        url: str,
        model: str,
        placeholder: int,
        stop_ids: Sequence[int] = (),
        key: str = "",
        vocabulary_size: int | None = None,
        in_flight: int = IN_FLIGHT,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.url = url.rstrip("/")
        self.model = model
        self.placeholder = placeholder
        self.stop_ids = list(stop_ids)
        self._ruled_out = {placeholder: _NEVER} if vocabulary_size is None or placeholder < vocabulary_size else {}
        self.patience_s = patience_s
        self._warned = False
        self._aiohttp = optional("aiohttp", "engine", "a model on a vLLM server")
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="vllm-client", daemon=True)
        thread.start()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session = self._run(self._open(headers))
        self._free = asyncio.Semaphore(in_flight)
        self._close = weakref.finalize(self, _shut, self._loop, thread, self._session)  # at the latest when the interpreter exits

    def close(self) -> None:
        """Close the connections; the client cannot be used any more."""
        self._close()

    def use(self, names: Sequence[str]) -> Server:
        """Use from now on the model or adapter that has one of these names, or was loaded from one of them.

        Raises `VLLMError` if the server cannot be reached or has none of them.
        """
        server = self._run(self._server())
        known = {**{source: name for name, source in server.sources.items()}, **{name: name for name in server.contexts}}
        found = next((known[name] for name in names if name in known), None)
        if found is None:
            served = ", ".join(map(repr, server.contexts)) or "none"
            raise VLLMError(f"{self.url}: has no model {names[0]!r}; it serves {served}: choose one with --engine-model")
        self.model = found
        return server

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        """Send all requests, as many at once as may be in flight; returns the answers in the order of the requests.

        Raises `VLLMError` for the first request that fails, and abandons the others.
        """
        return self._run(self._all(requests))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C reaches the waiting thread
            future.cancel()
            raise

    async def _open(self, headers: dict[str, str]) -> Any:
        timeout = self._aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=ANSWER_S)
        connector = self._aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_S)
        return self._aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)

    async def _server(self) -> Server:
        version, models = await self._json("GET", "/version"), await self._json("GET", "/v1/models")
        listed = models.get("data") or []
        contexts = {str(model["id"]): int(model.get("max_model_len") or 0) for model in listed}
        longest = max(contexts.values(), default=0)  # adapters have the context of their base
        return Server(
            str(version.get("version", "unknown")),
            {name: length or longest for name, length in contexts.items()},
            {str(model["id"]): str(model.get("root") or model["id"]) for model in listed},
        )

    async def _all(self, requests: Sequence[Request]) -> list[Answer]:
        tasks = [asyncio.ensure_future(self._one(number, len(requests), request)) for number, request in enumerate(requests)]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _one(self, number: int, count: int, request: Request) -> Answer:
        try:
            async with self._free:
                return self._read(request, await self._json("POST", GENERATE, self._body(request)))
        except VLLMError as error:
            raise VLLMError(f"{self.url}: row {number + 1} of {count}: {error}") from error.__cause__

    def _body(self, request: Request) -> bytes:
        """The JSON of a request. The audio is inserted as is: a JSON encoder would take longer for it than for all the rest."""
        sampling: dict[str, Any] = {
            "temperature": 0,
            "max_tokens": request.max_tokens,
            "logit_bias": {str(token): bias for token, bias in {**self._ruled_out, **request.bias}.items()},
            "stop_token_ids": self.stop_ids,
            "detokenize": False,
            "logprobs": 0,
        }
        if request.scored:
            sampling["prompt_logprobs"] = 0
        rest = {
            "model": self.model,
            "token_ids": self._collapsed(request.prompt),
            "sampling_params": sampling,
            "return_token_ids": True,
        }
        if not request.audio:
            return strict_json.dumps(rest, escape=True).encode("ascii")
        opening = strict_json.dumps(rest, escape=True).removesuffix("}")
        audio = '"content_parts": [{"type": "audio_url", "url": "data:audio/wav;base64,' + request.audio + '"}]'
        return f"{opening}, {audio}}}".encode("ascii")

    def _collapsed(self, prompt: Sequence[int]) -> list[int]:
        """The prompt with one placeholder per clip: vLLM expands every placeholder it finds."""
        previous = [None, *prompt[:-1]]
        return [now for now, before in zip(prompt, previous, strict=True) if now != self.placeholder or before != now]

    async def _json(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """The JSON object that the server answers with, after retries if needed."""
        clock, delay, tries = self._loop.time, _FIRST_DELAY_S, 0
        deadline: float | None = None
        while True:
            try:
                answer = await self._once(method, path, body)
                self._warned = False
                return answer
            except _TemporaryError as error:
                tries += 1
                deadline = clock() + self.patience_s if deadline is None else deadline
                if clock() >= deadline or (error.internal and tries >= _INTERNAL_TRIES):
                    raise VLLMError(f"{error}; tried {tries} times") from error
                if tries > 1 and not self._warned:
                    logger.warning("%s: %s; trying again for %.0f s", self.url, error, self.patience_s)
                    self._warned = True
            await asyncio.sleep(min(delay, max(deadline - clock(), 0)))
            delay = min(2 * delay, _LONGEST_DELAY_S)

    async def _once(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        try:
            headers = {"Content-Type": "application/json"}
            async with self._session.request(method, self.url + path, data=body, headers=headers) as response:
                status, content = int(response.status), await response.read()
        except (TimeoutError, self._aiohttp.ClientError) as error:
            raise _TemporaryError(f"{path}: {str(error) or type(error).__name__}") from error
        if status in _OVERLOADED or status >= 500:
            raise _TemporaryError(f"{path}: {status}, {_message(content)}", internal=status not in _OVERLOADED)
        if status == 404 and path == GENERATE and b'"error"' not in content:
            raise VLLMError(f"{path}: 404; start vLLM with --enable-scale-out, or check the address")
        if status != 200:
            raise VLLMError(f"{path}: {status}, {_message(content)}")
        try:
            answer = strict_json.loads(content)
        except strict_json.NumberError as error:
            raise VLLMError(f"{path}: {error}") from error
        except ValueError as error:
            raise _TemporaryError(f"{path}: {_message(content)} where JSON was expected") from error
        if not isinstance(answer, dict):
            raise VLLMError(f"{path}: a {type(answer).__name__} where a JSON object was expected; is this vLLM?")
        return answer

    def _read(self, request: Request, answer: dict[str, Any]) -> Answer:
        """An answer, checked. Raises `VLLMError` if it belongs to another prompt or lacks what was asked for."""
        self._check_prompt(list(request.prompt), answer.get("prompt_token_ids"))
        try:
            choice = answer["choices"][0]
            tokens = [int(token) for token in choice["token_ids"]]
            log_probs = [float(entry["logprob"]) for entry in choice["logprobs"]["content"]]
            gold = list(request.prompt)[len(request.prompt) - request.scored :]
            given = answer["prompt_logprobs"][-request.scored :] if request.scored else []
            scores = [entry[str(token)] for entry, token in zip(given, gold, strict=True)]
            prompt_log_probs = np.array([score["logprob"] for score in scores], dtype=np.float32)
            prompt_ranks = np.array([score["rank"] for score in scores], dtype=np.int64) - 1  # vLLM counts from 1
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise VLLMError(
                f"the answer lacks what was asked for ({error!r}); run a vLLM version that docs/engines.md lists"
            ) from error
        reason = choice.get("finish_reason")
        if not tokens or len(log_probs) != len(tokens) or reason not in ("stop", "length"):
            raise VLLMError(f"the answer has {len(tokens)} tokens, {len(log_probs)} log-probabilities, and ended by {reason!r}")
        if reason == "length" and len(tokens) < request.max_tokens:
            raise VLLMError(
                f"the server's context ended after {len(tokens)} of {request.max_tokens} tokens behind a prompt of "
                f"{len(request.prompt)}; start vLLM with a larger --max-model-len"
            )
        return Answer(tokens, np.array(log_probs, dtype=np.float32), prompt_log_probs, prompt_ranks)

    def _check_prompt(self, expected: list[int], given: Any) -> None:
        """Check that the model has read the intended prompt: vLLM truncates or drops audio without an error."""
        if given == expected:
            return
        if not isinstance(given, list):
            raise VLLMError("the answer does not say which prompt it belongs to; run a vLLM version that docs/engines.md lists")
        heard, meant = given.count(self.placeholder), expected.count(self.placeholder)
        raise VLLMError(
            f"the server read {len(given)} tokens, {heard} of them audio, where {len(expected)}, {meant} of them audio, were "
            "meant; it has another processor, or audio was cut or not heard"
        )


def encode_audio(audio: np.ndarray) -> str:
    """Base64 of float32 mono `[samples]` at `SAMPLE_RATE` as a WAV file: 16-bit if that is lossless, else float32.

    FLAC would be half as large but take ten times as long to encode.
    """
    with np.errstate(invalid="ignore"):  # samples outside of 16 bits wrap, which the comparison detects
        whole = np.rint(audio * 32_768).astype(np.int16)
    lossless = np.array_equal(whole.astype(np.float32) / 32_768, audio)
    return base64.b64encode(wav_bytes(whole, "PCM_16") if lossless else wav_bytes(audio, "FLOAT")).decode("ascii")


def _message(content: bytes) -> str:
    """The server's own error message, in one line."""
    try:
        said = strict_json.loads(content)
        text = str(said["error"]["message"])
    except (ValueError, KeyError, TypeError):
        text = content.decode("utf-8", "replace")
    line = " ".join(text.split())
    return (line[:300] + " …" if len(line) > 300 else line) or "an empty answer"


def _shut(loop: asyncio.AbstractEventLoop, thread: threading.Thread, session: Any) -> None:
    async def shut() -> None:
        await session.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(shut(), loop)
    if threading.current_thread() is not thread:
        thread.join(_CONNECT_S)
