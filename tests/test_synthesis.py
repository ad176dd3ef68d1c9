"""Speech from the synthesiser: voices, and Multi30k captions spoken into a manifest."""

from __future__ import annotations

import dataclasses
import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simulsa.audio import SAMPLE_RATE
from simulsa.cli import main
from simulsa.corpora.layout import CorpusError
from simulsa.corpora.multi30k import Multi30kConfig, read_captions, speak_multi30k
from simulsa.corpora.synthesis import Voice, synthesizer
from simulsa.manifest import check_audio, read_manifest

pytest.importorskip("espeakng_loader")

ENGLISH = ["A man in a red shirt rides a bicycle.", "Two dogs play in the snow.", "A café at the corner."]
GERMAN = ["Ein Mann in einem roten Hemd fährt Fahrrad.", "Zwei Hunde spielen im Schnee.", "Ein Café an der Ecke."]


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """A tiny corpus in Multi30k's layout."""
    folder = tmp_path / "multi30k"
    folder.mkdir()
    for lang, lines in (("en", ENGLISH), ("de", GERMAN)):
        with gzip.open(folder / f"val.{lang}.gz", "wt", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))
    return folder


def test_speech_has_the_projects_format() -> None:
    speech = synthesizer().speak(ENGLISH[0])
    assert speech.dtype == np.float32
    assert speech.ndim == 1
    assert 1.5 < len(speech) / SAMPLE_RATE < 4
    assert 0.05 < np.abs(speech).max() <= 1.0


def test_the_same_calls_in_a_fresh_process_give_the_same_durations() -> None:
    code = (
        "from simulsa.corpora.synthesis import *\n"
        "for voice in ('en-us', 'de', 'en+m3', 'en-us'):\n"
        "    speech = synthesizer().speak('Two dogs play in the snow.', Voice(voice))\n"
        "    print(len(speech))\n"
    )
    first, second = (subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2))
    assert first.stdout == second.stdout
    assert first.stdout.count("\n") == 4


def test_the_same_text_again_lasts_nearly_as_long() -> None:
    first, _, second = (synthesizer().speak(text) for text in (ENGLISH[1], ENGLISH[0], ENGLISH[1]))
    assert abs(len(first) - len(second)) < SAMPLE_RATE // 50


def test_rate_pitch_and_voice_are_heard() -> None:
    def length(voice: Voice) -> int:
        return len(synthesizer().speak(ENGLISH[0], voice))

    plain = length(Voice())
    assert length(Voice(rate_wpm=300)) < 0.75 * plain
    assert length(Voice(rate_wpm=100)) > 1.25 * plain
    assert pitch_hz(Voice(pitch=90)) > 1.2 * pitch_hz(Voice(pitch=20))


def pitch_hz(voice: Voice) -> float:
    """How often the harmonics of a long vowel repeat (the peak of its cepstrum), between 60 and 250 Hz."""
    samples = synthesizer().speak("aaaah", voice)
    middle = samples[len(samples) // 4 :][:4096]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 16_384))
    cepstrum = np.fft.irfft(np.log(spectrum + 1e-6))
    shortest, longest = SAMPLE_RATE // 250, SAMPLE_RATE // 60
    return SAMPLE_RATE / (shortest + int(cepstrum[shortest:longest].argmax()))


@pytest.mark.parametrize("name", ["xx-nobody", "en-us+nobody", ""])
def test_an_unknown_voice_is_refused_and_the_next_one_speaks(name: str) -> None:
    with pytest.raises(RuntimeError, match=rf"no voice '{name.replace('+', '.')}'; try 'en'"):
        synthesizer().speak("Hello", Voice(name))
    assert len(synthesizer().speak("Hello")) > 0


def test_nothing_to_say() -> None:
    with pytest.raises(ValueError, match="cannot speak an empty text"):
        synthesizer().speak("  ")
    assert len(synthesizer().speak("...")) > 0


def test_captions_become_a_manifest(tmp_path: Path, captions: Path) -> None:
    out = tmp_path / "out" / "val.jsonl"
    rows = speak_multi30k(Multi30kConfig(data=captions, split="val", voices=("en-us", "en+m3")), out)
    assert read_manifest(out) == rows
    assert [(row.source_text, row.target_text) for row in rows] == list(zip(ENGLISH, GERMAN, strict=True))
    assert [row.extra["voice"] for row in rows] == ["en-us", "en+m3", "en-us"]
    assert [row.id for row in rows] == ["val-00000", "val-00001", "val-00002"]
    assert list(check_audio(rows)) == []
    assert all(Path(row.audio).parent == out.parent / "val-audio" for row in rows)
    spoken = synthesizer().speak(ENGLISH[1], Voice("en+m3"))
    assert abs(len(rows[1].load()) - len(spoken)) < SAMPLE_RATE // 50


def test_spoken_files_are_kept_and_other_settings_get_other_files(tmp_path: Path, captions: Path) -> None:
    out = tmp_path / "val.jsonl"
    config = Multi30kConfig(data=captions, split="val", limit=2)
    rows = speak_multi30k(config, out)
    assert len(rows) == 2
    with pytest.raises(CorpusError, match=r"val\.jsonl exists; choose another --out, or replace it with --overwrite"):
        speak_multi30k(config, out)
    config = dataclasses.replace(config, overwrite=True)
    before = [Path(row.audio).stat().st_mtime_ns for row in rows]
    assert speak_multi30k(config, out) == rows
    assert [Path(row.audio).stat().st_mtime_ns for row in rows] == before
    broken = Path(rows[0].audio)
    broken.write_bytes(b"half written")
    assert [row.audio for row in speak_multi30k(config, out)] == [row.audio for row in rows]
    assert len(rows[0].load()) == pytest.approx(len(rows[1].load()), rel=2)
    slower = speak_multi30k(dataclasses.replace(config, rate_wpm=120), out)
    assert {row.audio for row in slower}.isdisjoint(row.audio for row in rows)


def test_captions_that_are_not_there(tmp_path: Path, captions: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no captions at .*train\.en\.gz: --data must be the folder"):
        read_captions(captions, "train", "en")
    with pytest.raises(ValueError, match="split is 'dev'; it must be one of train, val"):
        Multi30kConfig(split="dev")
    with pytest.raises(ValueError, match="voices is empty"):
        Multi30kConfig(voices=())


def test_the_whole_command(tmp_path: Path, captions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "val.jsonl"
    assert main(["manifest", "multi30k", "--out", str(out), "--data", str(captions), "--split", "val", "--limit", "1"]) == 0
    assert capsys.readouterr().out == f"{out}: 1 rows\n"
    assert main(["manifest", "validate", str(out)]) == 0
    assert f"{out}: 1 rows, 0.00 hours" in capsys.readouterr().out
    (tmp_path / "settings.yaml").write_text(f"data: {captions}\nsplit: val\nlimit: 2\nvoices: [de]\noverwrite: true\n")
    assert main(["manifest", "multi30k", "--out", str(out), "--config", str(tmp_path / "settings.yaml")]) == 0
    assert [row.extra["voice"] for row in read_manifest(out)] == ["de", "de"]
    assert main(["manifest", "multi30k", "--out", str(out), "--data", str(captions), "--split", "val"]) == 1
    assert f"{out} exists" in capsys.readouterr().err
    other = tmp_path / "other.jsonl"
    assert main(["manifest", "multi30k", "--out", str(other), "--data", str(tmp_path), "--split", "val"]) == 1
    assert "no captions at" in capsys.readouterr().err
