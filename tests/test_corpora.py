"""Corpora in the layouts in which they are released become manifests; broken ones say what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simulsa.corpora.build import CorpusConfig, write_corpus
from simulsa.corpora.covost2 import Covost2Config, read_covost2
from simulsa.corpora.europarl_st import EuroparlStConfig, read_europarl_st
from simulsa.corpora.fleurs import FleursConfig, read_fleurs
from simulsa.corpora.layout import AudioFolder, CorpusError
from simulsa.corpora.mustc import MustcConfig, read_mustc
from simulsa.corpora.tsv import TsvConfig, read_tsv_table
from simulsa.manifest import Utterance, read_manifest
from tests import made_corpora as made
from tests.made_corpora import PAIRS, lines


def built(read: Callable[[Any], Any], config: CorpusConfig, folder: Path) -> list[Utterance]:
    """The manifest of a corpus as it is read again."""
    write_corpus(read(config), folder / "rows.jsonl", config)
    return read_manifest(folder / "rows.jsonl")


def texts(rows: list[Utterance]) -> list[tuple[str | None, str]]:
    return [(row.source_text, row.target_text) for row in rows]


def test_covost2(tmp_path: Path) -> None:
    data = made.covost2(tmp_path / "cv")
    rows = built(read_covost2, Covost2Config(data=data), tmp_path)
    assert texts(rows) == PAIRS
    assert rows[1].id == "common_voice_en_1-en-de"
    assert [round(row.duration_s or 0, 3) for row in rows] == [1.0, 1.1, 1.2, 1.3, 1.4]
    assert Path(rows[2].audio) == data / "clips" / "common_voice_en_2.mp3"
    assert rows[2].load().shape == (19_200,)
    assert texts(read_covost2(Covost2Config(data=data, split="test"))) == [("It is late.", "Es ist spät.")]


def test_covost2_with_a_table_per_split(tmp_path: Path) -> None:
    data = made.covost2(tmp_path / "cv")
    (data / "validated.tsv").unlink()
    header, row = "path\tsentence\ttranslation\tclient_id", "common_voice_en_5.mp3\tIt is late.\tEs ist spät.\tabc"
    lines(tmp_path / "tables" / "covost_v2.en_de.dev.tsv", header, row)
    config = Covost2Config(data=data, tables=tmp_path / "tables", split="dev")
    assert texts(read_covost2(config)) == [("It is late.", "Es ist spät.")]


def test_covost2_as_its_own_script_writes_it(tmp_path: Path) -> None:
    data = made.covost2(tmp_path / "cv")
    rows = [
        'common_voice_en_0.mp3\t\\"Stop,\\" she said.\t\\"Halt\\", sagte sie.',
        "common_voice_en_1.mp3\tA\\\tB\tEin \\\\ Strich",
        "common_voice_en_2.mp3\tPlain.\tREMOVE",
        'common_voice_en_3.mp3\t"Hi"\tREMOVE das',
    ]
    lines(tmp_path / "tables" / "covost_v2.en_de.train.tsv", "path\tsentence\ttranslation", *rows)
    found = built(read_covost2, Covost2Config(data=data, tables=tmp_path / "tables"), tmp_path)
    assert texts(found) == [
        ('"Stop," she said.', '"Halt", sagte sie.'),
        ("A\tB", "Ein \\ Strich"),
        ('"Hi"', "REMOVE das"),
    ]
    assert (tmp_path / "rows.jsonl.missing.txt").read_text() == "common_voice_en_2-en-de\tno translation\n"


def test_covost2_passes_over_broken_rows_of_other_splits(tmp_path: Path) -> None:
    data = made.covost2(tmp_path / "cv")
    with open(data / "validated.tsv", "a", encoding="utf-8") as table:
        table.write("speaker9\tcommon_voice_en_9.mp3\tA stray\ttab\t2\n")
        table.write("speaker9\n")
    assert len(built(read_covost2, Covost2Config(data=data), tmp_path)) == 5


def test_fleurs_matches_sentences_by_id(tmp_path: Path) -> None:
    data = made.fleurs(tmp_path / "fleurs")
    rows = built(read_fleurs, FleursConfig(data=data), tmp_path)
    assert texts(rows) == [PAIRS[0], PAIRS[0], PAIRS[1]]
    assert [row.id for row in rows] == ["fleurs-3-1000-en-de", "fleurs-3-1001-en-de", "fleurs-5-1002-en-de"]
    assert (rows[0].source_lang, rows[0].target_lang, rows[0].extra) == ("en", "de", {"gender": "female"})
    assert (tmp_path / "rows.jsonl.missing.txt").read_text() == "fleurs-9-1003-en-de\tno translation\n"


def test_fleurs_calls_mandarin_what_everybody_calls_it(tmp_path: Path) -> None:
    data = made.fleurs(tmp_path)
    (data / "de_de").rename(data / "cmn_hans_cn")
    assert {row.target_lang for row in read_fleurs(FleursConfig(data=data, target_lang="cmn_hans_cn"))} == {"zh"}


def test_mustc_is_slices_of_its_talks(tmp_path: Path) -> None:
    data = made.mustc(tmp_path / "en-de", "tst-COMMON")
    rows = built(read_mustc, MustcConfig(data=data, split="tst-COMMON"), tmp_path)
    assert texts(rows) == PAIRS
    assert [row.id for row in rows][1:3] == ["ted_1-0001-en-de", "ted_2-0000-en-de"]
    assert [(row.start_s, row.duration_s) for row in rows][:3] == [(0.25, 1.5), (2.0, 1.0), (0.0, 2.0)]
    assert rows[0].extra == {"speaker": "spk.1"}
    assert rows[3].load().shape == (20_000,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["en-de", "rows.jsonl"]


def test_texts_keep_all_but_line_feeds_and_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    txt = made.mustc(tmp_path) / "data" / "train" / "txt"
    for lang in ("en", "de"):
        text = (txt / f"train.{lang}").read_text()
        (txt / f"train.{lang}").write_bytes(b"\xef\xbb\xbf" + text.replace(" ", "\u2028", 1).replace("\n", "\r\n").encode())
    assert texts(read_mustc(MustcConfig(data=tmp_path)))[0] == tuple(text.replace(" ", "\u2028", 1) for text in PAIRS[0])
    lines(tmp_path / "table.tsv", "audio\ttarget_text\textra\r", "a.wav\tHallo\tlast\r")
    (row,) = read_tsv_table(TsvConfig(data=tmp_path / "table.tsv", extra_columns=("extra",)))
    assert row.extra == {"extra": "last"}


def test_the_file_that_is_listed_wins(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    for name in ("a.mp3", "a.wav", "b.wav", "b.flac", "c.1-2.wav", "d.m4a"):
        lines(folder / name)
    found = {name: Path(AudioFolder(folder).find(name)).name for name in ("a.mp3", "a.flac", "b", "b.mp3", "c.1-2", "d", "e.wav")}
    assert found == {
        "a.mp3": "a.mp3",
        "a.flac": "a.wav",
        "b": "b.wav",
        "b.mp3": "b.wav",
        "c.1-2": "c.1-2.wav",
        "d": "d.m4a",
        "e.wav": "e.wav",
    }


def test_mustc_takes_flac_where_wav_is_listed(tmp_path: Path) -> None:
    wav = made.mustc(tmp_path) / "data" / "train" / "wav"
    made.sound(wav / "ted_1.flac", 5.0)
    (wav / "ted_1.wav").unlink()
    assert Path(read_mustc(MustcConfig(data=tmp_path))[0].audio) == wav / "ted_1.flac"


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_europarl_st(tmp_path: Path, suffix: str) -> None:
    data = made.europarl_st(tmp_path / "v1.1", suffix)
    rows = built(read_europarl_st, EuroparlStConfig(data=data), tmp_path)
    assert texts(rows) == PAIRS
    assert [row.id for row in rows][2:4] == ["en.20080924.31.3-243-0002-en-de", "en.20080924.4.3-018-0000-en-de"]
    assert (rows[1].start_s, rows[1].duration_s) == (1.23, 1.27)
    assert Path(rows[4].audio) == data / "en" / "audios" / f"en.20080924.4.3-018{suffix}"


def test_a_table_with_columns_of_any_name(tmp_path: Path) -> None:
    config = TsvConfig(data=made.tsv(tmp_path), **made.TSV_COLUMNS)
    rows = built(read_tsv_table, config, tmp_path)
    assert texts(rows) == PAIRS
    assert (rows[1].id, rows[1].start_s, rows[1].duration_s, rows[1].extra) == ("table-000003", 1.5, 1.0, {"who": "s1"})


def test_a_column_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    lines(tmp_path / "table.tsv", "audio\ttext.de", "a.wav\tHallo")
    assert texts(read_tsv_table(TsvConfig(data=tmp_path / "table.tsv", target_column="text.de"))) == [(None, "Hallo")]


def remove(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            remove(child)
        path.rmdir()
    else:
        path.unlink()


READERS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "covost2": (made.covost2, Covost2Config, read_covost2),
    "fleurs": (made.fleurs, FleursConfig, read_fleurs),
    "mustc": (made.mustc, MustcConfig, read_mustc),
    "europarl_st": (made.europarl_st, EuroparlStConfig, read_europarl_st),
}


@pytest.mark.parametrize(
    ("name", "removed", "message"),
    [
        ("covost2", "clips", r"expected .*clips, but .* holds covost_v2.en_de.tsv, validated.tsv; --data must be Common Voice"),
        (
            "covost2",
            "validated.tsv",
            r"expected .*validated.tsv, but .* holds clips/, covost.*tsv; it holds the sentences",
        ),
        ("covost2", "covost_v2.en_de.tsv", r"expected .*covost_v2.en_de.tsv, .*--tables must be the folder"),
        ("fleurs", "en_us/audio/train", r"expected .*train, but .*audio is empty; unpack"),
        ("fleurs", "de_de", r"expected .*de_de.train.tsv, but .* holds en_us/; --data must hold a folder per language"),
        ("mustc", "data/train", r"expected .*train, but .*data is empty; --data must be the folder of one direction"),
        ("mustc", "data/train/wav", r"expected .*wav, but .*train holds txt/"),
        ("mustc", "data/train/txt/train.de", r"expected .*train.de, but .* holds train.en, train.yaml"),
        ("europarl_st", "en/de/train", r"expected .*train, but .*de is empty; check --target-lang and --split"),
        ("europarl_st", "en/audios", r"expected .*audios, but .*en holds de/; --data must be"),
        ("europarl_st", "en/de/train/segments.de", r"expected .*segments.de, .*segments.en, segments.lst, speeches.lst"),
    ],
)
def test_a_wrong_layout_says_what_was_expected_and_found(tmp_path: Path, name: str, removed: str, message: str) -> None:
    make, config, read = READERS[name]
    make(tmp_path / "corpus")
    remove(tmp_path / "corpus" / removed)
    with pytest.raises(CorpusError, match=message):
        read(config(data=tmp_path / "corpus"))


@pytest.mark.parametrize("name", list(READERS))
def test_a_folder_that_is_not_there(tmp_path: Path, name: str) -> None:
    _, config, read = READERS[name]
    with pytest.raises(CorpusError, match=r"expected .*nowhere.*, but .* is empty; "):
        read(config(data=tmp_path / "nowhere"))


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        (
            "covost2",
            "covost_v2.en_de.tsv",
            "_1.mp3\t",
            "_1.mp3",
            r"en_de.tsv:3: 2 columns .* must be 3",
        ),
        ("covost2", "covost_v2.en_de.tsv", "translation", "target", r"no column translation; it has path, target, split"),
        ("covost2", "validated.tsv", "\t2\n", "\n", r"validated.tsv:2: 3 columns .* must be 4"),
        ("fleurs", "de_de/train.tsv", "\tFEMALE", "", r"train.tsv:1: 6 columns .* must be 7"),
        ("fleurs", "en_us/train.tsv", "3\t", "three\t", r"train.tsv:1: the first column is 'three'"),
        ("mustc", "data/train/txt/train.de", "\n", "", r"differ in number \(train.en 5, train.de 4\)"),
        ("mustc", "data/train/txt/train.yaml", "offset: 2.0", "offset: late", r"segment 2 is .*'offset': 'late'"),
        ("mustc", "data/train/txt/train.yaml", "wav: ted_2.wav", "wave: ted_2.wav", r"segment 3 is .*it must have wav"),
        ("mustc", "data/train/txt/train.yaml", "- {", "- {{", r"train.yaml: not YAML"),
        ("europarl_st", "en/de/train/segments.lst", " 1.23 2.50", " 1.23", r"segments.lst:2: .*a start and an end in seconds"),
        ("europarl_st", "en/de/train/segments.lst", "5.99", "end", r"segments.lst:3: 'end' where a number of seconds"),
        ("europarl_st", "en/de/train/segments.en", "\n", "", r"segments.lst 5, segments.en 4, segments.de 5"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, name: str, file: str, old: str, new: str, message: str) -> None:
    make, config, read = READERS[name]
    make(tmp_path)
    rewrite(tmp_path / file, old, new)
    with pytest.raises(CorpusError, match=message):
        read(config(data=tmp_path))


def test_segments_without_lines(tmp_path: Path) -> None:
    made.mustc(tmp_path)
    with (tmp_path / "data/train/txt/train.yaml").open("a") as file:
        file.write("- {wav: ted_1.wav, offset: 3, duration: 1}\n")
    with pytest.raises(CorpusError, match=r"train.yaml has 6 segments and train.en 5 lines"):
        read_mustc(MustcConfig(data=tmp_path))


def test_aac_says_how_it_is_converted(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"all audio is \.m4a, .*ffmpeg -i"):
        read_europarl_st(EuroparlStConfig(data=made.europarl_st(tmp_path, ".m4a")))


def test_aac_among_others_is_missing(tmp_path: Path) -> None:
    audios = made.europarl_st(tmp_path) / "en" / "audios"
    (audios / "en.20080924.4.3-018.flac").rename(audios / "en.20080924.4.3-018.m4a")
    rows = read_europarl_st(EuroparlStConfig(data=tmp_path))
    assert [Path(row.audio).suffix for row in rows] == [".flac"] * 3 + [".m4a"] * 2


def test_a_split_that_a_table_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no row of the split 'dev'"):
        read_covost2(Covost2Config(data=made.covost2(tmp_path), split="dev"))


def test_tables_that_are_none(tmp_path: Path) -> None:
    table = made.tsv(tmp_path)
    with pytest.raises(CorpusError, match="is a folder; --data must be the table"):
        read_tsv_table(TsvConfig(data=tmp_path))
    with pytest.raises(CorpusError, match=r"no column audio, target_text; it has clip, from"):
        read_tsv_table(TsvConfig(data=table))
    with pytest.raises(CorpusError, match=r"table.tsv:2: no 'clip.path'; the columns are clip, from"):
        read_tsv_table(TsvConfig(data=table, **{**made.TSV_COLUMNS, "audio_column": "clip.path"}))
    twice = lines(tmp_path / "twice.tsv", "audio\ttarget_text\ttarget_text", "a.wav\teins\tzwei")
    with pytest.raises(CorpusError, match=r"twice.tsv: 2 columns are named 'target_text'; rename the others"):
        read_tsv_table(TsvConfig(data=twice))
    rewrite(table, "2.5", "soon")
    with pytest.raises(CorpusError, match=r"table.tsv:4: 'soon' where a number of seconds is needed"):
        read_tsv_table(TsvConfig(data=table, **made.TSV_COLUMNS))
    table.write_bytes(b"\xff\xfeclip")
    with pytest.raises(CorpusError, match="not UTF-8"):
        read_tsv_table(TsvConfig(data=table))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"jobs": 0}, "jobs is 0; it must be a whole number, 1 or more"),
        ({"shard": "0/4"}, "shard is '0/4'; it must be i/n with i from 1 to n"),
        ({"shard": "half"}, "shard is 'half'"),
        ({"target_lang": "klingonish"}, "unknown language 'klingonish'"),
        ({"extra_columns": ("who", "id")}, "extra_columns has id, which is a field of every row already"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TsvConfig(**values)
