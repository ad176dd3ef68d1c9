"""Shared by the readers of corpora: expected files, and tables and lines whose errors name the line."""

from __future__ import annotations

import collections
import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

READABLE = (".wav", ".flac", ".ogg", ".opus", ".mp3")  # audio files to look for, in this order
_AAC = ".m4a"  # libsndfile cannot decode it
_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})
_SHOWN = 8  # entries of a folder that an error message lists


class CorpusError(ValueError):
    """A corpus with an unexpected layout; the message gives what was expected and found, and the fix."""


def need(path: Path, fix: str) -> Path:
    """`path`, if it exists; otherwise raises `CorpusError` with what was found instead and the `fix`."""
    if path.exists():
        return path
    there = path.parent
    while not there.exists():
        there = there.parent
    raise CorpusError(f"expected {path}, but {there} {_contents(there)}; {fix}")


def _contents(place: Path) -> str:
    if not place.is_dir():
        return "is a file"
    names = sorted(entry.name + "/" * entry.is_dir() for entry in place.iterdir())
    if not names:
        return "is empty"
    return f"holds {', '.join(names[:_SHOWN])}" + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, without line endings. Only a line feed ends a line: texts may contain other separators.

    Raises `CorpusError` if the path is a folder or the file is not UTF-8.
    """
    if path.is_dir():
        raise CorpusError(f"{path} is a folder; a text file is needed")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def read_parallel(paths: Sequence[Path]) -> list[tuple[str, ...]]:
    """The lines of parallel files, as tuples; raises `CorpusError` if the files differ in their number of lines."""
    columns = [read_lines(path) for path in paths]
    if len({len(lines) for lines in columns}) > 1:
        found = ", ".join(f"{path.name} {len(lines)}" for path, lines in zip(paths, columns, strict=True))
        raise CorpusError(f"{paths[0].parent}: lines that belong together differ in number ({found}); unpack the corpus again")
    return list(zip(*columns, strict=True))


def read_tsv(
    path: Path,
    needed: Sequence[str],
    header: Sequence[str] | None = None,
    escaped: bool = False,
    only: tuple[str, set[str]] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a tab-separated table as `(line number, values by column)`; quotes are text, blank lines are skipped.

    `header` names the columns of a table that has no header line. In an `escaped` table a backslash makes the next character
    plain text. `only` names a column and the values to keep; other rows are skipped. Raises `CorpusError` if a `needed` column
    is absent or a line that is not skipped has the wrong number of columns.
    """
    lines = enumerate(read_lines(path), start=1)
    if header is None:
        _, first = next(lines, (0, ""))
        header = first.split("\t")
    check_columns(path, header, needed)
    place, wanted = (header.index(only[0]), only[1]) if only else (0, None)
    for number, line in lines:
        values = _unescaped(line) if escaped and "\\" in line else line.split("\t")
        if wanted is not None and wanted.isdisjoint(values[place : place + 1]):
            continue
        if len(values) == len(header):
            yield number, dict(zip(header, values, strict=True))
        elif line.strip():
            raise CorpusError(
                f"{path}:{number}: {len(values)} columns separated by tabs where there must be {len(header)} "
                f"({', '.join(header)}); fix or remove the line"
            )


def _unescaped(line: str) -> list[str]:
    """The columns of a line that Python's csv module wrote with a backslash as `escapechar`."""
    values = next(csv.reader([line.replace("\r", " ")], delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\"))
    return [value.removesuffix("\n") for value in values]  # left by a backslash at the end of the line


def tsv_line(*values: str) -> str:
    """A line of a tab-separated listing; tabs and line breaks, which an id may have, are written as `\\t`, `\\n` and `\\r`."""
    return "\t".join(value.translate(_ESCAPES) for value in values) + "\n"


def check_columns(table: object, found: Sequence[str], needed: Sequence[str]) -> None:
    """Raise `CorpusError` if a `needed` column is there twice, or neither it nor the column named by the part before its dot."""
    absent = [name for name in needed if name not in found and name.split(".")[0] not in found]
    if absent:
        raise CorpusError(f"{table}: no column {', '.join(absent)}; it has {', '.join(found)}")
    for name in needed:
        if (count := found.count(name)) > 1:
            raise CorpusError(f"{table}: {count} columns are named {name!r}; rename the others")


def segment_ids(recordings: Sequence[str], source_lang: str, target_lang: str) -> list[str]:
    """An id for each segment, made of its recording's name and its number within the recording."""
    counted: collections.Counter[str] = collections.Counter()
    ids = []
    for name in recordings:
        ids.append(f"{name}-{counted[name]:04d}-{source_lang}-{target_lang}")
        counted[name] += 1
    return ids


def seconds(text: str, where: str) -> float:
    """A time in seconds; `where` names the file and line in the `CorpusError` raised if it is not a number."""
    try:
        return float(text)
    except ValueError:
        raise CorpusError(f"{where}: {text!r} where a number of seconds is needed; fix or remove the line") from None


class AudioFolder:
    """A folder of audio files, listed only once, because a corpus looks up hundreds of thousands of them.

    Raises `CorpusError` if all of its audio is AAC (.m4a).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = {entry.name for entry in os.scandir(folder)}
        suffixes = {os.path.splitext(name)[1] for name in self._names}
        if _AAC in suffixes and suffixes.isdisjoint(READABLE):
            raise CorpusError(
                f"{folder}: all audio is .m4a, which cannot be read here; convert it once, beside the originals: "
                f'cd {folder} && for f in *.m4a; do ffmpeg -i "$f" -ac 1 -ar 16000 "${{f%.m4a}}.flac"; done'
            )

    def find(self, name: str) -> str:
        """The path of `name`, or of a file that differs only in its suffix; the path of `name` itself if neither exists.

        `name` may lack a suffix.
        """
        stem, suffix = os.path.splitext(name)
        stem = stem if suffix in (*READABLE, _AAC) else name
        candidates = (name if suffix in READABLE else "", *(stem + other for other in (*READABLE, _AAC)))
        return str(self.folder / next((candidate for candidate in candidates if candidate in self._names), name))
