"""Long recordings: translations resegmented to the reference's segments by OmniSTEval's SoftSegmenter, and scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulsa.evaluation.instances import EvaluationError
from simulsa.evaluation.recording import Log, Recording, units
from simulsa.evaluation.references import ReferenceSegment, by_recording
from simulsa.evaluation.scores import Score, latency
from simulsa.languages import base_language, is_spaced, latency_unit

NAMES = {  # the names of segment-level scores
    "al_ms": "long_al_ms",
    "laal_ms": "stream_laal_ms",
    "ap": "long_ap",
    "dal_ms": "long_dal_ms",
    "yaal_ms": "long_yaal_ms",
}
NAMES |= {f"ca_{name}": f"ca_{long}" for name, long in NAMES.items()}


def resegmented(log: Log, segments: Sequence[ReferenceSegment], lang: str, partial: bool = False) -> list[Any]:
    """OmniSTEval's long-form instances, one for each segment, with times relative to the segment's start.

    SoftSegmenter (Polák et al., arXiv 2509.17349) aligns the words of a recording with all its references at once. Raises
    `EvaluationError` if recordings and segments do not belong together (see `by_recording`, also for `partial`).
    """
    from omnisteval import resegment
    from omnisteval.alignment import Word

    unit = latency_unit(lang)
    found = by_recording(segments, log, partial)
    heard: list[list[Any]] = []
    wanted: list[list[Any]] = []
    described: list[dict[str, Any]] = [{} for _ in segments]
    for document, (recording, places) in enumerate(found.values()):
        end_ms = max(segments[place].offset_ms + segments[place].duration_ms for place in places)
        heard.append(_words(recording, unit))
        wanted.append([])
        for number, place in enumerate(places):
            segment = segments[place]
            wanted[-1] += [Word(part, emission_cu=segment.offset_ms, seq_id=place) for part in _parts(segment, unit)]
            described[place] = {
                "offset": segment.offset_ms,
                "duration": segment.duration_ms,
                "time_to_recording_end": end_ms - segment.offset_ms,
                "doc_id": document,
                "seg_id": number,
            }
    references = [_reference(segment, unit) for segment in segments]
    tokenizer = base_language(lang) if is_spaced(lang) else None
    instances, _ = resegment(wanted, heard, described, references, char_level=unit == "char", lang=tokenizer)
    for instance in instances:
        instance.longform = True
    return list(instances)


def longform_latency(instances: Sequence[Any], timed: bool) -> Score:
    """Latency of segments, under the names of long-form evaluation."""
    return {NAMES[name]: value for name, value in latency(instances, timed).items()}


def _words(recording: Recording, unit: str) -> list[Any]:
    from omnisteval.alignment import Word

    parts = units(recording.prediction, unit)
    moments = recording.elapsed_ms or (None,) * len(parts)
    return [
        Word(part, emission_cu=delay, emission_ca=moment)
        for part, delay, moment in zip(parts, recording.delays_ms, moments, strict=True)
    ]


def _reference(segment: ReferenceSegment, unit: str) -> str:
    return segment.reference.replace(" ", "") if unit == "char" else segment.reference


def _parts(segment: ReferenceSegment, unit: str) -> list[str]:
    parts = units(_reference(segment, unit).lower(), unit)
    if not parts:
        raise EvaluationError(f"the reference of the segment of {segment.name!r} at {segment.offset_ms / 1000:g} s is empty")
    return parts
