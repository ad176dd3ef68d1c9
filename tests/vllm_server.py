"""A scripted stand-in for vLLM's HTTP server on a free loopback port: the requests, answers and errors of vLLM 0.32."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import soundfile

PLACEHOLDER, EOS = 5, 2
SAMPLES_PER_TOKEN = 1000
Reply = tuple[int, bytes]  # status and body; status 0 closes the connection without an answer


@dataclass
class Scripted:
    """Answers prompts by `answer`; `faults` are given out first, one a request, and a server that is `dead` drops connections."""

    answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda request: answer(request)
    dead: bool = False
    roots: dict[str, str] = field(default_factory=dict)
    context: int = 512
    faults: list[Reply] = field(default_factory=list)
    change: Callable[[dict[str, Any]], Any] = lambda answer: answer
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    clients: set[tuple[str, int]] = field(default_factory=set)
    url: str = ""
    models: tuple[str, ...] = ("model", "adapter")
    before_answer: Callable[[], None] = lambda: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, path: str, body: bytes) -> Reply:
        with self.lock:
            if self.faults:
                return self.faults.pop(0)
        if self.dead:
            return 0, b""
        if path == "/version":
            return _json({"version": "0.32.0"})
        if path == "/v1/models":
            return _json({"data": [self.card(name) for name in self.models]})
        if path != "/inference/v1/generate":
            return 404, b'{"detail":"Not Found"}'
        request = json.loads(body)
        with self.lock:
            self.seen.append(request)
        self.before_answer()
        if self.dead:
            return 0, b""
        if request["model"] not in self.models:
            return _json({"error": {"message": f"The model `{request['model']}` does not exist.", "code": 404}}, 404)
        if request["sampling_params"]["max_tokens"] < 1:
            return _json({"error": {"message": "max_tokens must be at least 1, got 0.", "code": 400}}, 400)
        try:
            return _json(self.change(self.answer(request)))
        except Exception as error:
            return _json({"error": {"message": f"the stand-in failed: {error!r}", "code": 500}}, 500)

    def card(self, name: str) -> dict[str, Any]:
        return {"id": name, "root": self.roots.get(name), "max_model_len": None if name == "adapter" else self.context}


def audio_of(request: dict[str, Any]) -> np.ndarray:
    """The clip that a request carries, float32."""
    (part,) = request["content_parts"]
    data = base64.b64decode(part["url"].removeprefix("data:audio/wav;base64,"))
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == 16_000
    return np.asarray(samples)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What vLLM says to a request, as far as the client reads it: the prompt's last token plus one, then EOS."""
    heard = [PLACEHOLDER] * -(-len(audio_of(request)) // SAMPLES_PER_TOKEN)
    place = request["token_ids"].index(PLACEHOLDER)
    prompt = [*request["token_ids"][:place], *heard, *request["token_ids"][place + 1 :]]
    sampling = request["sampling_params"]
    tokens = [prompt[-1] + 1, EOS][: sampling["max_tokens"]]
    scores, log_probs = [(-token / 10, token) for token in prompt[1:]], [-token / 100 for token in tokens]
    return as_vllm(request, prompt, scores, tokens, log_probs, ended=tokens[-1] == EOS)


def as_vllm(
    request: dict[str, Any],
    prompt: list[int],
    scores: list[tuple[float, int]],
    tokens: list[int],
    log_probs: list[float],
    ended: bool,
) -> dict[str, Any]:
    """An answer in vLLM's words; `scores` are log-probabilities and ranks, from 1, of the prompt's tokens behind the first."""
    given = [
        {str(token): {"logprob": logprob, "rank": rank, "decoded_token": None}}
        for token, (logprob, rank) in zip(prompt[1:], scores, strict=True)
    ]
    content = [
        {"token_id": token, "logprob": log_prob, "rank": 1, "top_logprobs": []}
        for token, log_prob in zip(tokens, log_probs, strict=True)
    ]
    return {
        "model": request["model"],
        "prompt_token_ids": prompt if request.get("return_token_ids") else None,
        "prompt_logprobs": [None, *given] if request["sampling_params"].get("prompt_logprobs") is not None else None,
        "choices": [
            {
                "index": 0,
                "token_ids": tokens,
                "finish_reason": "stop" if ended else "length",
                "logprobs": {"content": content},
            }
        ],
    }


@contextlib.contextmanager
def scripted(**script: Any) -> Iterator[Scripted]:
    """A server that answers by a script."""
    server = Scripted(**script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.headers.append(dict(self.headers))
            server.clients.add(self.client_address)
            status, content = server.reply(self.path, body)
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


def _json(value: Any, status: int = 200) -> Reply:
    return status, json.dumps(value).encode()
