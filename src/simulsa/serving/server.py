"""uvicorn with a keep-alive that tolerates back-pressure, and an orderly shutdown."""

from __future__ import annotations

import errno
import logging
import signal
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from simulsa.serving.app import create_app
from simulsa.serving.config import MAX_MESSAGE_KIB, ServeConfig
from simulsa.serving.service import Service

logger = logging.getLogger("simulsa")


class PatientProtocol(WebSocketsSansIOProtocol):  # type: ignore[misc]  # uvicorn is not installed when types are checked
    """A WebSocket protocol that pings its client and drops it if it does not respond.

    A throttled client's answer comes after audio that the server has not read yet, so none is expected while audio arrives or
    reading is paused. Data that a client never reads is discarded with its connection.
    """

    _heard = False

    def data_received(self, data: bytes) -> None:
        """Any data is a sign of life."""
        self._heard = True
        super().data_received(data)

    def send_keepalive_ping(self) -> None:
        """Send a ping and wait for data from now on."""
        self._heard = False
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """Keep waiting, or drop the connection."""
        if self._heard or self.read_paused:
            self._heard = False
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
        else:
            self.transport.abort()

    async def send(self, message: Any) -> None:
        """Send a message; works around uvicorn waiting for the handshake of a WebSocket that was denied with a response."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    async def run_asgi(self) -> None:
        """Serve the client, then give it some time to read the rest."""
        await super().run_asgi()
        self.loop.call_later(self.config.ws_ping_timeout, self.transport.abort)


class Server(uvicorn.Server):  # type: ignore[misc]
    """A server that drains its sessions on a signal to stop; a second signal ends the process at once."""

    should_exit: bool

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give every session its final text, then stop."""
        await self._service.drain()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal is a request to stop, not a failure: the process exits with 0. A second one does not wait for the model."""
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.should_exit = True


def make_server(service: Service) -> Server:
    """A server for the service, ready to run."""
    config = service.config
    settings = uvicorn.Config(
        create_app(service),
        ws=PatientProtocol,
        ws_max_size=MAX_MESSAGE_KIB * 1024,
        ws_per_message_deflate=False,  # it does not make speech smaller
        ws_ping_interval=config.ping_s,
        ws_ping_timeout=config.ping_s,
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
        timeout_graceful_shutdown=5,
        log_config=None,
        log_level="warning",
        access_log=False,  # it would log the keys that browsers send in the query
        server_header=False,
    )
    return Server(settings, service)


def bind(config: ServeConfig) -> socket.socket:
    """A listening socket at the configured address. Raises `RuntimeError` if it cannot be bound."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=512)
    except OSError as error:
        place = f"{config.host}:{config.port}"
        if error.errno == errno.EADDRINUSE:
            raise RuntimeError(f"{place}: the port is in use; choose another with --port, or 0 for any free one") from error
        raise RuntimeError(f"{place}: cannot listen there ({error.strerror}); check --host and --port") from error


def serve(service: Service, listening: socket.socket) -> None:
    """Serve on a listening socket until a signal to stop."""
    service.warm_up()
    config = service.config
    scheme = "https" if config.tls_cert else "http"
    host = f"[{config.host}]" if ":" in config.host else config.host
    place = f"{scheme}://{host}:{listening.getsockname()[1]}"
    logger.info("%s is served at %s (Ctrl-C stops)", service.lalm.name, place)
    make_server(service).run(sockets=[listening])
