"""What making rows starts from and leaves: the rows in words, and a finished output."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from simulsa.manifest import ManifestError, Utterance, read_manifest

logger = logging.getLogger("simulsa")


class AugmentError(ValueError):
    """Rows or an output that augmentation cannot work with; the message gives the values found, the rule and the fix."""


def described(rows: Sequence[Utterance]) -> Iterator[str]:
    """All of each offline row that decides about what is made of it; not where the file lies."""
    for row in rows:
        yield json.dumps(
            [row.id, Path(row.audio).name, row.start_s, row.duration_s, row.source_lang, row.target_lang, row.target_text]
        )


def finished_rows(out: Path, run: str) -> list[Utterance] | None:
    """The rows of `out` if an equal run made them, `None` if there is no such file; `AugmentError` for anything else."""
    if not out.exists():
        return None
    try:
        rows = read_manifest(out)
    except (ManifestError, OSError):
        rows = []
    if rows and all(row.made_by is not None and row.made_by.get("run") == run for row in rows):
        logger.info("%s is complete already", out)
        return rows
    raise AugmentError(
        f"{out}: exists and was made with other settings, rows or model; choose another --out, or replace it with --overwrite"
    )
