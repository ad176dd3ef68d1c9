"""References for the recordings of a log: matched by line or name, never by order alone."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simulsa import strict_json
from simulsa.evaluation.instances import EvaluationError
from simulsa.evaluation.recording import Log, Recording, normal, stem
from simulsa.manifest import read_manifest

_ROUNDED_MS = 1000  # tolerance: segments are cut by hand or by other decoders


@dataclass(frozen=True)
class ReferenceSegment:
    """A stretch of a recording with its reference; times in ms from the recording's start."""

    name: str
    offset_ms: float
    duration_ms: float
    reference: str


def read_sentences(path: str | Path) -> list[str]:
    """The lines of a text file, in NFC with single spaces. Raises `EvaluationError` for a file without lines."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such file; it must have one sentence per line") from None
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path}: not UTF-8 text ({error})") from error
    if lines == [""]:
        raise EvaluationError(f"{path}: empty; it must have one sentence per line")
    return [normal(line) for line in lines]


def referenced(log: Log, path: Path | None, partial: bool = False) -> tuple[list[Recording], list[int]]:
    """The log's recordings with references: from a text file by their index, from a manifest by id or file name, or their own.

    If the log has references too and the file has the same ones in another order, each recording gets its own. The second list
    gives for each recording the place of the recording to which the file's order assigns its reference: usually its own place.
    Raises `EvaluationError` for a recording without a reference, for an empty one, and, unless `partial`, for references without
    a recording.
    """
    if path is None:
        missing = next((recording for recording in log.recordings if recording.reference is None), None)
        if missing is not None:
            raise EvaluationError(f"recording {missing.label} has no reference in the log; give a file with --references")
        return list(log.recordings), list(range(len(log.recordings)))
    found = _sentences(log.recordings, path, "target_text")
    unused = [name for name, index in found.items() if index is None]
    if unused and not partial:
        raise EvaluationError(
            f"{path}: {len(unused)} of {len(found)} references have no recording in the log (the first: {unused[0]}); the run is "
            "not finished, or of another test set: finish it, or score what is there with --partial"
        )
    if unused:
        log.notes.append(f"{len(unused)} references without a recording were skipped")
    return _checked(log, path, dict(value for value in found.values() if value is not None))


def sources(recordings: Sequence[Recording], path: Path, references: Path | None, order: Sequence[int]) -> list[str]:
    """The transcript of each recording, from a text file by index or from a manifest's `source_text`.

    `order` is that of the file with the references, which a file of the same kind shares.
    """
    found = [value for value in _sentences(recordings, path, "source_text").values() if value is not None]
    texts = [text for _, text in sorted(found)]
    alike = references is not None and (references.suffix == ".jsonl") == (path.suffix == ".jsonl")
    return [texts[place] for place in order] if alike else texts


def _sentences(recordings: Sequence[Recording], path: Path, column: str) -> dict[str, tuple[int, str] | None]:
    """For each sentence of a file, keyed by its name in messages, the place of its recording and the text."""
    return _by_name(recordings, path, column) if path.suffix == ".jsonl" else _by_line(recordings, path)


def _by_line(recordings: Sequence[Recording], path: Path) -> dict[str, tuple[int, str] | None]:
    sentences = read_sentences(path)
    found: dict[str, tuple[int, str] | None] = {f"line {number}": None for number in range(1, len(sentences) + 1)}
    for place, recording in enumerate(recordings):
        if recording.index >= len(sentences):
            raise EvaluationError(
                f"{path}: {len(sentences)} sentences, but the log has recording {recording.index} (counted from 0), "
                f"{len(recordings)} in all; give the sentences of this log"
            )
        found[f"line {recording.index + 1}"] = (place, sentences[recording.index])
    return found


def _by_name(recordings: Sequence[Recording], path: Path, column: str) -> dict[str, tuple[int, str] | None]:
    """Match a manifest's rows by id, or by audio file if no other row uses it."""
    rows = read_manifest(path)
    files = Counter(stem(row.audio) for row in rows)
    names = {stem(row.audio): row for row in rows if files[stem(row.audio)] == 1} | {normal(row.id): row for row in rows}
    found: dict[str, tuple[int, str] | None] = {repr(row.id): None for row in rows}
    for place, recording in enumerate(recordings):
        row = names.get(normal(recording.id)) or names.get(recording.name)
        if row is None:
            raise EvaluationError(f"{path}: no row has the id or the audio file of recording {recording.label}")
        if found[repr(row.id)] is not None:
            raise EvaluationError(
                f"{path}: row {row.id!r} has two recordings in the log; each must have an id or a file of its own"
            )
        found[repr(row.id)] = (place, normal(getattr(row, column) or ""))
    return found


def _checked(log: Log, path: Path, texts: dict[int, str]) -> tuple[list[Recording], list[int]]:
    """The recordings with `texts`, keyed by place; another order is detected if the log has its own references."""
    own = {place: log.recordings[place].reference for place in texts}
    order = list(range(len(texts)))
    different = sum(own[place] is not None and own[place] != text for place, text in texts.items())
    if different and Counter(own.values()) == Counter(texts.values()):
        log.notes.append(f"{path} has the log's references in another order ({different} elsewhere); matched by their text")
        order = _order([own[place] for place in sorted(texts)], [texts[place] for place in sorted(texts)])
        texts = {place: text or "" for place, text in own.items()}
    elif different:
        log.notes.append(f"{different} of {len(texts)} references in {path} differ from the log's own; those of the file count")
    for place, text in texts.items():
        if not text:
            raise EvaluationError(f"{path}: the reference of recording {log.recordings[place].label} is empty")
    return [dataclasses.replace(log.recordings[place], reference=text) for place, text in sorted(texts.items())], order


def _order(wanted: Sequence[str | None], given: Sequence[str]) -> list[int]:
    """The place in `given` of each text of `wanted`, which is a permutation of it; of equal texts, the first not yet taken."""
    places: dict[str | None, deque[int]] = {}
    for place, text in enumerate(given):
        places.setdefault(text, deque()).append(place)
    return [places[text].popleft() for text in wanted]


def read_segments(path: Path, references: Path) -> list[ReferenceSegment]:
    """Segments with `wav`, `offset` and `duration` (in s), from YAML or JSON as in MuST-C and IWSLT, with a reference per line.

    Raises `EvaluationError` for a file that is not such a list, or a different number of references.
    """
    entries = _entries(path)
    sentences = read_sentences(references)
    if len(sentences) != len(entries):
        raise EvaluationError(
            f"{references}: {len(sentences)} references for the {len(entries)} segments of {path}; one each is needed"
        )
    paths: dict[str, str] = {}
    for wav, _, _ in entries:
        other = paths.setdefault(stem(wav), wav)
        if other != wav:
            raise EvaluationError(f"{path}: {other!r} and {wav!r} have the same name; rename one of them")
    return [
        ReferenceSegment(stem(wav), 1000 * offset_s, 1000 * duration_s, sentence)
        for (wav, offset_s, duration_s), sentence in zip(entries, sentences, strict=True)
    ]


def _entries(path: Path) -> list[tuple[str, float, float]]:
    """Each segment's file, offset and duration in s."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # thousands of segments are common
    try:
        text = path.read_text(encoding="utf-8")
        values = strict_json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=loader)
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such file of segments") from None
    except (ValueError, yaml.YAMLError) as error:
        raise EvaluationError(f"{path}: neither YAML nor JSON ({error})") from error
    if not isinstance(values, list) or not values:
        raise EvaluationError(f"{path}: must be a list of segments, each with wav, offset and duration")
    entries = []
    for number, value in enumerate(values, start=1):
        try:
            wav, offset_s, duration_s = str(value["wav"]), float(value["offset"]), float(value["duration"])
        except (KeyError, TypeError, ValueError, OverflowError):
            wav, offset_s, duration_s = "", -1.0, -1.0
        if not (0 <= offset_s < math.inf and 0 < duration_s < math.inf):
            raise EvaluationError(
                f"{path}: segment {number} is {value!r}; it needs wav, offset (0 or more) and duration (above 0), in s"
            )
        entries.append((wav, offset_s, duration_s))
    return entries


def by_recording(segments: Sequence[ReferenceSegment], log: Log, partial: bool = False) -> dict[str, tuple[Recording, list[int]]]:
    """Each recording and the places of its segments.

    Raises `EvaluationError` if either lacks the other, and, unless `partial`, if segments lie after the audio that was heard.
    """
    places: dict[str, list[int]] = {}
    for place, segment in enumerate(segments):
        places.setdefault(segment.name, []).append(place)
    recordings = {recording.name: recording for recording in log.recordings}
    if len(recordings) < len(log.recordings):
        raise EvaluationError(
            "two recordings in the log have the same file name, by which long recordings are identified; rename one"
        )
    for name in places:
        if name not in recordings:
            raise EvaluationError(
                f"recording {name!r} has segments but is not in the log ({', '.join(recordings)}); finish the run, or score what "
                "is there with --partial"
            )
    for name, recording in recordings.items():
        if name not in places:
            raise EvaluationError(f"recording {recording.label} is in the log but has no segment ({', '.join(places)})")
        heard_ms = recording.source_length_ms
        end_ms = max(segments[place].offset_ms + segments[place].duration_ms for place in places[name])
        if heard_ms is not None and end_ms > heard_ms + _ROUNDED_MS and not partial:
            raise EvaluationError(
                f"recording {recording.label}: {heard_ms / 1000:.1f} s of it were heard and its segments end at "
                f"{end_ms / 1000:.1f} s; the log is incomplete: finish the run, or score what is there with --partial"
            )
    return {name: (recordings[name], found) for name, found in places.items()}
