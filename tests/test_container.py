"""What the Dockerfile and the compose file take for granted is what the project has."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from simulsa.cli import VERBS
from simulsa.commands.parsing import parse
from simulsa.commands.serve import Serve
from simulsa.serving.config import LOOPBACK, ServeConfig

ROOT = Path(__file__).parents[1]
INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$", re.MULTILINE)


def instructions(name: str) -> list[str]:
    """The arguments of an instruction of the Dockerfile, wherever it stands."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
    return [argument for found, argument in INSTRUCTION.findall(text) if found == name]


def the(name: str) -> str:
    """The argument of an instruction that stands there once."""
    (argument,) = instructions(name)
    return argument


def served(command: list[str]) -> ServeConfig:
    """The server's settings by a command line."""
    assert command[0] == "serve"
    return parse(Serve, command[1:], "serve").serve


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text()))


def default_command() -> list[str]:
    return [*json.loads(the("ENTRYPOINT")), *json.loads(the("CMD"))]


def test_the_command_is_one_of_ours_and_asks_for_a_key() -> None:
    program, *command = default_command()
    assert program == "simulsa"
    assert command[0] in VERBS
    config = served(command)
    assert not config.is_loopback
    assert config.has_key
    assert not config.public


def test_the_port_is_the_servers() -> None:
    port = ServeConfig().port
    assert the("EXPOSE") == str(port)
    check = json.loads(the("HEALTHCHECK").partition(" CMD ")[2])
    compile(check[2], "healthcheck", "exec")
    (address,) = re.findall(r"http://[^']*", check[2])
    assert urlsplit(address).port == port
    assert urlsplit(address).hostname in LOOPBACK


def test_the_health_check_asks_for_a_path_that_exists() -> None:
    pytest.importorskip("starlette", reason="needs simulsa[serve]")
    from simulsa.serving.app import create_app
    from simulsa.serving.service import Service
    from simulsa.streaming.config import StreamConfig
    from simulsa.testing import FakeLALM

    routes = create_app(Service(FakeLALM(str), ServeConfig(), StreamConfig())).routes
    assert "/healthz" in the("HEALTHCHECK")
    assert "/healthz" in [getattr(route, "path", None) for route in routes]


def test_what_is_copied_is_there_and_let_through() -> None:
    copied = [name for line in instructions("COPY") if not line.startswith("--from") for name in line.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "src"} <= set(copied)
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert ignored[1] == "*"
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


def test_it_does_not_run_as_root() -> None:
    assert int(the("USER")) == int(re.findall(r"--uid (\d+)", " ".join(instructions("RUN")))[0]) > 0


def test_sigterm_reaches_the_server() -> None:
    assert the("STOPSIGNAL") == "SIGTERM"
    for argument in (the("ENTRYPOINT"), the("CMD")):
        assert isinstance(json.loads(argument), list)  # text would run in a shell, which keeps signals to itself


def test_the_extras_exist(compose: dict[str, Any]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = dict(argument.split("=", 1) for argument in instructions("ARG"))
    asked = names["EXTRAS"].split(",")
    assert "serve" in asked
    assert set(asked) <= set(extras)
    assert set(compose["services"]["gpu"]["build"]["args"]) <= set(names)


@pytest.mark.parametrize("name", ["cpu", "gpu", "vllm"])
def test_the_services_are_the_image(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["profiles"] == [name]
    command = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", word) for word in service["command"]]
    config = served(command)
    assert str(config.api_key_file) == f"/run/secrets/{service['secrets'][0]}"
    assert service["secrets"] == list(compose["secrets"])
    assert config == served(default_command()[1:])
    assert service["volumes"] == [f"{volume}:{the('VOLUME')}" for volume in compose["volumes"]]
    (ports,) = service["ports"]
    assert ports.startswith("${SIMULSA_LISTEN:-127.0.0.1}:")
    assert ports.endswith(f":{config.port}")


def test_the_gpu_is_for_those_that_have_the_weights(compose: dict[str, Any]) -> None:
    for name in ("gpu", "engine"):
        (device,) = compose["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
    assert "deploy" not in compose["services"]["cpu"]
    assert "deploy" not in compose["services"]["vllm"]


def test_the_server_finds_its_engine(compose: dict[str, Any]) -> None:
    front, engine = compose["services"]["vllm"], compose["services"]["engine"]
    assert front["profiles"] == engine["profiles"] == ["vllm"]
    assert list(front["depends_on"]) == ["engine"]
    model = parse(Serve, front["command"][1:], "serve").model
    assert urlsplit(model.engine_url).hostname == "engine"
    assert engine["command"] == [f"--model={model.model}", "--enable-scale-out"]
    assert "ports" not in engine
    copied = re.findall(r"^COPY (.*) \S+$", engine["build"]["dockerfile_inline"], re.M)
    assert {name for line in copied for name in line.split()} == {"pyproject.toml", "README.md", "LICENSE", "src"}


def test_there_is_time_to_drain(compose: dict[str, Any]) -> None:
    for name in ("cpu", "gpu", "vllm"):
        service = compose["services"][name]
        assert float(service["stop_grace_period"].removesuffix("s")) > ServeConfig().drain_s
