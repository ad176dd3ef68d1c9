"""The live server on Ray Serve: several replicas of the same application, scaled with the number of sessions.

`simulsa serve --ray` starts and stops it; on an existing cluster, `serve run simulsa.integrations.ray_serve:app
model=tiny-en-de-simul max-replicas=8` leaves that to Ray. A session stays on its replica; if that replica dies, the connection
breaks, and a new one is routed to another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from simulsa.extras import optional
from simulsa.integrations.ray import LOCAL_CLUSTER, join
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import ModelConfig
from simulsa.serving.config import ServeConfig
from simulsa.serving.values import from_text
from simulsa.settings import SettingsError, check_whole_numbers, field_names, from_mapping, shares
from simulsa.streaming.config import StreamConfig

logger = logging.getLogger("simulsa")

NAME = "simulsa"
PATIENCE = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}  # for our own cluster: Ray's 5 s is too short when busy
OTHER_REQUESTS = 64  # that a replica answers alongside its sessions: the page, /healthz, refusals


@dataclass(frozen=True)
class ReplicasConfig:
    """Whether to serve with Ray, and with how many copies of the model."""

    ray: str = ""
    """address of a Ray cluster, `auto` for the one this machine belongs to, or `local` (also --ray alone); empty: no Ray"""
    replicas: int = 2
    """minimum number of replicas; on GPUs each has its own"""
    max_replicas: int = 0
    """maximum number of replicas; 0: the same as --replicas"""
    sessions_per_replica: int = 8
    """target number of sessions per replica for autoscaling"""
    cpus_per_replica: float = 1.0
    """CPU cores per replica"""

    def __post_init__(self) -> None:
        check_whole_numbers(self, {"replicas": 1, "max_replicas": 0, "sessions_per_replica": 1})
        if 0 < self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}; it must be 0 or at least replicas, {self.replicas}")
        if not self.cpus_per_replica > 0:
            raise ValueError(f"cpus_per_replica is {self.cpus_per_replica}; it must be more than 0")


class Replica:
    """One copy of the model and the sessions that it serves; Ray runs its application."""

    def __init__(self, load: Callable[[], LALM], config: ServeConfig, stream: StreamConfig) -> None:
        from simulsa.serving.service import Service

        self._service = Service(load(), config, stream)
        self._service.warm_up()

    def __serve_build_asgi_app__(self) -> Any:  # the name that Ray Serve looks up
        from simulsa.serving.app import create_app

        return create_app(self._service)

    async def drain(self) -> None:
        """Give every session its final text, and take no new ones."""
        await self._service.drain()


def application(
    load: Callable[[], LALM], config: ServeConfig, stream: StreamConfig, replicas: ReplicasConfig, gpus: float = 0.0
) -> Any:
    """The application for `ray.serve.run`. `load` makes a replica's model and must be picklable; `gpus` is per replica."""
    serve = optional("ray.serve", "ray", "Ray Serve")
    deployment = serve.deployment(
        name=NAME,
        ray_actor_options={"num_cpus": replicas.cpus_per_replica, "num_gpus": gpus},
        max_ongoing_requests=config.max_sessions + OTHER_REQUESTS,
        autoscaling_config={
            "min_replicas": replicas.replicas,
            "max_replicas": max(replicas.replicas, replicas.max_replicas),
            "target_ongoing_requests": replicas.sessions_per_replica,
        },
        graceful_shutdown_timeout_s=config.max_session_s + config.drain_s,  # a stopping replica lets its sessions end first
    )
    return deployment(serve.ingress()(Replica)).bind(load, config, stream)


def app(arguments: dict[str, Any]) -> Any:
    """The builder for `serve run` and Serve's config files; `arguments` are those of `simulsa serve`.

    It does not control where Ray's proxies listen (`serve start --http-host`); `host` and `port` only tell who can reach them.
    Raises `SettingsError` for an unknown setting or an invalid value.
    """
    model, config, stream, replicas = _settings(arguments, ModelConfig, ServeConfig, StreamConfig, ReplicasConfig)
    return application(model.load, config, stream, replicas, float(model.on_gpu))


@contextlib.contextmanager
def served(
    load: Callable[[], LALM], config: ServeConfig, stream: StreamConfig, replicas: ReplicasConfig, gpus: float = 0.0
) -> Iterator[None]:
    """Within the block the replicas serve at the host and port of `config`; at its end every session gets its final text."""
    if config.port == 0:
        raise ValueError("port is 0; with Ray it must be a port of your choice")
    serve = optional("ray.serve", "ray", "--ray")
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    join(replicas.ray)
    listening = {"host": config.host, "port": config.port}
    if config.tls_cert is not None:
        listening |= {"ssl_certfile": str(config.tls_cert), "ssl_keyfile": str(config.tls_key)}
    serve.start(http_options=listening)
    handle = serve.run(application(load, config, stream, replicas, gpus), name=NAME)
    try:
        yield
    finally:
        try:
            handle.broadcast("drain").results(timeout_s=config.drain_s + 10)
        except Exception as error:  # a replica that has just died has no text to send
            logger.warning("not all replicas gave their sessions their final text (%s)", error)
        if replicas.ray == LOCAL_CLUSTER:
            serve.shutdown()
        else:
            serve.delete(NAME)


def serve_replicas(model: ModelConfig, config: ServeConfig, stream: StreamConfig, replicas: ReplicasConfig) -> None:
    """Serve until a signal asks to stop."""
    with served(model.load, config, stream, replicas, float(model.on_gpu)):
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):  # only now, because Ray sets its own handlers when it starts
            signal.signal(number, lambda *_: stop.set())
        scheme = "https" if config.tls_cert else "http"
        logger.info("%s is served by Ray at %s://%s:%d (Ctrl-C stops)", model.model, scheme, config.host, config.port)
        stop.wait()


def _settings(arguments: Mapping[str, Any], *kinds: Any) -> list[Any]:
    """One settings object of each kind, from the combined arguments; text is parsed like the fields of a form."""
    values = {name.replace("-", "_"): from_text(value) if isinstance(value, str) else value for name, value in arguments.items()}
    known = field_names(*kinds)
    for name in values:
        if name not in known:
            raise SettingsError(f"unknown argument {name!r} (known: {', '.join(sorted(known))})")
    return [from_mapping(kind, share, "arguments") for kind, share in zip(kinds, shares(values, kinds), strict=True)]
