"""Settings: one frozen dataclass per stage serves as Python API, YAML file and command-line flags."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union
from urllib.parse import SplitResult, urlsplit

Settings = TypeVar("Settings")


class SettingsError(ValueError):
    """An unknown setting, or an invalid value."""


def from_mapping(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """Build the settings dataclass `kind` from a mapping (for example from a YAML file); keys may use hyphens.

    Lists become tuples, and text becomes a path or a number where the field requires it (YAML reads `1e-4` as text). Raises
    `SettingsError` for an unknown key, suggesting the nearest known one, and for a value that has the wrong type or that
    the settings reject.
    """
    normal = known_keys(values, [f.name for f in dataclasses.fields(kind)], where)  # type: ignore[arg-type]  # a dataclass
    arguments = fitted(kind, normal, where)
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{where}: {error}") from error


def fitted(kind: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`values` converted to the types of the fields of `kind` that they are for. Raises `SettingsError` for one that does not
    fit."""
    hints = typing.get_type_hints(kind)
    try:
        return {key: _fit(key, value, hints[key]) for key, value in values.items()}
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error


def known_keys(values: Mapping[str, Any], names: Sequence[str], where: str) -> dict[str, Any]:
    """`values` with underscores in its keys. Raises `SettingsError` for a key not in `names`, suggesting the nearest."""
    normal = {str(key).replace("-", "_"): value for key, value in values.items()}
    for key in normal:
        if not names:
            raise SettingsError(f"{where}: unknown key {key!r}; there is nothing to set here: remove it")
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.0)[0]
            raise SettingsError(f"{where}: unknown key {key!r}; did you mean {near!r}? (known: {', '.join(names)})")
    return normal


def _fit(key: str, value: Any, kind: Any) -> Any:
    """`value` converted to the type of a field; raises `ValueError` if it does not fit."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    named = next((option for option in (kind, *options) if hasattr(option, "parse")), None)  # objects written as text: policies
    if named is not None and isinstance(value, str) and origin is not tuple:
        return named.parse(value)
    if origin in (Union, types.UnionType):
        for option in options:
            with contextlib.suppress(ValueError):
                return _fit(key, value, option)
    elif origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_fit(key, item, options[0]) for item in value)
    elif origin is Literal and isinstance(value, bool) and {"on", "off"} <= set(options):
        return "on" if value else "off"  # which YAML reads as true and false
    elif origin is Literal and value in options:
        return value
    elif kind in (Path, float) and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return kind(value)
    elif kind is Any or (origin is None and _is_a(value, kind)):
        return value
    raise ValueError(f"{key} is {value!r}; it must be {_rule(kind)}")


def _rule(kind: Any) -> str:
    """The rule of a type in words: `"one of probability, rank"`, `"of type float"`, or several of these."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_rule(option) for option in options)
    if origin is Literal:
        return f"one of {', '.join(map(str, options))}" if len(options) > 1 else repr(options[0])
    if kind is types.NoneType:
        return "null"
    return f"of type {kind.__name__ if origin is None else kind}"


def _is_a(value: Any, kind: type) -> bool:
    """Like `isinstance`, but integers are also floats and booleans are not numbers."""
    return isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)


def shares(values: Mapping[str, Any], kinds: Sequence[type]) -> list[dict[str, Any]]:
    """For each settings dataclass, the part of a flat mapping that it has fields for."""
    return [{key: value for key, value in values.items() if key in field_names(kind)} for kind in kinds]


def field_names(*kinds: type) -> set[str]:
    """The names of all fields of settings dataclasses."""
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}


def read_yaml_mapping(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises `SettingsError` when it is missing, holds anything but a mapping, or has a key twice, with hyphens or underscores.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding="utf-8"))
        root = loader.get_single_node()
        keys = [str(node.value) for node, _ in root.value] if isinstance(root, yaml.MappingNode) else []
        values = None if root is None else loader.construct_document(root)  # has only the last of equal keys
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such settings file") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML ({error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: a {type(values).__name__} where `key: value` lines are needed")
    named: dict[str, str] = {}
    for key in keys:
        name = key.replace("-", "_")
        if name in named:
            found = f"{key} is there twice" if named[name] == key else f"{named[name]} and {key} are the same setting"
            raise SettingsError(f"{path}: {found}; keep one of them")
        named[name] = key
    return {str(key): value for key, value in values.items()}


def check_choices(settings: Any) -> None:
    """Raise `ValueError` for the first setting that is none of the options of its type, a `Literal`."""
    for name, kind in typing.get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if typing.get_origin(kind) is Literal and value not in typing.get_args(kind):
            raise ValueError(f"{name} is {value!r}; it must be {_rule(kind)}")


def check_number(settings: Any, name: str, holds: Callable[[float], bool], rule: str) -> None:
    """Raise `ValueError` unless the named setting is a finite number for which `holds` is true; `rule` says which ones are."""
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or not holds(value):
        raise ValueError(f"{name} is {value!r}; it must be a number {rule}")


def check_whole_numbers(settings: Any, lowest: Mapping[str, int]) -> None:
    """Raise `ValueError` for the first of the named settings that is not a whole number or is below its minimum."""
    for name, bound in lowest.items():
        value = getattr(settings, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < bound:
            raise ValueError(f"{name} is {value!r}; it must be a whole number, {bound} or more")


def address_parts(name: str, url: str, schemes: Sequence[str]) -> SplitResult:
    """The parts of a server's address, given as the setting `name`.

    Raises `ValueError` unless it begins with one of `schemes` and has a host and, if any, a valid port.
    """
    *others, last = (f"{scheme}://" for scheme in schemes)
    rule = f"it must begin with {', '.join(others)} or {last} and name a host"
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname and parts.port != 0)  # reading them also checks them
    except ValueError as error:
        raise ValueError(f"{name} is {url!r} ({error}); {rule}") from error
    if parts.scheme not in schemes or not named:
        raise ValueError(f"{name} is {url!r}; {rule}")
    return parts


def to_mapping(settings: Any) -> dict[str, Any]:
    """Plain values of a settings dataclass, ready for JSON or YAML; paths become strings, infinity stays a float."""
    return {field.name: _plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _plain(value: Any) -> Any:
    if isinstance(value, Path) or hasattr(value, "parse"):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
