"""From listed rows to a manifest: missing audio, shards, going on after an interruption, sound without a file."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE, AudioError, flac_path
from simulsa.corpora import lengths
from simulsa.corpora.build import CorpusConfig, Unwritten, shard_of, write_corpus
from simulsa.corpora.layout import CorpusError
from simulsa.corpora.lengths import audio_lengths
from simulsa.corpora.mustc import MustcConfig, read_mustc
from simulsa.manifest import ManifestError, Utterance, read_manifest
from tests import made_corpora as made
from tests.conftest import noise
from tests.made_corpora import sound


def listed(folder: Path, count: int) -> list[Utterance]:
    return [
        Utterance(f"row-{n}", str(sound(folder / "clips" / f"{n}.wav", 0.1 + n / 100)), "en", "de", f"Satz {n}")
        for n in range(count)
    ]


def test_missing_audio_is_counted_listed_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = listed(tmp_path, 5)
    Path(rows[1].audio).unlink()
    Path(rows[3].audio).write_bytes(b"no sound")
    write_corpus(rows, tmp_path / "rows.jsonl", CorpusConfig())
    assert [row.id for row in read_manifest(tmp_path / "rows.jsonl")] == ["row-0", "row-2", "row-4"]
    lost = [line.split("\t") for line in (tmp_path / "rows.jsonl.missing.txt").read_text().splitlines()]
    assert [name for name, _ in lost] == ["row-1", "row-3"]
    assert "no such audio file" in lost[0][1]
    assert "not readable as audio" in lost[1][1]
    assert "the audio of 2 of 5 rows is missing or unreadable" in caplog.text


def test_a_segment_beyond_the_end_of_its_talk_is_missing(tmp_path: Path) -> None:
    made.mustc(tmp_path)
    sound(tmp_path / "data/train/wav/ted_2.wav", 4.0)
    rows = write_corpus(read_mustc(MustcConfig(data=tmp_path)), tmp_path / "rows.jsonl", MustcConfig())
    assert [row.id for row in rows][-1] == "ted_2-0001-en-de"
    assert "must lie inside the file, which lasts 4.000 s" in (tmp_path / "rows.jsonl.missing.txt").read_text()


def test_a_row_with_a_start_alone_lasts_to_the_end(tmp_path: Path) -> None:
    (row,) = listed(tmp_path, 1)
    (kept,) = write_corpus([dataclasses.replace(row, start_s=0.025)], tmp_path / "rows.jsonl", CorpusConfig())
    assert (kept.start_s, kept.duration_s) == (0.025, 0.075)


def test_strict_fails_and_still_lists(tmp_path: Path) -> None:
    rows = listed(tmp_path, 3)
    Path(rows[1].audio).unlink()
    with pytest.raises(CorpusError, match=r"the audio of 1 of 3 rows .*clips/1.wav: no such audio file.*--strict"):
        write_corpus(rows, tmp_path / "rows.jsonl", CorpusConfig(strict=True))
    assert not (tmp_path / "rows.jsonl").exists()
    assert (tmp_path / "rows.jsonl.missing.txt").read_text().startswith("row-1\t")
    sound(Path(rows[1].audio))
    write_corpus(rows, tmp_path / "rows.jsonl", CorpusConfig(strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "rows.jsonl"]


def test_no_audio_at_all_is_an_error(tmp_path: Path) -> None:
    rows = [Utterance("a", str(tmp_path / "a.wav"), "en", "de", "eins"), Utterance("b", "b.wav", "en", "de", " ")]
    with pytest.raises(CorpusError, match=r"none of 2 rows is left: .*a.wav: no such audio file.*1 have no translation"):
        write_corpus(rows, tmp_path / "rows.jsonl", CorpusConfig())


def test_an_output_that_cannot_be(tmp_path: Path) -> None:
    rows = listed(tmp_path, 2)
    write_corpus(rows, tmp_path / "rows.jsonl", CorpusConfig())
    with pytest.raises(CorpusError, match="exists; choose another --out, or replace it with --overwrite"):
        write_corpus(rows[:1], tmp_path / "rows.jsonl", CorpusConfig())
    write_corpus(rows[:1], tmp_path / "rows.jsonl", CorpusConfig(overwrite=True))
    assert len(read_manifest(tmp_path / "rows.jsonl")) == 1
    with pytest.raises(CorpusError, match=r"must be a \.jsonl file"):
        write_corpus(rows, tmp_path / "rows.json", CorpusConfig())


def test_ids_must_be_unique(tmp_path: Path) -> None:
    rows = listed(tmp_path, 2)
    with pytest.raises(ManifestError, match="id 'row-1' stands for 2 rows"):
        write_corpus([*rows, rows[1]], tmp_path / "rows.jsonl", CorpusConfig())


@given(st.integers(1, 400), st.integers(1, 30))
def test_all_shards_are_the_whole_in_order(count: int, parts: int) -> None:
    shards = [shard_of(f"{part}/{parts}", count) for part in range(1, parts + 1)]
    assert [index for shard in shards for index in shard] == list(range(count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@given(st.integers(1, 7))
@settings(max_examples=7, deadline=None)
def test_the_manifests_of_all_shards_are_the_manifest(parts: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        rows = listed(Path(name), 7)
        Path(rows[2].audio).unlink()
        write_corpus(rows, Path(name) / "whole.jsonl", CorpusConfig())
        for part in range(1, parts + 1):
            out = Path(name) / f"part-{part}.jsonl"
            if list(shard_of(f"{part}/{parts}", 7)) != [2]:  # the shard of nothing but the missing row is an error
                write_corpus(rows, out, CorpusConfig(shard=f"{part}/{parts}"))
        written = [(Path(name) / f"part-{part}.jsonl") for part in range(1, parts + 1)]
        joined = "".join(path.read_text() for path in written if path.exists())
        assert joined == (Path(name) / "whole.jsonl").read_text()


def test_more_shards_than_rows(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="shard 1/3 of 2 rows is empty"):
        write_corpus(listed(tmp_path, 2), tmp_path / "rows.jsonl", CorpusConfig(shard="1/3"))


def test_an_interrupted_run_opens_no_file_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = listed(tmp_path, 6)
    opened: list[str] = []
    measure = lengths.audio_length

    def interrupted(path: str) -> int:
        if len(opened) == 4:
            raise KeyboardInterrupt
        opened.append(path)
        return measure(path)

    monkeypatch.setattr(lengths, "_BLOCK", 2)
    monkeypatch.setattr(lengths, "audio_length", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_corpus(rows, tmp_path / "rows.jsonl", CorpusConfig(jobs=1))
    assert not (tmp_path / "rows.jsonl").exists()
    sound(Path(rows[1].audio), 2.0)  # another length now, so it is asked again
    again: list[str] = []
    monkeypatch.setattr(lengths, "audio_length", lambda path: again.append(path) or measure(path))
    kept = write_corpus(rows, tmp_path / "rows.jsonl", CorpusConfig(jobs=1))
    assert again == [rows[n].audio for n in (1, 4, 5)]
    assert [row.duration_s for row in kept] == [0.1, 2.0, 0.12, 0.13, 0.14, 0.15]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "rows.jsonl"]


def test_damaged_lengths_are_named(tmp_path: Path) -> None:
    rows = listed(tmp_path, 1)
    (tmp_path / "rows.jsonl.lengths").write_text("damaged\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl\.lengths:1: not a line .*Expecting value.*delete the file to start over"):
        write_corpus(rows, tmp_path / "rows.jsonl", CorpusConfig())


def test_each_file_is_opened_once_and_jobs_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [row.audio for row in listed(tmp_path, 5)]
    opened: list[str] = []
    measure = lengths.audio_length
    monkeypatch.setattr(lengths, "audio_length", lambda path: opened.append(path) or measure(path))
    one, many = audio_lengths(paths * 3, 1), audio_lengths(paths * 3, 4)
    assert one == many == {path: round((0.1 + n / 100) * SAMPLE_RATE) for n, path in enumerate(paths)}
    assert sorted(opened) == sorted(paths * 2)


def heard(name: str, samples: np.ndarray, rate: int = SAMPLE_RATE) -> Unwritten:
    return Unwritten(Utterance(name, f"table, row {name}", "en", "de", "eins"), lambda: (samples, rate))


def test_sound_without_a_file_is_written_beside_the_manifest(tmp_path: Path) -> None:
    stereo = np.stack([noise(0.5), noise(0.5, 1)], axis=1)
    rows = write_corpus([heard("a/1", noise(0.5)), heard("b", stereo, 8000)], tmp_path / "rows.jsonl", CorpusConfig())
    again = read_manifest(tmp_path / "rows.jsonl")
    assert [row.duration_s for row in again] == [0.5, 1.0]
    assert [json.loads(line)["audio"][:13] for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == [
        "rows-audio/a_",
        "rows-audio/b-",
    ]
    np.testing.assert_allclose(again[0].load(), noise(0.5), atol=2**-15)
    assert soundfile.info(rows[1].audio).channels == 2
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows-audio").iterdir()}
    write_corpus([heard("a/1", noise(0.5)), heard("b", noise(0.3))], tmp_path / "rows.jsonl", CorpusConfig(overwrite=True))
    assert Path(rows[0].audio).stat().st_mtime_ns == times[Path(rows[0].audio)]  # kept, being equal
    assert read_manifest(tmp_path / "rows.jsonl")[1].duration_s == 0.3


def test_a_corrected_rate_or_shape_makes_another_file(tmp_path: Path) -> None:
    samples = noise(0.5)
    for number, (values, rate, duration) in enumerate(
        [(samples, 8000, 1.0), (samples, 16_000, 0.5), (samples.reshape(-1, 2), 16_000, 0.25)]
    ):
        config = CorpusConfig(overwrite=number > 0)
        (row,) = write_corpus([heard("a", values, rate)], tmp_path / "rows.jsonl", config)
        assert row.duration_s == duration


def test_ids_that_look_alike_in_a_file_name(tmp_path: Path) -> None:
    rows = [heard(name, noise(0.1 + n / 100)) for n, name in enumerate(["ä", "ö", "x" * 200 + "y" * 100, "y" * 100])]
    kept = write_corpus([*rows, heard("ü", noise(0.1))], tmp_path / "rows.jsonl", CorpusConfig())
    assert [row.duration_s for row in kept] == [0.1, 0.11, 0.12, 0.13, 0.1]
    assert zlib.crc32(b"plumless") == zlib.crc32(
        b"buckeroo"
    )  # among 100,000 names without ASCII letters, one such pair is likely
    assert flac_path(tmp_path, "ä", b"plumless") != flac_path(tmp_path, "ö", b"buckeroo")


def test_sound_that_is_broken_is_missing(tmp_path: Path) -> None:
    def broken() -> tuple[np.ndarray, int]:
        raise AudioError("row c: the bytes\nare not readable as audio")

    lost = Unwritten(Utterance("c\td", "table, row c", "en", "de", "drei"), broken)
    silent = heard("d", np.full(10, np.nan, dtype=np.float32))
    untranslated = dataclasses.replace(heard("e", noise(0.5)), row=Utterance("e", "table, row e", "en", "de", " "))
    rows = write_corpus([heard("a", noise(0.5)), lost, silent, untranslated], tmp_path / "rows.jsonl", CorpusConfig())
    assert [row.id for row in rows] == ["a"]
    assert [path.name[0] for path in (tmp_path / "rows-audio").iterdir()] == ["a"]
    listing = (tmp_path / "rows.jsonl.missing.txt").read_text()
    assert "c\\td\trow c: the bytes are not readable" in listing
    assert "10 of 10 samples are NaN" in listing
