"""Lengths of audio files, read in parallel and journaled, so that an interrupted run can resume."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from simulsa.audio import AudioError, audio_length
from simulsa.files import append_jsonl, recover_jsonl
from simulsa.progress import track

_BLOCK = 1000  # files per write to the journal


def audio_lengths(paths: Iterable[str], jobs: int, journal: Path | None = None) -> dict[str, int | AudioError]:
    """The length of each file in samples at `SAMPLE_RATE`, or the error; `jobs` threads read the headers.

    `journal` is a file that stores the lengths: audio files with unchanged size and modification time are not opened again.
    """
    wanted = list(dict.fromkeys(paths))
    entries = [] if journal is None else recover_jsonl(journal, ("audio", "samples"))
    known = {entry["audio"]: entry for entry in entries}
    lengths: dict[str, int | AudioError] = {}
    with ThreadPoolExecutor(jobs) as pool:
        blocks = [wanted[first : first + _BLOCK] for first in range(0, len(wanted), _BLOCK)]
        for block in track(blocks, "checking audio"):
            found = list(pool.map(lambda path: _measure(path, known.get(path)), block))
            if journal is not None:
                new = [entry for entry in found if isinstance(entry, dict) and entry is not known.get(entry["audio"])]
                append_jsonl(journal, new)
            for path, entry in zip(block, found, strict=True):
                lengths[path] = entry if isinstance(entry, AudioError) else entry["samples"]
    return lengths


def _measure(path: str, known: dict[str, Any] | None) -> dict[str, Any] | AudioError:
    try:
        state = Path(path).stat()
        mark = {"audio": path, "size": state.st_size, "mtime_ns": state.st_mtime_ns}
        if known is not None and {**known, **mark} == known:
            return known
        return {**mark, "samples": audio_length(path)}
    except AudioError as error:
        return error
    except OSError:
        return AudioError(f"{path}: no such audio file")
