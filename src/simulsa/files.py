"""Atomic file writes, and JSON Lines journals that survive a kill."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from simulsa import strict_json


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` once everything is written; on any error `path` is untouched."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # unique even among the threads of a process, and among machines that share a disk
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with open(partial, mode, encoding=None if "b" in mode else "utf-8", newline=None if "b" in mode else "\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def sole_writer(out: Path, busy: Exception) -> Iterator[None]:
    """Raise `busy` if another process writes `out` in such a context: each would write over what the other has made.

    A lock file beside `out` is held, and removed afterwards. Nothing is held where files cannot be locked or written.
    """
    if fcntl is None:
        yield
        return
    out = out.resolve()
    lock = out.with_name(f".{out.name}.lock")
    with contextlib.ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(lock, "w"))
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, this lock is not inherited by loaders
        except BlockingIOError:
            raise busy from None
        except OSError:
            pass
        else:
            stack.callback(lock.unlink, missing_ok=True)
        yield


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON atomically. Raises `JSONError` for NaN and infinity."""
    with atomic_write(path) as file:
        file.write(strict_json.dumps(value, indent=2) + "\n")


def append_jsonl(path: str | Path, values: Iterable[dict[str, Any]]) -> None:
    """Append objects to a JSON Lines file and sync it to disk before returning; an incomplete last line is removed first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = memoryview("".join(strict_json.dumps(value) + "\n" for value in values).encode("utf-8"))
    # unbuffered: on closing, a buffer would try again to write its remainder, after the truncation below
    with open(path, "a+b", buffering=0) as file:
        end = _end_of_whole_lines(file) if lines else file.seek(0, os.SEEK_END)
        try:
            file.truncate(end)
            while lines:
                lines = lines[file.write(lines) :]
            os.fsync(file.fileno())
        except OSError:
            # a full disk must not leave half a line behind
            with contextlib.suppress(OSError):
                os.truncate(path, end)
            raise


def _end_of_whole_lines(file: IO[bytes]) -> int:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 1))
    if file.read(1) in (b"", b"\n"):
        return end
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def recover_jsonl(path: str | Path, keys: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The objects of a journal written by `append_jsonl`, without an incomplete last line; the file stays as it is.

    Raises `ValueError`, which names the line, if the file holds anything but objects that have all of `keys`.
    """
    path = Path(path)
    if not path.exists():
        return []
    values = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        if line.strip():
            try:
                value = strict_json.loads(line.decode("utf-8"))
                if not isinstance(value, dict) or not set(keys) <= value.keys():
                    raise ValueError("no object" + (f" with {', '.join(keys)}" if keys else ""))
            except ValueError as error:
                raise ValueError(
                    f"{path}:{number}: not a line of the journal that belongs here ({error}); delete the file to start over, "
                    "or move it away"
                ) from error
            values.append(value)
    return values
