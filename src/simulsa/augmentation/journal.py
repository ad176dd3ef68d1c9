"""Progress of an augmentation run, in a file beside its output, so that an interrupted run can resume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulsa import strict_json
from simulsa.files import append_jsonl, recover_jsonl
from simulsa.lalm.signature import same_audio


class JournalError(ValueError):
    """A journal of another run, or a file that is not a journal."""


class Journal:
    """Number of target tokens that each finished row keeps, by id.

    Everything else follows from the settings. The first line holds the run's signature of all that determines the rows, and that
    of their audio.
    """

    def __init__(self, out: Path, run: str, audio: str | None) -> None:
        self.path = out.with_suffix(".partial.jsonl")
        self._first = {"run": run, "audio": audio}
        self._named = False  # whether the file's first line, with the signatures, is written

    def start(self, overwrite: bool) -> dict[str, int]:
        """Begin or resume: returns the finished rows. Raises `JournalError` when the journal is another run's.

        With `overwrite`, an existing journal is discarded.
        """
        if overwrite:
            self.remove()
        try:
            lines = recover_jsonl(self.path)
            if not lines:
                self._check_first_line()
                return {}
            if lines[0]["run"] == self._first["run"] and same_audio(lines[0].get("audio"), self._first["audio"]):
                self._named = True
                return {str(line["id"]): int(line["found"]) for line in lines[1:]}
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(f"{self.path}: not a journal of this command; move it away or use --overwrite") from error
        raise JournalError(
            f"{self.path}: an unfinished run with other settings, rows, audio or model; repeat that run to finish it, "
            "choose another --out, or start over with --overwrite"
        )

    def _check_first_line(self) -> None:
        """Raise `ValueError` if the file has something else than the beginning of this run's first line, left by a kill."""
        if self.path.exists() and not strict_json.dumps(self._first).encode().startswith(self.path.read_bytes()):
            raise ValueError("it is another text")

    def append(self, kept: Mapping[str, int]) -> None:
        """Record finished rows."""
        entries: list[dict[str, Any]] = [{"id": row_id, "found": count} for row_id, count in kept.items()]
        append_jsonl(self.path, entries if self._named else [self._first, *entries])
        self._named = True

    def remove(self) -> None:
        """Delete the journal of a run that is complete or abandoned."""
        self.path.unlink(missing_ok=True)
