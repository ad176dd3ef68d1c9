"""What making rows starts from and leaves: the rows in words, and a finished output."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from simulsa import strict_json
from simulsa.augmentation.journal import Journal
from simulsa.manifest import ManifestError, Utterance, read_manifest, write_manifest

logger = logging.getLogger("simulsa")


class AugmentError(ValueError):
    """Rows or an output that augmentation cannot work with; the message gives the values found, the rule and the fix."""


def described(rows: Sequence[Utterance]) -> Iterator[str]:
    """All of each offline row that decides about what is made of it; not where the file lies."""
    for row in rows:
        yield strict_json.dumps(
            [row.id, Path(row.audio).name, row.start_s, row.duration_s, row.source_lang, row.target_lang, row.target_text],
            escape=True,
        )


def made_once(out: Path | None, run: str, overwrite: bool, make: Callable[[Journal | None], list[Utterance]]) -> list[Utterance]:
    """The rows of the run with the signature `run`: those in `out` if it is finished, else `make`'s, which are written there.

    `make` gets the run's journal, to go on from and to write to; without `out` there is none. Raises `AugmentError` when `out`
    is no .jsonl file or holds something else.
    """
    if out is None:
        return make(None)
    out = Path(out)
    if out.suffix != ".jsonl":
        raise AugmentError(f"{out}: the output must be a .jsonl file, because what lies beside it takes its name")
    journal = Journal(out, run)
    rows = None if overwrite else _finished(out, run)
    if rows is None:
        rows = make(journal)
        write_manifest(out, rows)
    journal.remove()
    return rows


def _finished(out: Path, run: str) -> list[Utterance] | None:
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
