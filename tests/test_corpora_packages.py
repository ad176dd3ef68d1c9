"""Tables of Hugging Face datasets and Lhotse's CutSets as manifests, where those packages are installed."""

from __future__ import annotations

import datetime
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from simulsa.audio import SAMPLE_RATE
from simulsa.corpora.build import write_corpus
from simulsa.corpora.hf_datasets import DatasetsConfig, read_datasets
from simulsa.corpora.layout import CorpusError
from simulsa.corpora.lhotse_cuts import LhotseConfig, read_lhotse
from simulsa.manifest import Utterance, read_manifest
from tests.conftest import noise
from tests.made_corpora import PAIRS, lines, sound


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    package = pytest.importorskip("datasets", reason="needs the extra simulsa[datasets]")
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    package.disable_progress_bars()
    return package


@pytest.fixture
def lhotse() -> Any:
    return pytest.importorskip("lhotse", reason="needs the extra simulsa[lhotse]")


def built(config: DatasetsConfig | LhotseConfig, folder: Path) -> list[Utterance]:
    listed = read_datasets(config) if isinstance(config, DatasetsConfig) else read_lhotse(config)
    write_corpus(listed, folder / "rows.jsonl", config)
    return read_manifest(folder / "rows.jsonl")


def encoded(seconds: float, seed: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(seconds, seed), SAMPLE_RATE, format="FLAC")
    return buffer.getvalue()


def translations() -> list[dict[str, str]]:
    return [{"en": english, "de": german} for english, german in PAIRS]


COLUMNS: dict[str, Any] = {"target_column": "translation.de", "source_column": "translation.en"}


def table_of_bytes(datasets: Any) -> Any:
    audio = [{"path": f"{n}.flac", "bytes": encoded(1 + n / 10, n)} for n in range(len(PAIRS))]
    table = datasets.Dataset.from_dict({"audio": audio, "translation": translations()})
    return table.cast_column("audio", datasets.Audio(sampling_rate=SAMPLE_RATE))


@pytest.mark.parametrize("kind", ["saved", "saved splits", "parquet file", "parquet folder"])
def test_a_table_with_its_audio_inside(datasets: Any, tmp_path: Path, kind: str) -> None:
    table, data = table_of_bytes(datasets), tmp_path / "table"
    if kind == "saved":
        table.save_to_disk(data)
    elif kind == "saved splits":
        datasets.DatasetDict({"train": table, "dev": table.select([0])}).save_to_disk(data)
    else:
        data.mkdir()
        table.to_parquet(data / "train-00000-of-00001.parquet")
        data = data / "train-00000-of-00001.parquet" if kind == "parquet file" else data
    rows = built(DatasetsConfig(data=data, **COLUMNS), tmp_path)
    assert [(row.source_text, row.target_text) for row in rows] == PAIRS
    assert [Path(row.audio).parent.name for row in rows] == ["rows-audio"] * 5
    np.testing.assert_allclose(rows[2].load(), noise(1.2, 2), atol=2**-14)


def test_a_table_that_names_files_copies_none(datasets: Any, tmp_path: Path) -> None:
    paths = [str(sound(tmp_path / "clips" / f"{n}.wav", 1.0, n)) for n in range(len(PAIRS))]
    table = datasets.Dataset.from_dict({"audio": paths, "translation": translations()})
    table.save_to_disk(tmp_path / "table")
    structs = datasets.Dataset.from_dict({"audio": [{"path": path, "bytes": None} for path in paths], "target_text": paths})
    structs.save_to_disk(tmp_path / "structs")
    assert [row.audio for row in built(DatasetsConfig(data=tmp_path / "table", **COLUMNS), tmp_path)] == paths
    assert [row.audio for row in built(DatasetsConfig(data=tmp_path / "structs", overwrite=True), tmp_path)] == paths
    assert not (tmp_path / "rows-audio").exists()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_tables_of_text_name_files_beside_them(datasets: Any, tmp_path: Path, suffix: str) -> None:
    values = [{"clip": f"clips/{n}.wav", "German": f"Satz {n}", "who": f"s{n}"} for n in range(3)]
    for value in values:
        sound(tmp_path / value["clip"])
    comma = "\t" if suffix == ".tsv" else ","
    table = [json.dumps(value) for value in values]
    if suffix != ".jsonl":
        table = [comma.join(values[0]), *(comma.join(value.values()) for value in values)]
    data = lines(tmp_path / f"table{suffix}", *table)
    (tmp_path / "clips/1.wav").unlink()
    config = DatasetsConfig(data=data, audio_column="clip", target_column="German", id_column="who", extra_columns=("who",))
    rows = built(config, tmp_path)
    assert [(row.id, row.target_text, row.extra["who"]) for row in rows] == [("s0", "Satz 0", "s0"), ("s2", "Satz 2", "s2")]
    assert rows[0].audio == str(tmp_path / "clips/0.wav")


@pytest.mark.parametrize("kind", ["file", "tsv file", "folder"])
def test_the_columns_of_csv_are_text(datasets: Any, tmp_path: Path, kind: str) -> None:
    texts = ["null", "NA", "None", "nan", "007", "1e3", "Ja"]
    comma = "\t" if kind == "tsv file" else ","
    table = ["audio,target_text,source_text,s".replace(",", comma)]
    for n, text in enumerate(texts):
        sound(tmp_path / "table" / f"{n}.wav", 2.0)
        table.append(comma.join([f"{n}.wav", text, "" if n == 1 else "7", "0.5"]))
    file = lines(tmp_path / "table" / ("a.tsv" if kind == "tsv file" else "a.csv"), *table)
    data = file.parent if kind == "folder" else file
    if kind == "folder":
        for wav in file.parent.glob("*.wav"):  # a folder of sound is another kind of table
            wav.rename(tmp_path / wav.name)
    root = tmp_path if kind == "folder" else None
    config = DatasetsConfig(data=data, source_column="source_text", start_column="s", audio_root=root)
    rows = built(config, tmp_path)
    assert [row.target_text for row in rows] == texts
    assert [row.source_text for row in rows] == ["7", None, *["7"] * 5]
    assert {row.start_s for row in rows} == {0.5}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_quotation_marks_in_a_tsv_are_text(datasets: Any, tmp_path: Path, kind: str) -> None:
    texts = ['"Nein', "Ja", 'Er sagt "ja"', '"Ganz"', 'Zoll"']
    wavs = [sound(tmp_path / f"{n}.wav", 1.0, n) for n in range(len(texts))]
    table = (f"{wav}\t{text}" for wav, text in zip(wavs, texts, strict=True))
    file = lines(tmp_path / "table" / "train.tsv", "audio\ttarget_text", *table)
    rows = built(DatasetsConfig(data=file if kind == "file" else file.parent), tmp_path)
    assert [row.target_text for row in rows] == texts


def test_arrays_that_are_no_samples_are_missing_by_row(datasets: Any, tmp_path: Path) -> None:
    left = noise(0.5, 0)
    stereo = np.stack([left, left / 2])
    arrays: list[Any] = [stereo.tolist(), (32768 * stereo).astype(np.int16).tolist(), (20_000 * stereo).tolist(), [[[0.1]]]]
    table = datasets.Dataset.from_list(
        [{"audio": {"array": json.dumps(array), "sampling_rate": SAMPLE_RATE}, "target_text": "a"} for array in arrays]
    )
    config = DatasetsConfig(data=tmp_path / "table")
    table.save_to_disk(config.data)

    class Parsed(list[Any]):
        column_names, features = table.column_names, table.features

    def load(_: str) -> Any:
        return Parsed({**row, "audio": {**row["audio"], "array": json.loads(row["audio"]["array"])}} for row in table)

    with pytest.MonkeyPatch.context() as patch:  # Arrow wants all arrays of one shape, a loading script does not
        patch.setattr(datasets, "load_from_disk", load)
        (row,) = built(config, tmp_path)
    np.testing.assert_allclose(row.load(), left * 0.75, atol=2**-14)
    listing = (tmp_path / "rows.jsonl.missing.txt").read_text().splitlines()
    assert "row 1: samples are int64; float in [-1, 1] is needed: divide int16 by 32768" in listing[0]
    assert "row 2: samples reach" in listing[1]
    assert "row 3: audio has shape (1, 1, 1)" in listing[2]


def test_extra_columns_that_json_does_not_know_become_text(datasets: Any, tmp_path: Path) -> None:
    day = datetime.date(2026, 1, 31)
    values: dict[str, list[Any]] = {"audio": [str(sound(tmp_path / "a.wav"))], "target_text": ["a"], "day": [day], "n": [3]}
    values["talk"] = [{"days": [day], "room": "A"}]
    datasets.Dataset.from_dict(values).save_to_disk(tmp_path / "table")
    (row,) = built(DatasetsConfig(data=tmp_path / "table", extra_columns=("day", "n", "talk")), tmp_path)
    assert row.extra == {"day": "2026-01-31", "n": 3, "talk": {"days": ["2026-01-31"], "room": "A"}}


def test_an_extra_value_that_json_does_not_have_is_named(datasets: Any, tmp_path: Path) -> None:
    values = {"audio": ["a.wav"] * 2, "target_text": ["a", "b"], "scores": [{"snr": [1.0]}, {"snr": [2.0, float("nan")]}]}
    datasets.Dataset.from_dict(values).save_to_disk(tmp_path / "table")
    with pytest.raises(CorpusError, match=r"table, row 1: extra column scores\.snr\[1\] is nan; .* or leave the column out"):
        built(DatasetsConfig(data=tmp_path / "table", extra_columns=("scores",)), tmp_path)


def test_arrays_are_written_once_and_shards_are_the_whole(datasets: Any, tmp_path: Path) -> None:
    audio = [{"array": noise(0.5, n).tolist(), "sampling_rate": 8000} for n in range(4)]
    table = datasets.Dataset.from_dict({"audio": audio, "target_text": ["a", "b", "c", "d"]})
    table.save_to_disk(tmp_path / "table")
    whole = built(DatasetsConfig(data=tmp_path / "table"), tmp_path)
    assert [row.duration_s for row in whole] == [1.0] * 4
    parts: list[Utterance] = []
    for part in (1, 2, 3):
        config = DatasetsConfig(data=tmp_path / "table", shard=f"{part}/3")
        (tmp_path / str(part)).mkdir()
        parts += built(config, tmp_path / str(part))
    assert [(row.id, Path(row.audio).name) for row in parts] == [(row.id, Path(row.audio).name) for row in whole]


def test_sound_inside_is_taken_where_its_file_is_gone(datasets: Any, tmp_path: Path) -> None:
    there = sound(tmp_path / "there.wav")
    audio = [{"path": str(path), "bytes": encoded(1, 0)} for path in (there, tmp_path / "gone.wav")]
    datasets.Dataset.from_dict({"audio": audio, "target_text": ["a", "b"]}).save_to_disk(tmp_path / "table")
    rows = built(DatasetsConfig(data=tmp_path / "table"), tmp_path)
    assert [Path(row.audio).parent for row in rows] == [tmp_path, tmp_path / "rows-audio"]


def test_broken_sound_in_a_table_is_missing(datasets: Any, tmp_path: Path) -> None:
    audio = [{"path": "a", "bytes": encoded(1, 0)}, {"path": "b", "bytes": b"no sound"}, {"path": None, "bytes": None}]
    datasets.Dataset.from_dict({"audio": audio, "target_text": ["a", "b", "c"]}).save_to_disk(tmp_path / "table")
    assert len(built(DatasetsConfig(data=tmp_path / "table"), tmp_path)) == 1
    listing = (tmp_path / "rows.jsonl.missing.txt").read_text()
    assert "row 1: not readable as audio" in listing
    assert "row 2: no audio; it must be a path, encoded bytes, or an array with its sampling_rate" in listing


def test_tables_that_cannot_be_read(datasets: Any, tmp_path: Path) -> None:
    table = table_of_bytes(datasets)
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "table")
    with pytest.raises(CorpusError, match="no split 'dev'; it has train"):
        read_datasets(DatasetsConfig(data=tmp_path / "table", split="dev"))
    with pytest.raises(CorpusError, match=r"no column target_text; it has audio, translation"):
        read_datasets(DatasetsConfig(data=tmp_path / "table"))
    with pytest.raises(CorpusError, match=r"row 0: no 'translation.fr'; the columns are audio, translation"):
        read_datasets(DatasetsConfig(data=tmp_path / "table", target_column="translation.fr"))[0]
    with pytest.raises(CorpusError, match=r"nobody/nothing: .*no such file or folder here, so it was looked up on the hub"):
        read_datasets(DatasetsConfig(data=Path("nobody/nothing")))
    with pytest.raises(CorpusError, match=r"notes.txt: a table must be one of .parquet, .json"):
        read_datasets(DatasetsConfig(data=lines(tmp_path / "notes.txt", "no table")))
    with pytest.raises(CorpusError, match=r"cannot be loaded as split 'train' of a table: .*JSON"):
        read_datasets(DatasetsConfig(data=lines(tmp_path / "table.jsonl", "no table")))


def supervision(lhotse: Any, name: str, start: float, duration: float, pair: int, **custom: Any) -> Any:
    english = PAIRS[pair][0]
    return lhotse.SupervisionSegment(name, "rec", start, duration, text=english, speaker="ann", custom=custom)


def saved(lhotse: Any, folder: Path, *cuts: Any) -> Path:
    lhotse.CutSet.from_cuts(cuts).to_file(folder / "cuts.jsonl.gz")
    return folder / "cuts.jsonl.gz"


def test_each_supervision_of_a_cut_is_a_slice_of_its_recording(lhotse: Any, tmp_path: Path) -> None:
    recording = lhotse.Recording.from_file(sound(tmp_path / "long.wav", 6.0))
    first = supervision(lhotse, "s0", 0.25, 1.0, 0, translation=PAIRS[0][1])
    second = supervision(lhotse, "s1", 1.5, 9.0, 1, translation=PAIRS[1][1])  # it reaches beyond its cut
    cut = lhotse.MonoCut("c0", 2.0, 3.0, 0, supervisions=[first, second], recording=recording)
    rows = built(LhotseConfig(data=saved(lhotse, tmp_path, cut)), tmp_path)
    assert [(row.source_text, row.target_text) for row in rows] == PAIRS[:2]
    assert [(row.id, row.start_s, row.duration_s) for row in rows] == [("c0-s0-en-de", 2.25, 1.0), ("c0-s1-en-de", 3.5, 1.5)]
    assert rows[0].extra == {"speaker": "ann"}
    np.testing.assert_array_equal(rows[0].load(), cut.load_audio()[0, 4000:20_000])


def test_cuts_that_are_no_plain_slice_are_written(lhotse: Any, tmp_path: Path) -> None:
    recording = lhotse.Recording.from_file(sound(tmp_path / "a.wav", 2.0))
    soundfile.write(tmp_path / "two.wav", np.stack([noise(2.0), np.zeros_like(noise(2.0))], axis=1), SAMPLE_RATE)
    two = lhotse.Recording.from_file(tmp_path / "two.wav")
    cuts = [
        lhotse.MonoCut(f"c{n}", 0.0, source.duration, 0, recording=source)
        for n, source in enumerate([recording.perturb_speed(1.25), two, recording])
    ]
    for n, cut in enumerate(cuts):
        cut.supervisions = [supervision(lhotse, f"s{n}", 0.0, cut.duration, n)]
        cut.custom = {"translation": {"de": PAIRS[n][1]}}  # of the cut, not of the supervision
    cuts[2] = cuts[2].pad(duration=3.0, preserve_id=True)
    cuts[2].supervisions[0].custom = {"translation": {"de": PAIRS[2][1]}}
    rows = built(LhotseConfig(data=saved(lhotse, tmp_path, *cuts), target_field="translation.de"), tmp_path)
    assert [(row.id, row.target_text) for row in rows] == [(f"c{n}-en-de", PAIRS[n][1]) for n in range(3)]
    assert [Path(row.audio).parent.name for row in rows] == ["rows-audio"] * 3
    assert [row.duration_s for row in rows] == [1.6, 2.0, 2.0]
    np.testing.assert_allclose(rows[1].load(), noise(2.0), atol=2**-14)  # one channel, not the mean of two


def test_cut_sets_that_cannot_be_read(lhotse: Any, tmp_path: Path) -> None:
    recording = lhotse.Recording.from_file(sound(tmp_path / "a.wav", 2.0))
    cut = lhotse.MonoCut("c0", 0.0, 2.0, 0, recording=recording)
    with pytest.raises(CorpusError, match="1 cuts without a supervision"):
        read_lhotse(LhotseConfig(data=saved(lhotse, tmp_path, cut)))
    cut.supervisions = [supervision(lhotse, "s0", 0.0, 2.0, 0, german="Hallo")]
    with pytest.raises(CorpusError, match=r"the custom field 'translation'; supervisions have german: .*--target-field"):
        read_lhotse(LhotseConfig(data=saved(lhotse, tmp_path, cut)))
    with pytest.raises(CorpusError, match=r"cuts.jsonl: not readable as a CutSet"):
        read_lhotse(LhotseConfig(data=lines(tmp_path / "cuts.jsonl", '{"no": "cut"}')))
    with pytest.raises(CorpusError, match=r"expected .*none.jsonl, but .* holds "):
        read_lhotse(LhotseConfig(data=tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("name", "read", "config"), [("datasets", read_datasets, DatasetsConfig), ("lhotse", read_lhotse, LhotseConfig)]
)
def test_a_package_that_is_not_installed(name: str, read: Any, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeError, match=rf"needs the package {name}: pip install 'simulsa\[{name}\]'"):
        read(config())
