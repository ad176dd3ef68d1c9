"""Any Lhotse CutSet: one row per supervision of its cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulsa.audio import AudioError
from simulsa.corpora.build import CorpusConfig, Unwritten
from simulsa.corpora.layout import CorpusError, need
from simulsa.extras import optional
from simulsa.manifest import Utterance


@dataclass(frozen=True)
class LhotseConfig(CorpusConfig):
    """A Lhotse CutSet as a manifest (needs `simulsa[lhotse]`); cuts that are not plain slices of a file are written as FLAC."""

    data: Path = Path()
    """the cuts (.jsonl or .jsonl.gz)"""
    target_field: str = "translation"
    """custom field with the translation, of the supervision or else of the cut; a dot selects a nested field, e.g.
    translation.de"""
    audio_root: Path | None = None
    """base folder of relative audio paths, if it is not the current folder"""


def read_lhotse(config: LhotseConfig) -> Sequence[Utterance | Unwritten]:
    """One row per supervision, in the order of the cuts.

    Raises `CorpusError` if there are no such cuts or none has the field, and `RuntimeError` if `lhotse` is not installed.
    """
    lhotse = optional("lhotse", "lhotse", "this corpus")
    path = need(config.data, "--data must be a file with cuts")
    try:
        cuts = list(lhotse.CutSet.from_file(path))
    except Exception as error:  # the library passes on whatever its readers raise
        raise CorpusError(f"{path}: not readable as a CutSet ({type(error).__name__}: {error}); --data must be cuts") from error
    rows = [_row(cut, supervision, config) for cut in cuts for supervision in cut.supervisions]
    if not rows:
        raise CorpusError(f"{path}: {len(cuts)} cuts without a supervision; the text must be in the supervisions")
    if not any((row.row if isinstance(row, Unwritten) else row).target_text for row in rows):
        found = sorted({name for cut in cuts for supervision in cut.supervisions for name in supervision.custom or {}})
        raise CorpusError(
            f"{path}: no supervision and no cut has the custom field {config.target_field!r}; supervisions have "
            f"{', '.join(found) or 'none'}: name the one with the translation with --target-field"
        )
    return rows


def _row(cut: Any, supervision: Any, config: LhotseConfig) -> Utterance | Unwritten:
    start_s = max(0.0, supervision.start)  # a supervision may extend beyond its cut
    duration_s = round(min(supervision.end, cut.duration) - start_s, 6)
    source = _source(cut)
    name = cut.id if len(cut.supervisions) == 1 else f"{cut.id}-{supervision.id}"
    row = Utterance(
        id=f"{name}-{config.source_lang}-{config.target_lang}",
        audio=f"cut {cut.id}" if source is None else str((config.audio_root or Path()) / source),
        source_lang=config.source_lang,
        target_lang=config.target_lang,
        target_text=(_custom(supervision, config.target_field) or _custom(cut, config.target_field)).strip(),
        source_text=(supervision.text or "").strip() or None,
        start_s=0.0 if source is None else round(cut.start + start_s, 6),
        duration_s=None if source is None else duration_s,
        extra={"speaker": supervision.speaker} if supervision.speaker else {},
    )
    return row if source is not None else Unwritten(row, lambda: _sound(cut, start_s, duration_s))


def _source(cut: Any) -> str | None:
    """The file that a cut is a slice of; `None` if it is mixed, transformed, one of several channels, or not in a file."""
    recording = getattr(cut, "recording", None)
    if not getattr(cut, "has_recording", False) or recording is None or recording.transforms:
        return None
    plain = len(recording.sources) == 1 and recording.sources[0].type == "file" and recording.num_channels == 1
    return str(recording.sources[0].source) if plain else None


def _custom(thing: Any, field: str) -> str:
    found = getattr(thing, "custom", None)
    for part in field.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return "" if found is None else str(found)


def _sound(cut: Any, start_s: float, duration_s: float) -> tuple[np.ndarray, int]:
    try:
        samples = cut.truncate(offset=start_s, duration=duration_s).load_audio()
    except Exception as error:  # the library passes on whatever its backends raise
        raise AudioError(f"cut {cut.id}: cannot be loaded ({type(error).__name__}: {error})") from error
    if samples is None:
        raise AudioError(f"cut {cut.id}: has no recording")
    return np.ascontiguousarray(samples.T, dtype=np.float32), int(cut.sampling_rate)
