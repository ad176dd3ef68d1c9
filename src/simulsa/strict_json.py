"""JSON as defined by RFC 8259. Python's own module also reads and writes NaN and Infinity, which other parsers reject."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

_MAX_DIGITS = 308  # of a whole number that fits in a double


class JSONError(ValueError):
    """Text that is not JSON, or a value that JSON cannot express; the message says what was found."""


class NumberError(JSONError):
    """A number that JSON does not have, such as NaN, or one beyond a double's range."""


def loads(text: str | bytes) -> Any:
    """Parse JSON text.

    Raises `JSONError` for anything else; `NumberError` if that is NaN, Infinity, or a number beyond a double's range, which the
    grammar allows but no reader can represent.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_float, parse_int=_int)
    except JSONError:
        raise
    except RecursionError as error:
        raise JSONError("it is nested too deeply") from error
    except ValueError as error:
        raise JSONError(str(error)) from error


def is_text(value: Any) -> bool:
    """Whether all strings of a value can be encoded: a JSON escape may be half of a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def dumps(value: Any, *, indent: int | None = None, escape: bool = False) -> str:
    """Format a value as JSON text that can be encoded as UTF-8; with `escape`, as pure ASCII.

    Raises `NumberError`, which names the place, for NaN and infinity, and `TypeError` for objects that JSON cannot express.
    """
    try:
        text = json.dumps(value, ensure_ascii=escape, indent=indent, allow_nan=False)
    except ValueError as error:
        place, number = next(_not_finite(value, ""), ("", None))
        if number is None:
            raise JSONError(str(error)) from error
        raise NumberError(f"{place or 'the value'} is {number}; JSON has finite numbers only: write null or text") from error
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can express
        return json.dumps(value, indent=indent, allow_nan=False)
    return text


def _no_constant(name: str) -> NoReturn:
    raise NumberError(f"{name} is not JSON; numbers must be finite")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise NumberError(f"the number {text[:20]} is out of range; it must fit a double")
    return value


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise NumberError(f"the number {text[:20]}... has {len(text)} digits; it must fit a double")
    return int(text)


def _not_finite(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """Each NaN or infinity in a value, with its place, such as `scores[2].bleu`."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{place}[{index}]")
