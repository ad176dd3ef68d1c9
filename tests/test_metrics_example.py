"""The worked examples of docs/metrics.md: every number in them is what the command prints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from simulsa.evaluation.instances import Instance, write_instances
from simulsa.evaluation.recording import Elapsed
from simulsa.evaluation.score import ScoreConfig, score_log
from simulsa.evaluation.score_report import ROWS

DOCUMENT = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
KEYS = {name: key for key, (name, _) in ROWS.items()}
WORDS, REFERENCE = ["Ein", "Mann", "fährt", "ein", "Fahrrad"], "Ein Mann fährt Rad"
DELAYS = (1000, 2000, 2000, 4000, 4000)


def table(behind: str, number: int = 0) -> dict[str, list[str]]:
    """The cells of the numbered table behind a piece of the document's text, by their line's first cell."""
    text = DOCUMENT[DOCUMENT.index(behind) :]
    rows = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)[number].splitlines()[2:]
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)}


def as_printed(scores: dict[str, Any], name: str) -> str:
    return ROWS[KEYS[name]][1].format(scores[KEYS[name]])


def check(scores: dict[str, Any], rows: dict[str, list[str]]) -> None:
    assert {name: as_printed(scores, name) for name in rows} == {name: cells[-1] for name, cells in rows.items()}


@pytest.fixture
def logs(tmp_path: Path) -> dict[str, Path]:
    """The example as each tool logs it."""
    ours = Instance("a", 0, " ".join(WORDS), REFERENCE, "a.wav", 4000, DELAYS, (1200, 2300, 2300, 4900, 4900), 4)
    write_instances(tmp_path / "simulsa", [ours])
    theirs = {
        "index": 0,
        "prediction": " ".join(WORDS),
        "delays": DELAYS,
        "elapsed": [1200, 2500, 2500, 6400, 6400],
        "reference": REFERENCE,
        "source": ["a.wav"],
        "source_length": 4000,
    }
    (tmp_path / "SimulEval").write_text(json.dumps(theirs))
    lines: list[dict[str, Any]] = [{"id": 0, "metadata": {"wav_name": "a.wav"}}]
    for second, compute_s in enumerate((0.2, 0.3, 1.5, 0.4), start=1):
        new = [word for word, delay in zip(WORDS, DELAYS, strict=True) if delay == 1000 * second]
        chunk = {"total_audio_processed": float(second), "computation_time": compute_s}
        lines.append({"id": 0, **chunk, "generated_tokens": new, "deleted_tokens": []})
    (tmp_path / "simulstream").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "references").write_text(REFERENCE)
    return {tool: tmp_path / tool for tool in ("simulsa", "SimulEval", "simulstream")}


def test_the_worked_example(logs: dict[str, Path]) -> None:
    for path in logs.values():
        check(score_log(path, ScoreConfig(path.with_name("references"))), table("## A worked example"))


@pytest.mark.parametrize(("number", "elapsed"), [(1, "logged"), (2, "queued")])
def test_computation_aware_latency_of_each_tool(logs: dict[str, Path], number: int, elapsed: Elapsed) -> None:
    rows = table("## A worked example", number)
    assert len(rows) == 4 - number
    for tool, cells in rows.items():
        scores = score_log(logs[tool], ScoreConfig(logs[tool].with_name("references"), elapsed=elapsed))
        assert as_printed(scores, "computation-aware LAAL") == cells[-1], tool


def test_the_long_recording(tmp_path: Path) -> None:
    record = {"prediction": "Ein Mann Zwei Hunde spielen", "delays": [1000, 2500, 3500, 4000, 4500], "source": ["talk.wav"]}
    (tmp_path / "log").write_text(json.dumps(record))
    (tmp_path / "references").write_text("Ein Mann\nZwei Hunde spielen\n")
    segments = [{"wav": "talk.wav", "offset": offset, "duration": 2.0} for offset in (0.0, 2.5)]
    (tmp_path / "segments.json").write_text(json.dumps(segments))
    check(
        score_log(tmp_path / "log", ScoreConfig(tmp_path / "references", tmp_path / "segments.json")),
        table("### A long recording"),
    )


def test_flicker_and_loops(tmp_path: Path) -> None:
    rows = table("### Flicker and loops")
    steps = [("Ein Mann fährt", ""), ("läuft heute", "fährt")], [("und dann und dann und dann", "")]
    scores: list[dict[str, Any]] = []
    for number, chunks in enumerate(steps):
        lines: list[dict[str, Any]] = [{"id": 0, "metadata": {"wav_name": "a.wav"}}]
        for second, (new, deleted) in enumerate(chunks, start=1):
            times = {"total_audio_processed": float(second), "computation_time": 0.0}
            lines.append({"id": 0, **times, "generated_tokens": new.split(), "deleted_tokens": deleted.split()})
        (tmp_path / f"log{number}").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / "references").write_text("Ein Mann läuft heute")
        scores.append(score_log(tmp_path / f"log{number}", ScoreConfig(tmp_path / "references")))
    check(scores[0], {"normalised erasure": rows["normalised erasure"]})
    check(scores[1], {"repeated 4-grams": rows["repeated 4-grams"]})
    assert len(rows) == 2


def test_every_metric_that_is_printed_is_explained() -> None:
    printed = {name for key, (name, _) in ROWS.items() if not key.startswith("ca_")}
    assert {name for name in printed if name not in DOCUMENT} == set()
