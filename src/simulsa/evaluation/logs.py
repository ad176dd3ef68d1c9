"""Logs of any system run with SimulEval or simulstream, as recordings that can be scored."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from simulsa import strict_json
from simulsa.evaluation.instances import EvaluationError
from simulsa.evaluation.recording import Elapsed, Log
from simulsa.evaluation.simuleval_log import read_simuleval
from simulsa.evaluation.simulstream_log import Tokens, is_simulstream, read_simulstream


def read_log(
    path: str | Path,
    unit: str = "word",
    elapsed: Elapsed = "logged",
    tokens: Tokens = "auto",
    partial: bool = False,
    count_end: bool = False,
) -> Log:
    """Read SimulEval's `instances.log` (simulsa's too) or simulstream's metrics log; the format is detected from its lines.

    `unit` is `word` or `char`. `partial` skips what an interrupted run left incomplete, which is an error otherwise; `count_end`
    counts SimulEval's end mark as a word. Raises `EvaluationError` for an invalid log, with the line and the fix.
    """
    lines, notes = _objects(Path(path), partial)
    if not lines:
        raise EvaluationError(f"{path}: holds no records; give the log of a finished run")
    if is_simulstream(lines[0][1]):
        log = read_simulstream(lines, unit, elapsed, tokens, partial)
    elif "prediction" in lines[0][1]:
        log = read_simuleval(lines, unit, elapsed, count_end)
    else:
        raise EvaluationError(
            f"{lines[0][0]}: keys {', '.join(lines[0][1])}; it must be a log of SimulEval (prediction, delays, ...) or of "
            "simulstream (id, generated_tokens, ...)"
        )
    if not log.recordings:
        raise EvaluationError(f"{path}: holds no recording that was translated; give the log of a finished run")
    key = "name" if log.tool == "simulstream" else "index"
    for value, count in Counter(getattr(recording, key) for recording in log.recordings).items():
        if count > 1 and value != "":
            raise EvaluationError(f"{path}: {key} {value!r} occurs twice; the log holds two runs: delete it before running again")
    log.notes[:0] = notes
    return log


def _objects(path: Path, partial: bool) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """Each line's place and object, and notes on what was left out."""
    try:
        raw = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such log") from None
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path}: not UTF-8 text ({error}); a log of SimulEval or simulstream is needed") from error
    numbered = [(number, line) for number, line in enumerate(raw, start=1) if line.strip()]
    objects: list[tuple[str, dict[str, Any]]] = []
    for number, line in numbered:
        where = f"{path}:{number}"
        try:
            values = strict_json.loads(line)
        except strict_json.JSONError as error:
            if number < numbered[-1][0] or isinstance(error, strict_json.NumberError):
                raise EvaluationError(f"{where}: not JSON ({error}); a log has a JSON object in each line") from error
            if not partial:
                raise EvaluationError(
                    f"{where}: the last line of the log is incomplete; finish the run, or score the complete part with --partial"
                ) from error
            return objects, [f"line {number} is incomplete and was skipped"]
        if not isinstance(values, dict):
            raise EvaluationError(f"{where}: a {type(values).__name__}; a log has a JSON object in each line")
        objects.append((where, values))
    return objects, []
