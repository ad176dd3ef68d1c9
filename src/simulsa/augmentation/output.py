"""Output of an augmentation: its errors, and the rows of a finished run."""

from __future__ import annotations

import logging
from pathlib import Path

from simulsa.lalm.signature import same_audio
from simulsa.manifest import ManifestError, Utterance, read_manifest

logger = logging.getLogger("simulsa")


class AugmentError(ValueError):
    """Rows or an output that augmentation cannot use; the message gives the values found, the rule and the fix."""


def finished_rows(out: Path, run: str, audio: str | None) -> list[Utterance] | None:
    """The rows of `out` if the run with the signature `run` made them from this `audio`, `None` if there is no such file.

    Raises `AugmentError` for anything else.
    """
    if not out.exists():
        return None
    try:
        rows = read_manifest(out)
    except (ManifestError, OSError):
        rows = []
    made_by = [row.made_by or {} for row in rows]
    same_run = bool(rows) and all(made.get("run") == run for made in made_by)
    if same_run and all(same_audio(recorded, audio) for recorded in {made.get("audio") for made in made_by}):
        logger.info("%s is already complete", out)
        return rows
    raise AugmentError(
        f"{out}: exists and was made with other settings, rows, audio or model; choose another --out, or replace it with "
        "--overwrite"
    )
