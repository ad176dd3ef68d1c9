"""SimulEval's `instances.log`: one JSON object per recording, with a delay and an elapsed time for each unit."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from simulsa.evaluation.instances import EvaluationError
from simulsa.evaluation.recording import QUEUED, Elapsed, Log, Recording, check_times, normal, numbers, stem, units

END = "</s>"
CUMULATED = "SimulEval's: audio heard plus all computing time since the recording began, even where the model was idle in between"
INCREMENTAL = (
    "corrected as by OmniSTEval's --fix_simuleval_emission_ca: audio heard at the output before plus all time since that output"
)


def read_simuleval(lines: Sequence[tuple[str, dict[str, Any]]], unit: str, elapsed: Elapsed, count_end: bool = False) -> Log:
    """The recordings of a log; `lines` are its objects, each with its place for messages.

    simulsa's own logs have the same format, but their elapsed times are already queued. An end-of-sentence mark is removed with
    its delay, unless `count_end` makes it a word; a delay without a mark is always removed. Raises `EvaluationError` for a
    record that cannot be right.
    """
    ours = all("steps" in values for _, values in lines)
    recordings, marks = [], 0
    for place, (where, values) in enumerate(lines):
        recording, marked = _recording(where, values, place, unit, elapsed, ours, count_end and unit == "word")
        recordings.append(recording)
        marks += marked
    notes = [f"{marks} of {len(lines)} records end with {END} or its delay, which was taken off"] if marks else []
    if count_end:
        counted = sum(recording.prediction.endswith(END) for recording in recordings)
        notes.append(f"{counted} of {len(lines)} records end with {END}, which counts as a word")
    untimed = sum(recording.elapsed_ms is None for recording in recordings)
    if elapsed != "none" and untimed:
        notes.append(f"{untimed} of {len(lines)} records have no elapsed times: no computation-aware latency")
    if ours:
        return Log(recordings, "simulsa", QUEUED, notes)
    meaning = {"queued": QUEUED, "incremental": INCREMENTAL}.get(elapsed, CUMULATED)
    return Log(recordings, "SimulEval", meaning, notes)


def _recording(
    where: str, values: dict[str, Any], place: int, unit: str, elapsed: Elapsed, ours: bool, count_end: bool
) -> tuple[Recording, bool]:
    """A record, and whether an end mark was removed."""
    text, index, length = values.get("prediction"), values.get("index", place), values.get("source_length")
    if not isinstance(text, str):
        raise EvaluationError(f"{where}: prediction is {text!r}; it must be text")
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise EvaluationError(f"{where}: index is {index!r}; it must be the line of the reference, 0 or more")
    delays, moments = _times(where, values, elapsed)
    said = text.strip() if count_end else text.strip().removesuffix(END)
    prediction, kept = _aligned(where, said, delays, unit)
    marked = said != text.strip() or max(kept, default=-1) < len(delays) - 1
    delays, moments = _taken(delays, kept), moments and _taken(moments, kept)
    check_times(where, delays, moments)
    if moments is not None and not ours:
        if elapsed == "queued":
            moments = _queued(where, delays, moments)
        elif elapsed == "incremental":
            moments = _incremental(delays, moments)
    source, reference = values.get("source"), values.get("reference")
    source = source[0] if isinstance(source, list) and source else source
    recording = Recording(
        index=index,
        name=stem(source) if isinstance(source, str) else "",
        id=str(values["id"]) if ours and "id" in values else "",
        prediction=prediction,
        delays_ms=delays,
        elapsed_ms=moments,
        source_length_ms=None if length is None else numbers([length], f"{where}: source_length")[0],
        reference=normal(reference.removesuffix(END)) if isinstance(reference, str) and reference.strip() else None,
    )
    return recording, marked


def _times(where: str, values: dict[str, Any], elapsed: Elapsed) -> tuple[tuple[float, ...], tuple[float, ...] | None]:
    """Delays and elapsed times of the logged units, `None` if those were not measured or are not wanted."""
    delays = numbers(values.get("delays"), f"{where}: delays")
    logged = values.get("elapsed") if elapsed != "none" else None
    moments = None if logged is None or (delays and not logged) else numbers(logged, f"{where}: elapsed")
    if moments is not None and len(moments) != len(delays):
        raise EvaluationError(f"{where}: {len(moments)} elapsed times for {len(delays)} delays; there must be one for each")
    if moments and not any(moments) and any(delays):
        moments = None  # SimulEval's way of saying that it did not measure
    parts = values.get("prediction_spm")
    if isinstance(parts, list) and len(parts) == len(delays):  # of --eval-latency-unit spm
        last = _last_pieces([str(part) for part in parts])
        return _taken(delays, last), moments and _taken(moments, last)
    return delays, moments


def _taken(values: Sequence[float], places: Sequence[int]) -> tuple[float, ...]:
    return tuple(values[place] for place in places)


def _last_pieces(parts: Sequence[str]) -> list[int]:
    """The place of the last SentencePiece of each word."""
    text = [part.strip("▁") for part in parts]
    return [i for i in range(len(parts)) if text[i] and (i + 1 == len(parts) or parts[i + 1].startswith("▁"))]


def _aligned(where: str, text: str, delays: Sequence[float], unit: str) -> tuple[str, list[int]]:
    """The text in NFC, and the delay that belongs to each of its units, as positions."""
    logged = " ".join(text.split())
    if unit == "char" and len(delays) < len(logged):
        logged = logged.replace(" ", "")  # SimulEval counts characters without spaces
    parts = units(logged, unit)
    if len(delays) not in (len(parts), len(parts) + 1):
        raise EvaluationError(
            f"{where}: {len(delays)} delays for {len(parts)} {unit}s ({logged[:60]!r}); there must be one for each, and at most "
            f"one more for {END}; is the language (--lang) right?"
        )
    if unit == "word":
        return unicodedata.normalize("NFC", logged), list(range(len(parts)))
    kept: list[int] = []
    composed = ""
    start = 0
    for end in range(1, len(logged) + 1):  # a composed character is complete once its last part is there
        if end == len(logged) or not unicodedata.combining(logged[end]):
            whole = unicodedata.normalize("NFC", logged[start:end])
            composed += whole
            kept += [end - 1] * len(whole)
            start = end
    return composed, kept


def _queued(where: str, delays: Sequence[float], moments: Sequence[float]) -> tuple[float, ...]:
    """When each unit is output if outputs wait for each other, from times that accumulate all computing."""
    done: list[float] = []
    computed = 0.0
    for delay, moment in zip(delays, moments, strict=True):
        took, computed = moment - delay - computed, moment - delay
        if took < 0:
            raise EvaluationError(
                f"{where}: elapsed times do not cumulate computing time as SimulEval's do; use --elapsed logged"
            )
        done.append(max(delay, done[-1] if done else 0.0) + took)
    return tuple(done)


def _incremental(delays: Sequence[float], moments: Sequence[float]) -> tuple[float, ...]:
    """When each unit is output if the model began it at the previous output, from times that accumulate all computing."""
    done = list(moments[:1])
    for place in range(1, len(moments)):
        done.append(max(done[-1], moments[place] - moments[place - 1] + delays[place - 1]))
    return tuple(done)
