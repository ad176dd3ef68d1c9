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
    """Answers every prompt with its last token plus one, then EOS; `faults` are given out first, one a request."""

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
        if path == "/version":
            return _json({"version": "0.32.0"})
        if path == "/v1/models":
            return _json({"data": [{"id": name, "max_model_len": None if name == "adapter" else 512} for name in self.models]})
        if path != "/inference/v1/generate":
            return 404, b'{"detail":"Not Found"}'
        request = json.loads(body)
        with self.lock:
            self.seen.append(request)
        self.before_answer()
        if request["model"] not in self.models:
            return _json({"error": {"message": f"The model `{request['model']}` does not exist.", "code": 404}}, 404)
        if request["sampling_params"]["max_tokens"] < 1:
            return _json({"error": {"message": "max_tokens must be at least 1, got 0.", "code": 400}}, 400)
        return _json(self.change(answer(request)))


def audio_of(request: dict[str, Any]) -> np.ndarray:
    """The clip that a request carries, float32."""
    (part,) = request["content_parts"]
    data = base64.b64decode(part["url"].removeprefix("data:audio/wav;base64,"))
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == 16_000
    return np.asarray(samples)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What vLLM says to a request, as far as the client reads it."""
    heard = [PLACEHOLDER] * -(-len(audio_of(request)) // SAMPLES_PER_TOKEN)
    place = request["token_ids"].index(PLACEHOLDER)
    prompt = [*request["token_ids"][:place], *heard, *request["token_ids"][place + 1 :]]
    sampling = request["sampling_params"]
    tokens = [prompt[-1] + 1, EOS][: sampling["max_tokens"]]
    scores = [None, *({str(token): {"logprob": -token / 10, "rank": token, "decoded_token": None}} for token in prompt[1:])]
    content = [{"token_id": token, "logprob": -token / 100, "rank": 1, "top_logprobs": []} for token in tokens]
    return {
        "model": request["model"],
        "prompt_token_ids": prompt if request.get("return_token_ids") else None,
        "prompt_logprobs": scores if sampling.get("prompt_logprobs") is not None else None,
        "choices": [
            {
                "index": 0,
                "token_ids": tokens,
                "finish_reason": "stop" if tokens[-1] == EOS else "length",
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
