"""COMET in an environment of its own, played by a stand-in for its command (tests/comet_score.py)."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simulsa.cli import main
from simulsa.evaluation import comet
from simulsa.evaluation.comet import COMMAND, Segment, check_comet, comet_scores
from simulsa.evaluation.compare import compare
from simulsa.evaluation.config import EvaluateConfig
from simulsa.evaluation.evaluate import evaluate
from simulsa.evaluation.instances import EvaluationError
from simulsa.evaluation.score import ScoreConfig, score_log
from simulsa.manifest import Utterance
from simulsa.testing import FakeLALM, growing_script
from tests import comet_score
from tests.score_logs import TEXTS, Lines, record

Rows = Callable[..., list[Utterance]]
SPOKEN = ["A man rides a bike", "Two dogs play in the snow", "A woman sings"]
SEGMENTS = [Segment(spoken, text, reference) for spoken, (text, reference, _) in zip(SPOKEN, TEXTS, strict=True)]


@pytest.fixture
def command(tmp_path: Path) -> str:
    """The stand-in as a command line; `calls` reads what it was asked."""
    shutil.copy(comet_score.__file__, tmp_path / "comet_score.py")
    return shlex.join([sys.executable, str(tmp_path / "comet_score.py")])


def calls(command: str) -> list[dict[str, Any]]:
    path = Path(shlex.split(command)[1]).parent / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def expected(model: str, segments: list[Segment]) -> list[float]:
    return [comet_score.score(segment.translation, segment.reference, model) for segment in segments]


def test_only_new_segments_are_asked_each_once(command: str, tmp_path: Path) -> None:
    journal = tmp_path / "comet.jsonl"
    assert comet_scores([*SEGMENTS[:2], SEGMENTS[0]], "da", command, journal) == expected("da", [*SEGMENTS[:2], SEGMENTS[0]])
    assert [call["mt"] for call in calls(command)] == [[segment.translation for segment in SEGMENTS[:2]]]
    changed = SEGMENTS[1]._replace(translation="Zwei Hunde")
    assert comet_scores([SEGMENTS[0], changed, SEGMENTS[2]], "da", command, journal) == expected(
        "da", [SEGMENTS[0], changed, SEGMENTS[2]]
    )
    assert calls(command)[1]["mt"] == ["Zwei Hunde", SEGMENTS[2].translation]
    assert comet_scores(SEGMENTS, "da", command, journal) == expected("da", SEGMENTS)
    assert len(calls(command)) == 2, "everything was known"
    assert comet_scores(SEGMENTS, "other", command, journal) == expected("other", SEGMENTS)
    assert len(calls(command)) == 3
    comet_scores(SEGMENTS, "da", f"{command} --gpus 0", journal)
    assert calls(command)[3]["gpus"] == 0, "another command may be another version of COMET"


def test_an_interrupted_run_keeps_the_finished_calls(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, run, parts = tmp_path / "comet.jsonl", comet._run, []

    def stopping(segments: Any, *rest: Any) -> list[float]:
        parts.append([segment.translation for segment in segments])
        if len(parts) == 2:
            raise KeyboardInterrupt
        return run(segments, *rest)

    monkeypatch.setattr(comet, "SEGMENTS_PER_CALL", 2)
    monkeypatch.setattr(comet, "_run", stopping)
    with pytest.raises(KeyboardInterrupt):
        comet_scores(SEGMENTS, "da", command, journal)
    with journal.open("a") as file:
        file.write('{"model": "da", "sou')  # killed while writing
    assert comet_scores(SEGMENTS, "da", command, journal) == expected("da", SEGMENTS)
    assert parts == [[SEGMENTS[0].translation, SEGMENTS[1].translation], [SEGMENTS[2].translation], [SEGMENTS[2].translation]]


def test_texts_keep_their_lines(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line breaks inside a text, and empty texts, must not shift the lines behind them."""
    monkeypatch.setenv("PYTHONPATH", "/of/simulsa")
    odd = [Segment("A\r\nman", " Ein\u2028Mann\x85fährt\n", "Ein\rMann"), Segment("Nothing", "", "Nichts"), SEGMENTS[0]]
    plain = [Segment("A man", "Ein Mann fährt", "Ein Mann"), *odd[1:]]
    assert comet_scores(odd, "da", command, tmp_path / "comet.jsonl") == expected("da", plain)
    assert calls(command)[0]["mt"] == ["Ein Mann fährt", "", SEGMENTS[0].translation]
    assert calls(command)[0]["path"] is None, "the command's environment is its own"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("unknown", r"comet is 'unknown'.*KeyError.*not supported by COMET.*is the name right\?.*run the same command again"),
        ("big", r"CUDA out of memory.*append --batch_size 4"),
        ("old", r"No module named 'pkg_resources'.*install 'setuptools<81'"),
        ("silent", r"wrote no scores.*FileNotFoundError.*is --comet-command such a command\?"),
        ("short", r"wrote 2 scores that are not those of the 3 segments sent"),
        ("nan", r"NaN is not JSON.*half precision"),
    ],
)
def test_a_failing_command_is_told_in_one_line_with_the_fix(command: str, tmp_path: Path, model: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as raised:
        comet_scores(SEGMENTS, model, command, tmp_path / "comet.jsonl")
    assert "\n" not in str(raised.value)
    assert (tmp_path / "comet.jsonl").read_text() == "", "nothing wrong is remembered"


def test_a_command_that_cannot_be_run_is_refused() -> None:
    for wrong, message in (
        ("", "is empty"),
        ("comet-score 'x", "No closing quotation"),
        ("comet-score --model x", "leave --model"),
    ):
        with pytest.raises(ValueError, match=message):
            check_comet("da", wrong)
    with pytest.raises(ValueError, match="comet is empty"):
        check_comet(" ", COMMAND)
    check_comet("da", COMMAND)


def test_score_has_comet_with_its_scores_beside_the_log(
    written: Lines, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = written([record(i) for i in range(3)])
    sources = written(SPOKEN, "sources")
    given = ["score", str(log), "--sources", str(sources), "--comet", "da", "--comet-command", command]
    assert main([*given, "--json", str(tmp_path / "scores.json")]) == 0
    values = expected("da", SEGMENTS)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["comet"], scores["comet_model"]) == (pytest.approx(sum(values) / 3), "da")
    assert f"{sum(values) / 3:.4f}" in capsys.readouterr().out
    assert calls(command)[0]["src"] == SPOKEN
    assert main(given) == 0
    assert len(calls(command)) == 1
    assert len((tmp_path / f"{log.name}.comet.jsonl").read_text().splitlines()) == 3


def test_score_asks_about_the_segments_of_long_recordings(written: Lines, command: str) -> None:
    log = written([record(0, prediction="Ein Mann Zwei Hunde", delays=[500, 1000, 1500, 2000], elapsed=[500, 1000, 1500, 2000])])
    segments = [{"wav": "clip-0.wav", "offset": start, "duration": 1.0} for start in (0, 1)]
    score_log(
        log,
        ScoreConfig(
            references=written(["Ein Mann", "Zwei Hunde"], "references"),
            segments=written([json.dumps(segments)], "segments.json"),
            sources=written(["A man", "Two dogs"], "sources"),
            comet="da",
            comet_command=command,
        ),
    )
    assert [(call["src"], call["mt"]) for call in calls(command)] == [(["A man", "Two dogs"], ["Ein Mann", "Zwei Hunde"])]


def test_a_missing_program_shows_before_the_log_is_read(
    tmp_path: Path, written: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = written(SPOKEN, "sources")
    given = ["--sources", str(sources), "--comet", "da", "--comet-command", "no-such-program comet-score"]
    assert main(["score", str(tmp_path / "none"), *given]) == 1
    assert "'no-such-program', which was not found: pip install uv, or make an environment" in capsys.readouterr().err


def config(out: Path | None, command: str, **other: Any) -> EvaluateConfig:
    grid = {"chunk_ms": (500, math.inf), "rollback": (0, 3), "preflight": False}
    return EvaluateConfig(**{**grid, "out": out, "comet": "da", "comet_command": command, **other})


def fake() -> FakeLALM:
    return FakeLALM(growing_script("Ein Mann in einem roten Hemd fährt Fahrrad"))


def test_evaluate_scores_every_setting_of_the_folder(make_rows: Rows, command: str, tmp_path: Path) -> None:
    rows, out = make_rows(4), tmp_path / "one"
    evaluate(fake(), rows, config(out, command, comet="", rollback=(0,)))
    assert "COMET" not in (out / "table.md").read_text()
    result = evaluate(fake(), rows, config(out, command))
    assert len(calls(command)) == 1, "one call for all settings"
    assert len(set(calls(command)[0]["mt"])) <= len(calls(command)[0]["mt"]) <= 4 * 3
    for score in result.scores:
        assert (score["comet_model"], 0 < score["comet"] < 1) == ("da", True)
    assert json.loads((out / "scores.json").read_text()) == result.scores
    text = (out / "table.md").read_text()
    assert "| chrF | COMET |" in text
    assert f"| {result.scores[0]['comet']:.3f} @ " in text
    assert "COMET @ LAAL (da)" in text
    assert evaluate(fake(), rows, config(out, command)).scores == result.scores
    assert len(calls(command)) == 1
    other = evaluate(fake(), rows, config(out, command, comet="other"))
    assert {score["comet_model"] for score in other.scores} == {"other"}
    evaluate(fake(), rows, config(out, command, comet="", overwrite=True))
    assert not (out / "comet.jsonl").exists()


def test_compare_shows_comet_where_all_have_the_same(make_rows: Rows, command: str, tmp_path: Path) -> None:
    rows = make_rows(2)
    for name, model in (("one", "da"), ("two", "da"), ("other", "other"), ("none", "")):
        evaluate(fake(), rows, config(tmp_path / name, command, comet=model))
    assert "COMET @ LAAL (da)" in compare([tmp_path / "one", tmp_path / "two"])
    assert "COMET" not in compare([tmp_path / "one", tmp_path / "other"])
    assert "COMET" not in compare([tmp_path / "one", tmp_path / "none"])


def test_a_failure_of_comet_costs_no_other_score(make_rows: Rows, command: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="not supported by COMET"):
        evaluate(fake(), make_rows(2), config(tmp_path / "out", command, comet="unknown"))
    assert len(json.loads((tmp_path / "out" / "scores.json").read_text())) == 4


def test_evaluate_refuses_what_comet_cannot_score(make_rows: Rows, command: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give --out FOLDER"):
        config(None, command)
    rows = [Utterance("bare", row.audio, "en", "de", row.target_text) for row in make_rows(1)]
    with pytest.raises(EvaluationError, match="row 'bare': source_text is empty; COMET needs the transcript"):
        evaluate(fake(), rows, config(tmp_path / "out", command))
    with pytest.raises(EvaluationError, match="'no-such-program', which was not found"):
        evaluate(fake(), make_rows(1), config(tmp_path / "out", "no-such-program"))
