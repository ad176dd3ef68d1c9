"""Flags and YAML files to settings, for every command."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import sys
import typing
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

import tyro

from simulsa.settings import field_names, fitted, from_mapping, known_keys, read_yaml_mapping, shares, to_mapping
from simulsa.streaming.policies import Policy

Command = TypeVar("Command")


_EITHER = {"policy", "rollback"}  # two ways to set the same thing, of which a stream takes one

_CONFIG = "\n\nEvery command also takes --config FILE.yaml (flags override it)."

_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _policies(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Policy] | None:
    """A policy is one word on the command line."""
    if info.type not in (Policy, Policy | None):
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="POLICY",
        instance_from_str=lambda words: Policy.parse(words[0]),
        is_instance=lambda value: value is None or isinstance(value, Policy),
        str_from_instance=lambda policy: [str(policy)],
    )


class UsageError(ValueError):
    """Invalid flags or an invalid settings file."""


def parse(kind: type[Command], arguments: Sequence[str], verb: str) -> Command:
    """Parse the flags of a command.

    `kind` is a dataclass; the settings dataclasses among its fields provide flags without a prefix. `--config FILE.yaml` sets
    defaults that flags override. Raises `UsageError`, or `SystemExit` after help or an unknown flag.
    """
    arguments, path = _without_config(list(arguments))
    try:
        default = _defaults(kind, path, {argument.partition("=")[0] for argument in arguments})
        command: Command = tyro.cli(
            tyro.conf.configure(tyro.conf.OmitArgPrefixes)(kind),
            args=arguments,
            default=default,
            prog=f"simulsa {verb}",
            registry=_REGISTRY,
            description=inspect.cleandoc(kind.__doc__ or "") + _CONFIG,
        )
        return command
    except ValueError as error:
        raise UsageError(" ".join(str(error).split())) from error


def with_default(arguments: Sequence[str], flag: str, value: str) -> list[str]:
    """`arguments` with `value` behind `flag` where it stands alone."""
    given = list(arguments)
    if flag in given:
        place = given.index(flag) + 1
        if place == len(given) or given[place].startswith("--"):
            given.insert(place, value)
    return given


def _without_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    for i, argument in enumerate(arguments):
        if argument == "--config":
            if i + 1 == len(arguments):
                raise UsageError("--config needs the path of a YAML file")
            return arguments[:i] + arguments[i + 2 :], Path(arguments[i + 1])
        if argument.startswith("--config="):
            return arguments[:i] + arguments[i + 1 :], Path(argument.removeprefix("--config="))
    return arguments, None


def _defaults(kind: type[Command], path: Path | None, flags: Set[str]) -> Any:
    """A `kind` filled from the YAML file; fields set by neither file nor class stay missing.

    Of the settings that exclude each other the file's are left out if one is among the `flags`, which win.
    """
    if path is None:
        return None
    specs, hints = dataclasses.fields(kind), typing.get_type_hints(kind)  # type: ignore[arg-type]
    groups = {spec.name: hints[spec.name] for spec in specs if dataclasses.is_dataclass(hints[spec.name])}
    own = {spec.name for spec in specs} - groups.keys()
    values = known_keys(read_yaml_mapping(path), sorted(own | field_names(*groups.values())), str(path))
    if flags & {f"--{name}" for name in _EITHER}:
        values = {name: value for name, value in values.items() if name not in _EITHER}
    given = dict(zip(groups, shares(values, list(groups.values())), strict=True))
    parts = fitted(kind, {name: value for name, value in values.items() if name in own}, str(path))
    for spec in specs:
        if spec.name in groups:
            # the command's own default, which may differ from the class's
            default = {} if spec.default_factory is dataclasses.MISSING else to_mapping(spec.default_factory())
            parts[spec.name] = from_mapping(groups[spec.name], {**default, **given[spec.name]}, str(path))
        elif spec.name not in parts and spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            parts[spec.name] = tyro.MISSING
    return kind(**parts)


def show_log() -> None:
    """Send the library's messages to standard error, as plain lines."""
    logger = logging.getLogger("simulsa")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]  # not a second one when a program runs two commands
    logger.propagate = False
