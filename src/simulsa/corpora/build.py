"""Turn the rows of a corpus into a manifest with verified audio: shards, missing audio, lengths."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulsa.audio import SAMPLE_RATE, AudioError, check_samples, flac_path, samples_to_s, slice_frames, write_flac
from simulsa.corpora.layout import CorpusError, tsv_line
from simulsa.corpora.lengths import audio_lengths
from simulsa.files import atomic_write
from simulsa.languages import language_name
from simulsa.manifest import Utterance, check_ids, write_manifest
from simulsa.progress import track
from simulsa.settings import check_whole_numbers

logger = logging.getLogger("simulsa")


@dataclass(frozen=True)
class CorpusConfig:
    """Settings common to all corpora."""

    data: Path = Path()
    """folder of the corpus"""
    source_lang: str = "en"
    """language of the speech"""
    target_lang: str = "de"
    """language of the translation"""
    shard: str = "1/1"
    """`i/n`: only the i-th of n parts, e.g. to use several machines; the concatenated parts are the whole manifest"""
    jobs: int = 8
    """number of audio files read in parallel"""
    strict: bool = False
    """fail if audio is missing or unreadable, instead of skipping its rows"""
    overwrite: bool = False
    """replace an existing manifest"""

    def __post_init__(self) -> None:
        check_whole_numbers(self, {"jobs": 1})
        shard_of(self.shard, 0)
        for lang in (self.source_lang, self.target_lang):
            language_name(self.code(lang))

    def code(self, lang: str) -> str:
        """The code that manifests give a language that the corpus calls `lang`."""
        return lang


@dataclass(frozen=True)
class Unwritten:
    """A row whose audio is not in a file yet.

    `load` returns samples (float32 `[samples]` or `[samples, channels]`) and their rate in Hz. `row.audio` describes
    the source of the audio; it is replaced by the path of the file once that is written.
    """

    row: Utterance
    load: Callable[[], tuple[np.ndarray, int]]


def shard_of(shard: str, count: int) -> range:
    """Which of `count` rows belong to shard `i/n`. Raises `ValueError` for anything but `i/n` with 1 <= i <= n."""
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    part, parts = map(int, match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise ValueError(f"shard is {shard!r}; it must be i/n with i from 1 to n, e.g. 1/4")
    return range(count * (part - 1) // parts, count * part // parts)


def write_corpus(listed: Sequence[Utterance | Unwritten], out: Path, config: CorpusConfig) -> list[Utterance]:
    """Write the listed rows whose audio exists, with their durations, to the manifest `out`; returns these rows.

    Skipped rows are listed with the reason in `<out>.missing.txt`. Embedded audio is written to `<out without suffix>-audio/`.
    Raises `CorpusError` if no row is left, audio is missing and `config.strict` is set, or `out` exists; `ManifestError` if an id
    occurs twice.
    """
    new_output(out, config.overwrite)
    part = shard_of(config.shard, len(listed))
    if not part:
        raise CorpusError(f"shard {config.shard} of {len(listed)} rows is empty; check --data and --split, or use fewer shards")
    missing = _Missing(out)
    items = [listed[index] for index in track(part, "reading rows")]
    check_ids([_row_of(item) for item in items], ": remove the duplicates from the corpus")
    rows = _with_files(missing.with_translation(items), out, config.jobs, missing)
    journal = out.with_name(out.name + ".lengths")
    lengths = audio_lengths((row.audio for row in rows), config.jobs, journal)
    kept = missing.with_audio(rows, lengths)
    missing.report(len(part), kept, config.strict)
    write_manifest(out, kept)
    journal.unlink(missing_ok=True)
    logger.info("%d rows, %.2f hours", len(kept), sum(row.duration_s or 0.0 for row in kept) / 3600)
    return kept


def new_output(out: Path, overwrite: bool) -> None:
    """Raise `CorpusError` if `out` is not suitable for a new manifest."""
    if out.suffix != ".jsonl":
        raise CorpusError(f"{out}: the output must be a .jsonl file, because files beside it are named after it")
    if out.exists() and not overwrite:
        raise CorpusError(f"{out} exists; choose another --out, or replace it with --overwrite")


def _row_of(item: Utterance | Unwritten) -> Utterance:
    return item if isinstance(item, Utterance) else item.row


class _Missing:
    """Rows that are left out, and why."""

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(out.name + ".missing.txt")
        self.untranslated: list[str] = []
        self.unheard: list[tuple[str, str]] = []

    def with_translation(self, items: Sequence[Utterance | Unwritten]) -> list[Utterance | Unwritten]:
        """The rows that have a translation."""
        self.untranslated += [_row_of(item).id for item in items if not _row_of(item).target_text.strip()]
        return [item for item in items if _row_of(item).target_text.strip()]

    def with_audio(self, rows: Sequence[Utterance], lengths: dict[str, int | AudioError]) -> list[Utterance]:
        """The rows whose slice lies inside a readable file, with their duration in seconds."""
        kept = []
        for row in rows:
            length = lengths[row.audio]
            try:
                if isinstance(length, AudioError):
                    raise length
                first, last = slice_frames(row.audio, length, SAMPLE_RATE, row.start_s, row.duration_s)
            except AudioError as error:
                self.unheard.append((row.id, str(error)))
                continue
            duration_s = samples_to_s(last - first) if row.duration_s is None else row.duration_s
            kept.append(dataclasses.replace(row, duration_s=duration_s))
        return kept

    def report(self, count: int, kept: Sequence[Utterance], strict: bool) -> None:
        """Write the list and log its size; raise `CorpusError` if audio is missing in strict mode or no row is left."""
        lines = [tsv_line(name, "no translation") for name in self.untranslated]
        lines += [tsv_line(name, " ".join(reason.split())) for name, reason in self.unheard]
        if not lines:
            self.path.unlink(missing_ok=True)
            return
        with atomic_write(self.path) as file:
            file.writelines(lines)
        if self.untranslated:
            logger.info("%d of %d rows have no translation and are skipped: see %s", len(self.untranslated), count, self.path)
        found = f"the audio of {len(self.unheard)} of {count} rows is missing or unreadable, listed in {self.path}"
        example = f" (the first: {self.unheard[0][1]})" if self.unheard else ""
        if self.unheard and strict:
            raise CorpusError(f"{found}{example}; add the audio, or skip these rows by omitting --strict")
        if not kept:
            raise CorpusError(f"none of {count} rows is left: {found}{example}; {len(self.untranslated)} have no translation")
        if self.unheard:
            logger.warning("%s; these rows are skipped%s", found, example)


def _with_files(listed: Sequence[Utterance | Unwritten], out: Path, jobs: int, missing: _Missing) -> list[Utterance]:
    """The listed rows, after writing audio files for those without one; rows with broken audio go to `missing`."""
    folder = out.with_name(out.stem + "-audio")

    def write(item: Utterance | Unwritten) -> Utterance | tuple[str, str]:
        if isinstance(item, Utterance):
            return item
        try:
            return _written(item, folder)
        except AudioError as error:
            return item.row.id, str(error)

    with ThreadPoolExecutor(jobs) as pool:
        unwritten = any(isinstance(item, Unwritten) for item in listed)
        rows = list(track(pool.map(write, listed), "writing audio", len(listed)) if unwritten else map(write, listed))
    missing.unheard += [row for row in rows if not isinstance(row, Utterance)]
    return [row for row in rows if isinstance(row, Utterance)]


def _written(item: Unwritten, folder: Path) -> Utterance:
    """Write the audio as FLAC. The name includes a checksum of the audio, so an existing file is kept only if it matches."""
    samples, rate = item.load()
    if samples.ndim > 2:
        raise AudioError(f"{item.row.audio}: audio has shape {samples.shape}; it must be [samples] or [samples, channels]")
    check_samples(samples.reshape(-1), item.row.audio)
    path = flac_path(folder, item.row.id, f"{rate} {samples.shape} ".encode() + samples.tobytes())
    if not path.exists():
        write_flac(path, samples, rate)
    return dataclasses.replace(item.row, audio=str(path))
