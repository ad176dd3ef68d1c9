"""Manifests: what is written is read again, and what is broken is named."""

from __future__ import annotations

import dataclasses
import json
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE
from simulsa.manifest import ManifestError, Utterance, check_audio, read_manifest, write_manifest
from tests.conftest import examples

ROW = {"id": "a", "audio": "a.wav", "source_lang": "en", "target_lang": "de", "target_text": "Hallo"}

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
path_part = st.text(string.ascii_letters + string.digits + "äß 漢_-", min_size=1, max_size=8).filter(
    lambda part: part.strip() == part
)
seconds = st.floats(0.001, 1e5)
plain = st.none() | st.booleans() | st.integers() | text
rows_of_a_manifest = st.lists(
    st.builds(
        Utterance,
        id=text.filter(bool),
        audio=st.lists(path_part, min_size=1, max_size=3).map(lambda parts: "/".join(parts)),
        source_lang=st.sampled_from(["en", "fr", "zh-CN"]),
        target_lang=st.sampled_from(["de", "ja", "pt_BR"]),
        target_text=text.filter(str.strip),
        source_text=st.none() | text,
        start_s=st.just(0.0) | seconds,
        duration_s=st.none() | seconds,
        parent_id=st.none() | text,
        target_tokens=st.none() | st.lists(st.integers(0, 10**6), max_size=4).map(tuple),
        made_by=st.none() | st.dictionaries(text, plain, max_size=3),
        extra=st.dictionaries(text.map(lambda key: "x-" + key), plain | st.lists(plain, max_size=2), max_size=3),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda row: row.id,
)


def write_text(folder: Path, *rows: dict[str, Any] | str, encoding: str = "utf-8", newline: str = "\n") -> Path:
    path = folder / "rows.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_bytes("".join(line + newline for line in lines).encode(encoding))
    return path


@given(rows_of_a_manifest, st.booleans())
@settings(max_examples=examples(60), deadline=None)
def test_what_is_written_is_read_again(rows: list[Utterance], outside: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name).resolve()
        audio_home = Path("/elsewhere") if outside else home / "audio"
        rows = [dataclasses.replace(row, audio=str(audio_home / row.audio)) for row in rows]
        write_manifest(home / "rows.jsonl", rows)
        assert read_manifest(home / "rows.jsonl") == rows


def test_a_folder_can_move_with_its_manifest(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    inside = Utterance("in", str(old / "audio" / "a.wav"), "en", "de", "eins")
    outside = Utterance("out", str(tmp_path / "old-audio" / "b.wav"), "en", "de", "zwei")
    write_manifest(old / "rows.jsonl", [inside, outside])
    written = [json.loads(line)["audio"] for line in (old / "rows.jsonl").read_text().splitlines()]
    assert written == ["audio/a.wav", outside.audio]
    old.rename(new)
    assert [row.audio for row in read_manifest(new / "rows.jsonl")] == [str(new / "audio" / "a.wav"), outside.audio]


def test_a_path_that_climbs_out_of_a_linked_folder_stays_the_same_file(tmp_path: Path) -> None:
    """`link/..` is the folder above the link's target, not the one that the link is in."""
    target = tmp_path / "target"
    for folder in (target / "inner", target / "home", tmp_path / "home"):
        folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(target / "inner")
    for path in (target / "a.wav", target / "home" / "a.wav"):
        path.write_bytes(b"right")
        (tmp_path / path.relative_to(target)).write_bytes(b"wrong")
    for climbing in (tmp_path / "link" / ".." / "a.wav", tmp_path / "link" / ".." / "home" / "a.wav"):
        for home in (tmp_path, tmp_path / "home", target, target / "home", tmp_path / "link" / "..", tmp_path / "link"):
            write_manifest(home / "rows.jsonl", [Utterance("a", str(climbing), "en", "de", "eins")])
            assert Path(read_manifest(home / "rows.jsonl")[0].audio).read_bytes() == b"right", (climbing, home)
    plain = tmp_path / "home" / "a.wav"
    write_manifest(tmp_path / "link" / ".." / "home" / "rows.jsonl", [Utterance("a", str(plain), "en", "de", "eins")])
    assert Path(read_manifest(target / "home" / "rows.jsonl")[0].audio).read_bytes() == b"wrong"
    write_manifest(target / "rows.jsonl", [Utterance("a", str(tmp_path / "link" / ".." / "a.wav"), "en", "de", "eins")])
    assert json.loads((target / "rows.jsonl").read_text())["audio"] == "a.wav"


def test_relative_paths_start_at_the_manifest_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path, {**ROW, "audio": "clips/a.wav"})
    monkeypatch.chdir(tmp_path)
    rows = read_manifest("rows.jsonl")
    assert rows[0].audio == str(tmp_path / "clips" / "a.wav")
    write_manifest("copy.jsonl", rows)
    assert json.loads(Path("copy.jsonl").read_text())["audio"] == "clips/a.wav"


def test_defaults_are_left_out_and_unknown_fields_kept(tmp_path: Path) -> None:
    path = write_text(tmp_path, {**ROW, "speaker": "f2", "extra": [1, None], "source_text": None})
    rows = read_manifest(path)
    assert rows[0].extra == {"speaker": "f2", "extra": [1, None]}
    write_manifest(path, rows)
    assert json.loads(path.read_text()) == {**ROW, "speaker": "f2", "extra": [1, None]}


def test_a_field_of_an_earlier_version_is_ignored_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_text(tmp_path, {**ROW, "latency": "fast"}, {**ROW, "id": "b", "latency": "careful"}, {**ROW, "id": "c"})
    rows = read_manifest(path)
    assert [row.id for row in rows] == ["a", "b", "c"]
    assert caplog.messages == [f"{path}: 2 rows have the field latency, which simulsa no longer uses; it is ignored"]
    assert rows[0].extra == {"latency": "fast"}


def test_bom_crlf_and_blank_lines_are_fine(tmp_path: Path) -> None:
    path = write_text(
        tmp_path, ROW, "", "   ", {**ROW, "id": "b", "target_text": "Tür\u2028zu"}, encoding="utf-8-sig", newline="\r\n"
    )
    assert [(row.id, row.target_text) for row in read_manifest(path)] == [("a", "Hallo"), ("b", "Tür\u2028zu")]


def test_an_augmented_row_may_have_an_empty_target(tmp_path: Path) -> None:
    path = write_text(tmp_path, {**ROW, "target_text": "", "target_tokens": [], "parent_id": "b", "duration_s": 1})
    (row,) = read_manifest(path)
    assert row.is_augmented
    assert (row.target_text, row.target_tokens, row.duration_s) == ("", (), 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "audio": ', r"rows\.jsonl:3: not JSON .*one whole object"),
        ("[1, 2]", r"rows\.jsonl:3: a list where an object is needed"),
        ('"text"', r"rows\.jsonl:3: a str where an object is needed"),
        ({"id": "b", "audio": "b.wav"}, r"rows\.jsonl:3 \(id 'b'\): missing source_lang, target_lang, target_text"),
        ({"audio": "b.wav"}, r"rows\.jsonl:3: missing id, source_lang"),
        ({**ROW, "id": "b", "target_text": None}, r"rows\.jsonl:3 \(id 'b'\): missing target_text"),
        ({**ROW, "id": "b", "audio": None}, r"rows\.jsonl:3 \(id 'b'\): missing audio"),
        (ROW, r"rows\.jsonl:3: id 'a' was used in line 1 already"),
        ({**ROW, "id": ""}, r"rows\.jsonl:3 \(id ''\): the id is empty"),
        ({**ROW, "id": 7}, r"rows\.jsonl:3 \(id 7\): id is 7; it must be of type str"),
        ({**ROW, "id": "b", "target_text": 5}, r"\(id 'b'\): target_text is 5; it must be of type str"),
        ({**ROW, "id": "b", "duration_s": "3"}, r"\(id 'b'\): duration_s is '3'; it must be of type int or float"),
        ({**ROW, "id": "b", "duration_s": True}, r"\(id 'b'\): duration_s is True; it must be of type int or float"),
        ({**ROW, "id": "b", "made_by": "me"}, r"\(id 'b'\): made_by is 'me'; it must be of type dict"),
        ({**ROW, "id": "b", "target_tokens": "1 2"}, r"\(id 'b'\): target_tokens is '1 2'; it must be of type list"),
        ({**ROW, "id": "b", "target_tokens": [1, "2"]}, r"\(id 'b'\): target_tokens is \[1, '2'\]"),
        ({**ROW, "id": "b", "target_text": " \n"}, r"\(id 'b'\): target_text is empty"),
        ({**ROW, "id": "b", "target_lang": "xx"}, r"\(id 'b'\): unknown language 'xx'"),
        ({**ROW, "id": "b", "source_lang": ""}, r"\(id 'b'\): unknown language ''"),
        ({**ROW, "id": "b", "start_s": -1}, r"\(id 'b'\): start_s is -1"),
        ({**ROW, "id": "b", "start_s": float("nan")}, r"rows\.jsonl:3: not JSON \(NaN"),
        ({**ROW, "id": "b", "start_s": float("inf")}, r"rows\.jsonl:3: not JSON \(Infinity"),
        ({**ROW, "id": "b", "duration_s": 0}, r"\(id 'b'\): duration_s is 0"),
        ({**ROW, "id": "b", "duration_s": float("inf")}, r"rows\.jsonl:3: not JSON \(Infinity"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: dict[str, Any] | str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(write_text(tmp_path, ROW, "", line))


def test_manifests_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.jsonl: no such manifest"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(ManifestError, match="is a folder"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match="has no rows"):
        read_manifest(write_text(tmp_path, "", ""))
    (tmp_path / "rows.jsonl").write_bytes(b"\xff\xfe{\x00}\x00")
    with pytest.raises(ManifestError, match="not UTF-8"):
        read_manifest(tmp_path / "rows.jsonl")


def test_a_failed_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = write_text(tmp_path, ROW)
    before = path.read_bytes()
    good = read_manifest(path)[0]
    with pytest.raises(TypeError):
        write_manifest(path, [good, dataclasses.replace(good, id="b", extra={"x": object()})])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_row_loads_its_slice(make_rows: Callable[..., list[Utterance]]) -> None:
    whole = make_rows(1)[0]
    piece = dataclasses.replace(whole, start_s=0.5, duration_s=1.0)
    assert piece.length_samples() == len(piece.load()) == SAMPLE_RATE
    np.testing.assert_array_equal(piece.load(), whole.load()[SAMPLE_RATE // 2 : SAMPLE_RATE * 3 // 2])


def test_check_audio_names_every_row_that_cannot_be_used(make_rows: Callable[..., list[Utterance]]) -> None:
    good, slice_outside, missing, broken = make_rows(4)  # 2.0, 2.3, 2.6, 2.9 s
    Path(missing.audio).unlink()
    Path(broken.audio).write_bytes(b"no sound")
    rows = [good, dataclasses.replace(slice_outside, start_s=2.0, duration_s=1.0), missing, broken]
    problems = {row.id: problem for row, problem in check_audio(rows)}
    assert list(problems) == [row.id for row in rows[1:]]
    assert "must lie inside the file, which lasts 2.300 s" in problems[slice_outside.id]
    assert "no such audio file" in problems[missing.id]
    assert "not readable as audio" in problems[broken.id]
    assert list(check_audio([good], max_samples=2 * SAMPLE_RATE)) == []
    ((_, problem),) = check_audio([good], max_samples=2 * SAMPLE_RATE - 1)
    assert "lasts 2.00000 s and the model hears at most 1.99994 s" in problem


@pytest.mark.parametrize("field", ["target_text", "source_text", "speaker", "made_by"])
def test_half_of_a_surrogate_pair_is_refused_by_line_and_id(tmp_path: Path, field: str) -> None:
    value: Any = {"of": "M\ud83d"} if field == "made_by" else "M\ud83d"
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "id": "b", field: value}))
    with pytest.raises(ManifestError, match=rf"rows\.jsonl:2 \(id 'b'\): '{field}' is .*\\ud83d.* a lone surrogate"):
        read_manifest(path)
    whole = write_text(tmp_path, json.dumps({**ROW, "target_text": "\U0001f600"}))  # as a pair of escapes
    assert read_manifest(whole)[0].target_text == "\U0001f600"


@pytest.mark.parametrize("field", ["start_s", "duration_s"])
def test_a_number_that_no_float_can_hold_is_refused_by_line(tmp_path: Path, field: str) -> None:
    path = write_text(tmp_path, ROW, json.dumps({**ROW, "id": "b", field: 10**400}))
    with pytest.raises(ManifestError, match=r"rows\.jsonl:2.*401 digits"):
        read_manifest(path)


def test_keys_that_look_like_ours_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{**ROW, "id": str(n), "offset": n, "duration": 3.0, "speaker": "x", "source_txt": "y"} for n in range(3)]
    read_manifest(write_text(tmp_path, *rows))
    for key, field in (("offset", "start_s"), ("duration", "duration_s"), ("source_txt", "source_text")):
        assert f"3 rows (the first: '0') have '{key}', which is kept but not used; simulsa's field is '{field}'" in caplog.text
    assert "speaker" not in caplog.text
    caplog.clear()
    read_manifest(write_text(tmp_path, *({**row, "start_s": 1.0, "duration_s": 1.0, "source_text": "y"} for row in rows)))
    assert not caplog.text
