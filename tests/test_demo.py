"""The demo's data, timeline and report."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from simulsa.audio import SAMPLE_RATE
from simulsa.cli import main
from simulsa.demo.report import html_table, write_report
from simulsa.demo.speech import DATA
from simulsa.demo.timeline import Lane, TimedWord, committed_lane, plot_timeline, spoken_lane
from simulsa.evaluation.instances import Instance
from simulsa.manifest import Utterance, check_audio, read_manifest
from tests.conftest import small_disk

SCORES = [
    {"chunk_ms": chunk, "rollback": rollback, "bleu": 10.0 + rollback, "laal_ms": latency}
    for rollback in (0, 3)
    for chunk, latency in ((500, 700.0), ("inf", None))
]
EVALUATIONS = {"before": SCORES, "after": SCORES}


def test_the_bundled_speech_is_whole_and_split_cleanly() -> None:
    train, test = (read_manifest(DATA / f"{name}.jsonl") for name in ("train", "test"))
    assert (len(train), len(test)) == (680, 120)
    assert not {row.source_text for row in train} & {row.source_text for row in test}
    assert list(check_audio([*train, *test], max_samples=10 * SAMPLE_RATE)) == []
    for row in test[:20]:
        assert np.abs(row.load()).max() > 0.1
        words = row.extra["words"]
        assert " ".join(word for word, _, _ in words) == (row.source_text or "").replace(",", "").rstrip(".")
        assert words[-1][2] <= (row.duration_s or 0)


def test_the_bundled_speech_is_written_as_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "clips.jsonl"
    assert main(["manifest", "demo", "--limit", "2", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 2 rows\n"
    rows, bundled = read_manifest(out), read_manifest(DATA / "test.jsonl")[:2]
    assert [row.audio for row in rows] == [str(tmp_path / "clips-audio" / f"{row.id}.wav") for row in bundled]
    assert list(check_audio(rows)) == []
    for row, original in zip(rows, bundled, strict=True):
        assert (row.source_text, row.target_text) == (original.source_text, original.target_text)
        np.testing.assert_allclose(row.load(), original.load(), atol=2**-15)  # 16 bits
    assert main(["manifest", "demo", "--out", str(out)]) == 1
    assert "clips.jsonl exists; choose another --out" in capsys.readouterr().err


def test_a_disk_too_small_for_the_speech_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk():
        assert main(["manifest", "demo", "--limit", "2", "--out", str(tmp_path / "clips.jsonl")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("simulsa manifest: while writing: a file is larger than this disk or a limit (ulimit -f) allows; ")
    assert list((tmp_path / "clips-audio").iterdir()) == []


@pytest.mark.parametrize(("flag", "value"), [("--split", "dev"), ("--limit", "0")])
def test_there_is_no_other_bundled_speech(flag: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", "demo", flag, value, "--out", str(tmp_path / "clips.jsonl")]) == 2
    assert f"{flag[2:]} is " in "".join(capsys.readouterr())


def test_a_committed_word_has_its_delay() -> None:
    instance = Instance("r", 0, "eins zwei drei", "", "a.wav", 2000.0, (500.0, 1000.0, 1000.0), None, 4)
    lane = committed_lane("after", instance)
    assert lane.words == (TimedWord("eins", 0.5), TimedWord("zwei", 1.0), TimedWord("drei", 1.0))


def test_the_timeline_is_drawn(tmp_path: Path) -> None:
    row = Utterance("r", "a.wav", "en", "de", "x", extra={"words": [["A", 0.0, 0.2], ["dog", 0.2, 0.7]]})
    lanes = [spoken_lane(row), Lane("before", ()), Lane("after", (TimedWord("Ein", 0.5), TimedWord("Hund", 0.5)))]
    assert lanes[0].words == (TimedWord("A", 0.2), TimedWord("dog", 0.7))
    plot_timeline(lanes, 1.0, tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_table_has_a_row_per_rollback_and_model() -> None:
    table = html_table(EVALUATIONS)
    assert "<th>b</th><th>model</th><th>k = 500 ms</th><th>offline</th>" in table
    assert "<tr><td>0</td><td>before</td><td>10.0 @ 0.70</td><td>10.0 @ –</td></tr>" in table
    assert re.findall(r"<tr><td>(\d)</td><td>(\w+)", table) == [("0", "before"), ("0", "after"), ("3", "before"), ("3", "after")]


def test_report_escapes_and_embeds(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    picture.write_bytes(b"\x89PNG")
    write_report(tmp_path / "r.html", EVALUATIONS, {"quality_latency": picture, "timeline": picture}, {"a<b": "c&d"})
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<dt>a&lt;b</dt><dd>c&amp;d</dd>" in text
    assert html_table(EVALUATIONS) in text
    assert text.count("data:image/png;base64,") == 2
