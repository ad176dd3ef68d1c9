"""One recording of a log, from any system."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from simulsa.evaluation.instances import EvaluationError, single_spaced

Elapsed = Literal["logged", "queued", "incremental", "none"]
QUEUED = "queued: a chunk waits for its audio and for the chunk before, then takes its own computing time"
_ENDING = re.compile(
    r"\.(wav|flac|mp3|ogg|oga|opus|m4a|aac|aiff?|au|caf|sph|raw|pcm|wma|amr|mp4|m4v|mkv|mov|avi|webm|3gp|ts|mpe?g)$",
    re.IGNORECASE,
)
_SLACK_MS = 1.0  # tolerance for clocks and rounding


@dataclass(frozen=True)
class Recording:
    """Final text of one recording, with single spaces and in NFC, and the times of its units (words or characters; see `units`).

    `name` is the stem of the source's file name, `id` simulsa's own; either may be empty. `delays_ms` is the audio heard when a
    unit became final, `elapsed_ms` the time of that; `None` if not logged or not requested. `source_length_ms` and `reference`
    are `None` if the log has none. `erased` counts units that were shown and retracted.
    """

    index: int
    name: str
    id: str
    prediction: str
    delays_ms: tuple[float, ...]
    elapsed_ms: tuple[float, ...] | None
    source_length_ms: float | None
    reference: str | None = None
    erased: int = 0

    @property
    def label(self) -> str:
        """What messages call the recording."""
        return repr(self.id or self.name or self.index)


@dataclass
class Log:
    """The recordings of a log in order, the definition of its `elapsed_ms`, and notes for the reader."""

    recordings: list[Recording]
    tool: str
    elapsed: str
    notes: list[str] = field(default_factory=list)


def units(text: str, unit: str) -> list[str]:
    """The words of a text, or its characters, including spaces."""
    return list(text) if unit == "char" else text.split()


def normal(text: str) -> str:
    """`text` in NFC, with single spaces, so that equal words compare equal."""
    return single_spaced(unicodedata.normalize("NFC", text))


def stem(path: str) -> str:
    """The name of a file without folders and extension, in NFC: file systems differ in how they write an ü.

    Only audio and video extensions are removed: `2022.acl-long.110` is a whole name.
    """
    return unicodedata.normalize("NFC", _ENDING.sub("", PurePath(path.replace("\\", "/")).name))


def numbers(values: Any, what: str) -> tuple[float, ...]:
    """A list of finite numbers. Raises `EvaluationError`, which begins with `what`, for anything else."""
    if not isinstance(values, list):
        raise EvaluationError(f"{what} is {values!r}; it must be a list of numbers")
    for place, value in enumerate(values, start=1):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
            raise EvaluationError(f"{what}: number {place} is {value!r}; times must be finite numbers")
    return tuple(float(value) for value in values)


def check_times(where: str, delays_ms: Sequence[float], elapsed_ms: Sequence[float] | None) -> None:
    """Raise `EvaluationError` for a negative delay, or an output before its audio. Ties are fine."""
    for place, delay in enumerate(delays_ms, start=1):
        if delay < 0:
            raise EvaluationError(f"{where}: delay {place} is {delay:g} ms; delays must be 0 or more")
    for place, (delay, moment) in enumerate(zip(delays_ms, elapsed_ms or (), strict=False), start=1):
        if moment < delay - _SLACK_MS:
            raise EvaluationError(
                f"{where}: elapsed time {place} is {moment:g} ms although {delay:g} ms of audio had been heard; the clock was "
                "wrong: log it again, or score without computing time (--elapsed none)"
            )
