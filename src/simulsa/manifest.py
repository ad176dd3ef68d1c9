"""Manifests: JSON Lines with one `Utterance` per line."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simulsa import strict_json
from simulsa.audio import AudioError, audio_length, load_audio, samples_to_s
from simulsa.files import atomic_write
from simulsa.languages import Direction, language_name

RETIRED = ("latency", "rest_tokens")  # fields of earlier versions; a row keeps them as `extra`

logger = logging.getLogger("simulsa")


class ManifestError(ValueError):
    """A broken manifest or row; the message gives file, line and row, the rule and the fix."""


@dataclass(frozen=True)
class Utterance:
    """One row: a stretch of speech and its translation.

    `audio` is the path of the file; `start_s` and `duration_s` select a slice of it (default: all). An augmented row has a
    `parent_id`, its cut as `duration_s`, the partial translation as `target_text` (possibly empty) and as the token ids
    `target_tokens` of its model, and its provenance as `made_by`. `extra` keeps fields unknown to simulsa.
    """

    id: str
    audio: str
    source_lang: str
    target_lang: str
    target_text: str
    source_text: str | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    parent_id: str | None = None
    target_tokens: tuple[int, ...] | None = None
    made_by: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_augmented(self) -> bool:
        """Whether the row was made from another one by truncation."""
        return self.parent_id is not None

    @property
    def direction(self) -> Direction:
        """Source and target language."""
        return Direction(self.source_lang, self.target_lang)

    def load(self) -> np.ndarray:
        """The row's audio: float32 mono `[samples]` at `SAMPLE_RATE`. Raises `AudioError`."""
        return load_audio(self.audio, self.start_s, self.duration_s)

    def length_samples(self) -> int:
        """The row's length in samples at `SAMPLE_RATE`, from the file's header. Raises `AudioError`."""
        return audio_length(self.audio, self.start_s, self.duration_s)


FIELDS = {f.name: f for f in dataclasses.fields(Utterance) if f.name != "extra"}
_REQUIRED = ("id", "audio", "source_lang", "target_lang", "target_text")
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys((*_REQUIRED, "source_text", "parent_id"), (str,)),
    **dict.fromkeys(("start_s", "duration_s"), (int, float)),
    "target_tokens": (list,),
    "made_by": (dict,),
}
_ELSEWHERE = {"offset": "start_s", "start": "start_s", "duration": "duration_s"}  # what other tools call a field


def read_manifest(path: str | Path, *, empty_targets: bool = False) -> list[Utterance]:
    """Read a manifest; audio paths become absolute. A BOM, CRLF line ends and blank lines are accepted.

    With `empty_targets`, offline rows without a translation are accepted. Raises `ManifestError` at the first broken line, naming
    it.
    """
    rows = []
    seen: dict[str, int] = {}
    for number, values in _objects(Path(path)):
        row = _row(values, Path(path), number, empty_targets)
        if row.id in seen:
            raise ManifestError(f"{path}:{number}: id {row.id!r} was used in line {seen[row.id]} already; ids must be unique")
        seen[row.id] = number
        rows.append(row)
    if not rows:
        raise ManifestError(f"{path}: the manifest has no rows; it must have one JSON object per line")
    for name in RETIRED:
        if count := sum(name in row.extra for row in rows):
            logger.warning("%s: %d rows have the field %s, which simulsa no longer uses; it is ignored", path, count, name)
    _warn_of_look_alikes(rows, path)
    return rows


def write_manifest(path: str | Path, rows: Iterable[Utterance]) -> None:
    """Write rows atomically; audio inside the manifest's folder gets a relative path."""
    with atomic_write(path) as file:
        for row in rows:
            file.write(strict_json.dumps(to_json(row, Path(path).parent)) + "\n")


def to_json(row: Utterance, folder: Path) -> dict[str, Any]:
    """A row as an object for a manifest in `folder`; fields with their default value are left out."""
    values: dict[str, Any] = {}
    for name, spec in FIELDS.items():
        value = getattr(row, name)
        if spec.default is dataclasses.MISSING or value != spec.default:
            values[name] = list(value) if isinstance(value, tuple) else value
    audio, home = _absolute(row.audio, folder)
    values["audio"] = os.path.relpath(audio, home) if audio.startswith(home + os.sep) else audio
    return {**values, **row.extra}


def check_ids(rows: Sequence[Utterance], why: str) -> None:
    """Raise `ManifestError`, with the id and the kinds of its rows, if several have the same; `why` says why they must not."""
    for name, count in Counter(row.id for row in rows).most_common(1):
        if count > 1:
            kinds = sorted({"simultaneous" if row.is_augmented else "offline" for row in rows if row.id == name})
            raise ManifestError(f"id {name!r} stands for {count} rows ({' and '.join(kinds)}); ids must be unique{why}")


def _absolute(audio: str, folder: Path) -> tuple[str, str]:
    """Both paths without `..`, which behind a symbolic link to a folder leads elsewhere than the text suggests."""
    if ".." not in Path(audio).parts + folder.parts:
        return os.path.abspath(audio), os.path.abspath(folder)
    above, name = os.path.split(audio)
    return os.path.join(os.path.realpath(above), name), os.path.realpath(folder)


def check_audio(rows: Iterable[Utterance], max_samples: int | None = None) -> Iterator[tuple[Utterance, str]]:
    """Open every row's audio file and yield `(row, what is wrong)` for those that cannot be read or are too long.

    Only headers are read, and the last sample of a FLAC. `max_samples` is the model's window.
    """
    for row in rows:
        try:
            length = row.length_samples()
        except ValueError as error:
            yield row, str(error)
            continue
        if max_samples is not None and length > max_samples:
            yield row, too_long(row.id, length, max_samples)


def unheard(row: Utterance, error: AudioError) -> AudioError:
    """The error for a row with broken audio in a context where such rows may be skipped."""
    return AudioError(f"row {row.id!r}: {error}; or leave such rows out with --on-error skip")


def too_long(name: str, length: int, max_samples: int) -> str:
    """The message for a clip that does not fit the model's window."""
    digits = 2 if length - max_samples > 160 else 5  # so that the two numbers differ
    lasts_s, most_s = (f"{samples_to_s(samples):.{digits}f}" for samples in (length, max_samples))
    return (
        f"{name}: the clip lasts {lasts_s} s and the model hears at most {most_s} s; "
        "cut it into shorter rows (start_s, duration_s)"
    )


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such manifest") from None
    except IsADirectoryError:
        raise ManifestError(f"{path}: is a folder; a manifest is a .jsonl file") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = strict_json.loads(line)
        except strict_json.JSONError as error:
            raise ManifestError(f"{path}:{number}: not JSON ({error}); each line must be one whole object") from error
        if not isinstance(values, dict):
            raise ManifestError(f"{path}:{number}: a {type(values).__name__} where an object is needed")
        yield number, values


def _row(values: dict[str, Any], path: Path, number: int, empty_targets: bool) -> Utterance:
    where = f"{path}:{number}" + (f" (id {values['id']!r})" if "id" in values else "")
    for name, value in values.items():
        if not strict_json.is_text([name, value]):
            raise ManifestError(f"{where}: {name!r} is {value!r}, with a lone surrogate, which is not valid text; re-enter it")
    missing = [name for name in _REQUIRED if values.get(name) is None]
    if missing:
        raise ManifestError(f"{where}: missing {', '.join(missing)}; every row needs {', '.join(_REQUIRED)}")
    known = {name: value for name, value in values.items() if name in FIELDS and value is not None}
    extra = {name: value for name, value in values.items() if name not in FIELDS}
    for name, value in known.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            expected = " or ".join(kind.__name__ for kind in _KINDS[name])
            raise ManifestError(f"{where}: {name} is {value!r}; it must be of type {expected}")
    tokens = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    row = Utterance(**{**known, **tokens, "audio": str(path.parent.absolute() / known["audio"])}, extra=extra)
    _check_row(row, where, empty_targets)
    return row


def _check_row(row: Utterance, where: str, empty_targets: bool) -> None:
    if not row.id:
        raise ManifestError(f"{where}: the id is empty; give every row its own id")
    if not (row.target_text.strip() or row.is_augmented or empty_targets):
        raise ManifestError(f"{where}: target_text is empty; remove the row or translate it")
    if not 0 <= row.start_s < math.inf:
        raise ManifestError(f"{where}: start_s is {row.start_s}; it must be a number of seconds, 0 or more")
    if row.duration_s is not None and not 0 < row.duration_s < math.inf:
        raise ManifestError(f"{where}: duration_s is {row.duration_s}; it must be a number of seconds, more than 0")
    if not all(type(token) is int for token in row.target_tokens or ()):
        raise ManifestError(f"{where}: target_tokens is {list(row.target_tokens or ())}; it must be a list of token ids (int)")
    for lang in (row.source_lang, row.target_lang):
        try:
            language_name(lang)
        except ValueError as error:
            raise ManifestError(f"{where}: {error}") from None


def _warn_of_look_alikes(rows: Sequence[Utterance], path: str | Path) -> None:
    """Warn of unknown keys that resemble a manifest field that is absent."""
    for key in dict.fromkeys(key for row in rows for key in row.extra):
        near = difflib.get_close_matches(key, FIELDS, n=1, cutoff=0.8)
        name = _ELSEWHERE.get(key, near[0] if near else "")
        found = [row for row in rows if name and key in row.extra and getattr(row, name) == FIELDS[name].default]
        if found:
            logger.warning(
                "%s: %d rows (the first: %r) have %r, which is kept but not used; simulsa's field is %r",
                path,
                len(found),
                found[0].id,
                key,
                name,
            )
