"""`simulsa score` on long recordings, which are cut into the segments of their references."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulsa.evaluation.instances import EvaluationError
from simulsa.evaluation.score import ScoreConfig, score_log
from tests.score_logs import Lines, record

SEGMENTS = [
    {"wav": "b.wav", "offset": 0.0, "duration": 2.0},
    {"wav": "a.wav", "offset": 0.5, "duration": 2.0},
    {"wav": "a.wav", "offset": 3.0, "duration": 1.5},
]
LONG = ["Eine Frau singt laut .", "Ein Mann fährt Rad .", "Zwei Hunde spielen im Schnee ."]


def talks() -> list[dict[str, Any]]:
    """Two recordings, the first of two sentences; the log has them in another order than the segments."""
    first = (LONG[1] + " " + LONG[2]).split()
    delays = [1000, 1500, 1500, 2500, 2500, 4000, 4000, 4500, 4500, 4500, 4500]
    second = LONG[0].split()
    return [
        record(
            0,
            prediction=" ".join(first),
            delays=delays,
            elapsed=[d + 200 + 3000 * (d > 2000) for d in delays],
            source=["/x/a.wav"],
            source_length=4500,
        ),
        record(1, prediction=" ".join(second), delays=[1000] * 5, elapsed=[1300] * 5, source=["/x/b.wav"], source_length=2000),
    ]


@pytest.mark.parametrize("corrected", [False, True])
def test_long_recordings_score_as_omnistevals_command(
    written: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], corrected: bool
) -> None:
    from omnisteval.cli import main as omnisteval

    log, references = written(talks()), written(LONG, "references")
    (tmp_path / "segments.yaml").write_text(yaml.safe_dump(SEGMENTS))
    config = ScoreConfig(references, tmp_path / "segments.yaml", elapsed="incremental" if corrected else "logged")
    scores = score_log(log, config)
    assert scores["bleu"] == pytest.approx(100)
    assert scores["segments"] == 3
    assert "al_ms" not in scores
    arguments = [
        "longform",
        "--hypothesis_file",
        str(log),
        "--ref_sentences_file",
        str(references),
        "--word_level",
        "--lang",
        "de",
        *(["--fix_simuleval_emission_ca"] if corrected else []),
    ]
    monkeypatch.setattr(sys, "argv", ["omnisteval", *arguments, "--speech_segmentation", str(tmp_path / "segments.yaml")])
    omnisteval()
    printed = capsys.readouterr().out
    for name, key in {
        "BLEU": "bleu", "chrF": "chrf", "LongYAAL (CU)": "long_yaal_ms", "LongLAAL (CU)": "stream_laal_ms",
        "LongAL (CU)": "long_al_ms", "LongAP (CU)": "long_ap", "LongDAL (CU)": "long_dal_ms",
        "LongYAAL (CA)": "ca_long_yaal_ms", "LongLAAL (CA)": "ca_stream_laal_ms",
    }.items():  # fmt: skip
        found = re.search(rf"^  {re.escape(name)}\s+(\S+)$", printed, re.MULTILINE)
        assert found, name
        assert float(found[1]) == pytest.approx(scores[key], abs=1e-4), name


def test_segments_of_one_recording_need_not_stand_together(written: Lines, tmp_path: Path) -> None:
    scores = []
    for order in ([0, 1, 2], [1, 0, 2]):
        (tmp_path / "segments.json").write_text(json.dumps([SEGMENTS[i] for i in order]))
        references = written([LONG[i] for i in order], "references")
        scores.append(score_log(written(talks()), ScoreConfig(references, tmp_path / "segments.json")))
    assert scores[0]["long_yaal_ms"] == scores[1]["long_yaal_ms"] > 0
    assert scores[0]["bleu"] == scores[1]["bleu"] == pytest.approx(100)


def test_a_long_recording_that_was_not_heard_to_the_end_is_refused(written: Lines, tmp_path: Path) -> None:
    (tmp_path / "segments.yaml").write_text(yaml.safe_dump(SEGMENTS))
    first, second = talks()
    log, references = written([{**first, "source_length": 3000}, second]), written(LONG, "references")
    with pytest.raises(EvaluationError, match=r"recording 'a': 3\.0 s of it were heard and its segments end at 4\.5 s"):
        score_log(log, ScoreConfig(references, tmp_path / "segments.yaml"))
    assert score_log(log, ScoreConfig(references, tmp_path / "segments.yaml", partial=True))["bleu"] == pytest.approx(100)
    rounded = written([{**first, "source_length": 4499}, second])
    assert score_log(rounded, ScoreConfig(references, tmp_path / "segments.yaml"))["bleu"] == pytest.approx(100)


def test_a_long_recording_that_was_not_begun_is_refused_or_left_out_with_its_segments(written: Lines, tmp_path: Path) -> None:
    (tmp_path / "segments.yaml").write_text(yaml.safe_dump(SEGMENTS))
    log, references, sources = written(talks()[:1]), written(LONG, "references"), written(["b", "a 1", "a 2"], "sources")
    with pytest.raises(EvaluationError, match=r"recording 'b' has segments but is not in the log \(a\).*--partial"):
        score_log(log, ScoreConfig(references, tmp_path / "segments.yaml", sources))
    scores = score_log(log, ScoreConfig(references, tmp_path / "segments.yaml", sources, partial=True))
    assert scores["notes"] == ["1 segments of recordings missing from the log were skipped"]
    assert scores["segments"] == 2
    assert scores["bleu"] == pytest.approx(100)


def test_two_long_recordings_of_one_name_are_refused(written: Lines, tmp_path: Path) -> None:
    (tmp_path / "segments.yaml").write_text(yaml.safe_dump(SEGMENTS))
    first, second = talks()
    with pytest.raises(EvaluationError, match="two recordings in the log have the same file"):
        score_log(written([first, {**second, "source": ["a.wav"]}]), ScoreConfig(written(LONG, "x"), tmp_path / "segments.yaml"))


@pytest.mark.parametrize(
    ("segments", "references", "problem"),
    [
        (SEGMENTS, LONG[:2], "2 references for the 3 segments of"),
        (
            [*SEGMENTS, {"wav": "c.wav", "offset": 0, "duration": 1}],
            [*LONG, "x"],
            "recording 'c' has segments but is not in the log",
        ),
        (SEGMENTS[1:], LONG[1:], "recording 'b' is in the log but has no segment"),
        ([*SEGMENTS[:2], {"wav": "y/a.wav", "offset": 3, "duration": 1}], LONG, "'a.wav' and 'y/a.wav' have the same name"),
        ([*SEGMENTS[:2], {"wav": "a.wav", "offset": 3}], LONG, "segment 3 is .* it needs wav, offset .* and duration"),
        ([*SEGMENTS[:2], {"wav": "a.wav", "offset": -3, "duration": 1}], LONG, "segment 3 is"),
        ({"wav": "a.wav"}, LONG, "must be a list of segments"),
        (SEGMENTS, [LONG[0], "", LONG[2]], "the reference of the segment of 'a' at 0.5 s is empty"),
    ],
)
def test_segments_that_do_not_fit_are_refused(
    written: Lines, tmp_path: Path, segments: Any, references: list[str], problem: str
) -> None:
    (tmp_path / "segments.yaml").write_text(yaml.safe_dump(segments))
    with pytest.raises(EvaluationError, match=problem):
        score_log(written(talks()), ScoreConfig(written(references, "references"), tmp_path / "segments.yaml"))
