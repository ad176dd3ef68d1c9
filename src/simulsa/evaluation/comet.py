"""COMET and xCOMET, run by unbabel-comet's `comet-score` in its own environment: its requirements conflict with simulsa's."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from simulsa import strict_json
from simulsa.evaluation.instances import EvaluationError, single_spaced
from simulsa.files import append_jsonl, recover_jsonl

logger = logging.getLogger("simulsa")

COMMAND = "uvx --python 3.11 --from unbabel-comet==2.2.7 --with setuptools<81 comet-score"
"""Installs and caches the environment on first use. unbabel-comet needs numpy below 2, hence the Python, and `pkg_resources`,
hence the setuptools."""
SEGMENTS_PER_CALL = 10_000  # balances what an interruption can lose against loading the model once per call
_OWN_FLAGS = ("--sources", "--translations", "--references", "--sacrebleu_dataset", "--model", "--to_json")


class Segment(NamedTuple):
    """What COMET scores: the transcript, its translation and the reference."""

    source: str
    translation: str
    reference: str


def check_comet(model: str, command: str) -> None:
    """Raise `ValueError` for settings that no environment can run."""
    if not model.strip():
        raise ValueError("comet is empty; it must be the name of a model, such as Unbabel/wmt22-comet-da")
    words = _words(command)
    given = [word for word in words if word.split("=")[0] in _OWN_FLAGS]
    if given:
        raise ValueError(f"comet_command is {command!r}; it must leave {given[0]} to simulsa: remove it")


def find_command(command: str) -> None:
    """Raise `EvaluationError` if the command's program is not installed; call this before hours of other work."""
    program = _words(command)[0]
    if shutil.which(program) is None:
        raise EvaluationError(f"comet_command starts with {program!r}, which was not found: {_INSTALL}")


def comet_scores(segments: Sequence[Segment], model: str, command: str, journal: Path) -> list[float]:
    """The score of each segment, in order.

    `journal` (JSON Lines) keeps every score with its texts, model and command, so that a second call scores new segments only,
    and an interrupted one loses at most `SEGMENTS_PER_CALL`. Raises `EvaluationError` when the command fails, with its last
    error and the fix.
    """
    segments = [Segment(*map(single_spaced, segment)) for segment in segments]  # one line each
    asked = {"model": model, "command": command}
    append_jsonl(journal, [])  # a folder that cannot be written to fails before the work
    known = {
        Segment(entry["source"], entry["translation"], entry["reference"]): float(entry["comet"])
        for entry in recover_jsonl(journal, (*asked, *Segment._fields, "comet"))
        if asked.items() <= entry.items()
    }
    new = [segment for segment in dict.fromkeys(segments) if segment not in known]
    for start in range(0, len(new), SEGMENTS_PER_CALL):
        part = new[start : start + SEGMENTS_PER_CALL]
        logger.info("COMET: %d of %d new segments by %s", start + len(part), len(new), model)
        found = _run(part, model, command)
        append_jsonl(journal, [{**asked, **s._asdict(), "comet": value} for s, value in zip(part, found, strict=True)])
        known.update(zip(part, found, strict=True))
    return [known[segment] for segment in segments]


def system_score(scores: Sequence[float]) -> float:
    """COMET's score of a system: the mean of its segments'."""
    return sum(scores) / len(scores)


_INSTALL = (
    "pip install uv, or make an environment (python3.11 -m venv comet-env; comet-env/bin/pip install unbabel-comet==2.2.7 "
    "'setuptools<81') and give --comet-command comet-env/bin/comet-score"
)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"comet_command is {command!r}: {error}") from error
    if not words:
        raise ValueError("comet_command is empty; it must be a command line that ends in comet-score")
    return words


def _run(segments: Sequence[Segment], model: str, command: str) -> list[float]:
    """One call of the command: texts in three files, scores in a JSON file."""
    with tempfile.TemporaryDirectory(prefix="simulsa-comet-") as name:
        folder = Path(name)
        given = []
        for flag, texts in zip(("-s", "-t", "-r"), zip(*segments, strict=True), strict=True):
            path = folder / f"{flag[1]}.txt"
            path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8", newline="\n")
            given += [flag, str(path)]
        out = folder / "scores.json"
        # the command has its own environment: our search path would lead it to our packages
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        arguments = [*_words(command), *given, "--model", model, "--to_json", str(out), "--quiet", "--only_system"]
        try:
            done = subprocess.run(arguments, env=environment, capture_output=True, encoding="utf-8", errors="replace")
        except OSError as error:
            raise EvaluationError(f"comet_command {command!r} cannot be run ({error.strerror}): {_INSTALL}") from error
        if done.returncode:
            raise EvaluationError(_failure(command, done.returncode, done.stderr or done.stdout, model))
        return _scores(out, segments, command)


def _scores(path: Path, segments: Sequence[Segment], command: str) -> list[float]:
    """The scores in `comet-score --to_json`'s file: `{translations file: [{"src", "mt", "ref", "COMET"}, ...]}`."""
    rule = "it must write what unbabel-comet's comet-score does: is --comet-command such a command?"
    try:
        (entries,) = strict_json.loads(path.read_text(encoding="utf-8")).values()
        found = [float(entry["COMET"]) for entry in entries]
        heard = [entry["mt"] for entry in entries]
    except strict_json.NumberError as error:
        raise EvaluationError(
            f"comet_command {command!r}: {error}; comet-score computes in half precision: try another model"
        ) from error
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"comet_command {command!r} wrote no scores ({error!r}); {rule}") from error
    if heard != [segment.translation for segment in segments]:
        raise EvaluationError(
            f"comet_command {command!r} wrote {len(found)} scores that are not those of the {len(segments)} segments sent"
        )
    return found


_REMEDIES = (  # text in the output, and what to do about it
    (
        "not supported by COMET",
        "is there a network, and is the name right? Gated ones, such as xCOMET, must be accepted on the hub (hf auth login)",
    ),
    ("out of memory", "append --batch_size 4, or --gpus 0, to --comet-command"),
    ("MisconfigurationException", "append --gpus 0 to --comet-command"),
    ("No module named 'pkg_resources'", "install 'setuptools<81' in that environment"),
    ("No module named", _INSTALL),
)


def _failure(command: str, code: int, output: str, model: str) -> str:
    """One line: the command's last error and what can be done."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or [f"exit code {code}, no output"]
    named = [line for line in lines if any(word in line for word in ("Error", "error", "Exception", "×"))]
    fix = next((fix for sign, fix in _REMEDIES if sign in output), "run it by hand to see all it says")
    return f"comet is {model!r}, and {command!r} failed: {(named or lines)[-1]} ({fix}); then run the same command again"
