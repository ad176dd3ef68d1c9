"""`simulsa translate` on speech of any length, as a user runs it."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

import simulsa
from simulsa.audio import SAMPLE_RATE, load_audio
from simulsa.cli import main
from simulsa.demo.speech import DATA
from simulsa.lalm.load import ModelConfig
from simulsa.manifest import read_manifest
from simulsa.streaming import vad
from simulsa.streaming.state import Segment, Update
from simulsa.streaming.stream import Stream
from simulsa.terminal import show_final, show_live
from simulsa.testing import FakeLALM, FakeVAD

WINDOW_S = 4


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Three spoken sentences with pauses of a second, longer than the bundled model's window."""
    pieces = [np.pad(row.load(), (SAMPLE_RATE, 0)) for row in read_manifest(DATA / "test.jsonl")[:3]]
    soundfile.write(tmp_path / "talk.wav", np.concatenate(pieces), SAMPLE_RATE)
    return tmp_path / "talk.wav"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLALM:
    """A scripted model instead of the one that would be loaded, and a scripted voice activity detector."""
    lalm = FakeLALM(lambda audio: f"{round(len(audio) / 1600)} Zehntel.", max_samples=WINDOW_S * SAMPLE_RATE)
    monkeypatch.setattr(ModelConfig, "load", lambda _: lalm)
    monkeypatch.setattr("simulsa.streaming.state.SileroVAD", FakeVAD)
    return lalm


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Tones of 1.024 s from 0.512 s and from 6.656 s; silence between and behind them."""
    audio = np.zeros(8 * SAMPLE_RATE, dtype=np.float32)
    for start in (8_192, 106_496):
        audio[start : start + 16_384] = 0.1
    soundfile.write(tmp_path / "tones.flac", audio, SAMPLE_RATE)
    return tmp_path / "tones.flac"


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def test_a_file_longer_than_the_window_just_works(
    talk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    assert run("translate", talk, "--chunk-ms", "1000") == 0
    out, err = capsys.readouterr()
    lalm = simulsa.load("tiny-en-de-simul", device="cpu")
    stream = Stream(lalm, simulsa.StreamConfig(chunk_ms=1000), simulsa.SegmentationConfig())
    updates = stream.push(load_audio(talk)) + stream.finish()
    assert out.splitlines() == [u.segment.text for u in updates if u.segment is not None and u.segment.complete]
    assert len(out.splitlines()) == 3
    assert f"{talk}: 12.9 s, the model hears 10.0 s at a time: the speech is split into segments at pauses" in err


def test_a_file_longer_than_a_segment_is_followed_in_segments(
    fake: FakeLALM, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.max_samples = 300 * SAMPLE_RATE
    assert run("translate", recording, "--chunk-ms", "inf", "--max-segment-s", "7") == 0
    out, err = capsys.readouterr()
    assert out == "12 Zehntel.\n12 Zehntel.\n"
    assert "8.0 s, the model hears 7.0 s at a time: the speech is split into segments" in " ".join(err.split())
    assert run("translate", recording, "--chunk-ms", "inf", "--max-segment-s", "8") == 0
    assert capsys.readouterr().out == "80 Zehntel.\n"


def test_json_says_what_was_truncated(
    fake: FakeLALM, recording: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    fake.max_target_tokens = 5
    assert run("translate", recording, "--chunk-ms", "inf", "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line).get("truncated") for line in lines] == [True, True, True]
    assert caplog.text.count("reached the model's limit of 5 tokens") == 2


def test_timestamps(fake: FakeLALM, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("translate", recording, "--timestamps", "--chunk-ms", "inf", "--padding-ms", "50") == 0
    assert capsys.readouterr().out == (
        "[00:00:00.462 --> 00:00:01.586] 11 Zehntel.\n[00:00:06.606 --> 00:00:07.730] 11 Zehntel.\n"
    )


def test_json_lines_have_what_is_new(fake: FakeLALM, talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("translate", talk, "--json", "--min-silence-ms", "300") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    stream = Stream(fake, segmentation=simulsa.SegmentationConfig(min_silence_ms=300), vad=FakeVAD())
    updates = stream.push(load_audio(talk)) + stream.finish()
    assert "".join(line["new"] for line in lines) == updates[-1].committed != ""
    assert [line["audio_s"] for line in lines] == [round(update.audio_s, 3) for update in updates]
    assert [line["segment"] for line in lines] == [
        update.segment
        and {
            "index": update.segment.index,
            "start_s": update.segment.start_samples / SAMPLE_RATE,
            "end_s": update.segment.end_samples / SAMPLE_RATE,
            "complete": update.segment.complete,
        }
        for update in updates
    ]
    assert lines[-1]["final"] is True


def test_a_short_file_in_segments_if_asked(fake: FakeLALM, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", np.pad(np.full(16_384, 0.1), 8_192), SAMPLE_RATE)
    for flags, expected in (([], "20 Zehntel.\n"), (["--longform"], "12 Zehntel.\n")):
        assert run("translate", tmp_path / "a.wav", "--chunk-ms", "inf", *flags) == 0
        out, err = capsys.readouterr()
        assert out == expected
        assert "at a time" not in err


def test_silence_has_no_text(fake: FakeLALM, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(5 * SAMPLE_RATE), SAMPLE_RATE)
    assert run("translate", tmp_path / "a.wav") == 0
    assert capsys.readouterr().out == ""
    assert fake.calls == []


def test_without_the_package(talk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelConfig, "load", lambda _: FakeLALM(lambda audio: "", max_samples=WINDOW_S * SAMPLE_RATE))
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    vad._network.cache_clear()
    assert run("translate", talk) == 1
    assert "needs the package silero_vad: pip install 'simulsa[longform]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--json", "--timestamps"], "choose --json or --timestamps"),
        (["--max-segment-s", "1"], "max_segment_s is 1.0; it must be at least 2"),
    ],
)
def test_wrong_flags(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("translate", "a.wav", *flags) == 2
    out, err = capsys.readouterr()
    assert message in " ".join((out + err).split())


HOUR = 3600 * SAMPLE_RATE


def updates_of_two_segments() -> list[Update]:
    first, second = Segment(0, 0, 16_000, "Eins.", True), Segment(1, HOUR + 32_008, HOUR + 48_000, "Zwei", True)
    return [
        Update("Eins.", "", 16_000, 0.1, False, new="Eins.", segment=first),
        Update("Eins.", " Zwei und", HOUR + 40_000, 0.1, False, new="", segment=Segment(1, HOUR, HOUR + 4_000, "", False)),
        Update("Eins. Zwei", "", HOUR + 48_000, 0.1, False, new=" Zwei", segment=second),
        Update("Eins. Zwei", "", HOUR + 64_000, 0.0, True, new="", segment=None),
    ]


def test_the_terminal_keeps_a_line_for_each_segment() -> None:
    screen = io.StringIO()
    totals = show_live(updates_of_two_segments(), Console(file=screen, force_terminal=True, width=80), timestamps=True)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "[00:00:00.000 --> 00:00:01.000] Eins.\n" in shown
    assert "3602.5 s  Zwei und" in shown
    assert "[01:00:02.000 --> 01:00:03.000] Zwei\n" in shown
    assert totals.audio_s == 3604.0
    plain = io.StringIO()
    show_final(updates_of_two_segments(), Console(file=plain))
    assert plain.getvalue() == "Eins.\nZwei\n"
