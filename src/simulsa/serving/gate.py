"""Access control: API keys and cross-origin requests."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from simulsa.serving.config import LOOPBACK, ServeConfig

KEY_PROTOCOL = "openai-insecure-api-key."  # how OpenAI's browser clients, which cannot set headers, send a key
PROTOCOL = "realtime"  # the subprotocol that goes with it


class Gate:
    """Decides which connections to accept. A `connection` is a request or WebSocket of Starlette."""

    def __init__(self, config: ServeConfig, keys: Sequence[str]) -> None:
        self._config = config
        self._keys = [key.encode() for key in keys]

    def problem(self, connection: Any) -> tuple[int, str] | None:
        """HTTP status and reason for rejecting a connection; `None` to accept it."""
        origin = connection.headers.get("origin")
        if origin is not None and not self._is_welcome(origin, connection.headers.get("host", "")):
            return 403, f"pages of {origin} may not use this server; start it with --allow-origins {origin}"
        if self._keys and not any(self._fits(key) for key in _shown_keys(connection)):
            return 401, "a key is needed: Authorization: Bearer KEY, or ?api_key=KEY where headers cannot be set"
        return None

    def _fits(self, shown: str) -> bool:
        # all are compared, in constant time, so that the timing reveals nothing
        return sum(hmac.compare_digest(shown.encode(), key) for key in self._keys) > 0

    def _is_welcome(self, origin: str, host: str) -> bool:
        if "*" in self._config.allow_origins or origin in self._config.allow_origins:
            return True
        # a name that was made to point here (DNS rebinding) has matching origin and host, but is not a name of this machine
        try:
            place = urlsplit(origin)
        except ValueError:  # no address at all, such as http://[
            return False
        return place.netloc == host and (place.hostname in LOOPBACK or not self._config.is_loopback)


def _shown_keys(connection: Any) -> Iterable[str]:
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield key.strip()
    if "api_key" in connection.query_params:
        yield connection.query_params["api_key"]
    for name in connection.scope.get("subprotocols", ()):
        if name.startswith(KEY_PROTOCOL):
            yield name.removeprefix(KEY_PROTOCOL)
