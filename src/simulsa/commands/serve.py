"""`simulsa serve`: the live server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simulsa.commands.parsing import parse, show_log, with_default
from simulsa.extras import optional
from simulsa.integrations.ray import LOCAL_CLUSTER
from simulsa.integrations.ray_serve import ReplicasConfig, serve_replicas
from simulsa.lalm.load import ModelConfig
from simulsa.serving.config import ServeConfig
from simulsa.streaming.config import StreamConfig

PACKAGES = ("starlette", "uvicorn", "websockets", "python_multipart", "prometheus_client")


@dataclass(frozen=True)
class Serve:
    """Serve one model to many speakers: a web page, OpenAI's Realtime protocol, simulstream's, and files over HTTP."""

    model: ModelConfig = field(default_factory=lambda: ModelConfig("tiny-en-de-simul"))
    stream: StreamConfig = field(default_factory=StreamConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    replicas: ReplicasConfig = field(default_factory=ReplicasConfig)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Serve, with_default(arguments, "--ray", LOCAL_CLUSTER), "serve")
    for package in PACKAGES:
        optional(package, "serve", "simulsa serve")
    from simulsa.serving.server import bind, serve
    from simulsa.serving.service import Service

    show_log()
    command.serve.keys()  # a broken key file or a taken port is found before the model is loaded
    if command.replicas.ray:
        serve_replicas(command.model, command.serve, command.stream, command.replicas)
        return
    with bind(command.serve) as listening:
        serve(Service(command.model.load(), command.serve, command.stream), listening)
