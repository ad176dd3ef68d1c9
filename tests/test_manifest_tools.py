"""`manifest stats`, `manifest filter`, and the corpora as commands: exit codes, files, one line for an error."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulsa.cli import main
from simulsa.commands.manifest import CORPORA
from simulsa.corpora.filters import FilterConfig, filter_rows
from simulsa.corpora.stats import measure
from simulsa.manifest import Utterance, read_manifest, write_manifest
from tests import made_corpora as made
from tests.made_corpora import PAIRS, lines


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def row(name: str, target: str = "Guten Abend.", **values: Any) -> Utterance:
    values = {"source_text": "Good evening.", "duration_s": 1.0, **values}
    return Utterance(name, values.pop("audio", f"{name}.wav"), "en", "de", target, **values)


def cut(name: str, parent: str, target: str = "Guten", **values: Any) -> Utterance:
    return row(name, target, **{"audio": f"{parent}.wav", "duration_s": 0.4, "parent_id": parent, **values})


def _flags(settings: dict[str, Any]) -> list[str]:
    values = {name: value if isinstance(value, tuple) else (value,) for name, value in settings.items()}
    return [word for name, several in values.items() for word in (f"--{name.replace('_', '-')}", *several)]


COMMANDS: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "covost2": (made.covost2, []),
    "fleurs": (made.fleurs, ["--source-lang", "en_us", "--target-lang", "de_de"]),
    "mustc": (made.mustc, []),
    "europarl-st": (made.europarl_st, ["--jobs", "2"]),
    "tsv": (made.tsv, _flags(made.TSV_COLUMNS)),
}


@pytest.mark.parametrize("corpus", list(COMMANDS))
def test_a_corpus_becomes_a_manifest(corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, flags = COMMANDS[corpus]
    data, out = make(tmp_path / "corpus"), tmp_path / "out" / "rows.jsonl"
    assert run("manifest", corpus, "--data", data, "--out", out, *flags) == 0
    rows = read_manifest(out)
    assert capsys.readouterr().out == f"{out}: {len(rows)} rows\n"
    assert [(r.source_text, r.target_text) for r in rows][-1] == PAIRS[1 if corpus == "fleurs" else 4]
    assert all(r.load().size == r.length_samples() for r in rows)
    assert run("manifest", "validate", out) == 0


@pytest.mark.parametrize("corpus", list(CORPORA))
def test_help_says_what_data_is(corpus: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("manifest", corpus, "--help") == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--data PATH" in out
    assert "the manifest to write (.jsonl)" in out


def test_a_settings_file_and_flags_that_win(tmp_path: Path) -> None:
    data = made.mustc(tmp_path / "en-de", "dev")
    config = tmp_path / "a.yaml"
    config.write_text(f"data: {data}\nout: {tmp_path / 'rows.jsonl'}\nsplit: train\nshard: 1/5\n")
    assert run("manifest", "mustc", "--config", config, "--split", "dev") == 0
    assert [r.id for r in read_manifest(tmp_path / "rows.jsonl")] == ["ted_1-0000-en-de"]


def test_a_wrong_layout_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("manifest", "mustc", "--data", tmp_path, "--out", tmp_path / "rows.jsonl") == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"simulsa manifest: expected {tmp_path}/data/train, but {tmp_path} is empty; --data must be")


def test_missing_audio_is_no_failure_but_with_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = made.covost2(tmp_path / "cv"), tmp_path / "rows.jsonl"
    (data / "clips" / "common_voice_en_3.mp3").unlink()
    assert run("manifest", "covost2", "--data", data, "--out", out, "--strict") == 1
    assert "the audio of 1 of 5 rows is missing" in capsys.readouterr().err
    assert not out.exists()
    assert run("manifest", "covost2", "--data", data, "--out", out) == 0
    assert len(read_manifest(out)) == 4
    assert (tmp_path / "rows.jsonl.missing.txt").read_text().startswith("common_voice_en_3-en-de\t")
    assert run("manifest", "covost2", "--data", data, "--out", out) == 1
    assert "exists; choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shard", "5/4"], "shard is '5/4'; it must be i/n"),
        (["--target-lang", "klingonish"], "unknown language 'klingonish'"),
        (["--sprit", "dev"], "--sprit"),
    ],
)
def test_wrong_flags(flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("manifest", "mustc", "--out", tmp_path / "rows.jsonl", *flags) == 2
    assert message in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["multi30k", "--limit", "-5", "--out", "rows.jsonl"], "limit is -5; it must be a whole number, 1 or more"),
        (["validate", "rows.jsonl", "--max-s", "nan"], "max_s is nan; it must be a number above 0"),
    ],
)
def test_limits_out_of_range(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("manifest", *arguments) == 2
    assert message in "".join(capsys.readouterr())


def test_a_verb_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("manifest") == 2
    assert "manifest needs a subcommand: validate, stats" in capsys.readouterr().err
    assert run("manifest", "--help") == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in (*CORPORA, "validate", "stats", "filter", "demo", "multi30k"))


def test_stats_count_by_languages_and_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.sound(tmp_path / "whole.wav", 3.0)
    rows = [row(f"r{n}", "x" * (10 + n), duration_s=1.0 + n) for n in range(5)]
    rows += [cut("c0", "r0", ""), dataclasses.replace(row("f", "bon soir"), target_lang="fr")]
    rows += [row("whole", "y", duration_s=None, start_s=1.0, audio=str(tmp_path / "whole.wav")), row("lost", duration_s=None)]
    write_manifest(tmp_path / "rows.jsonl", rows)
    assert run("manifest", "stats", tmp_path / "rows.jsonl", "--out", tmp_path / "stats") == 0
    assert sorted(path.name for path in (tmp_path / "stats").iterdir()) == ["stats.json", "stats.png"]
    values = json.loads((tmp_path / "stats" / "stats.json").read_text())
    assert (values["rows"], values["unreadable"]) == (9, 1)
    assert values["hours"] == pytest.approx((15 + 0.4 + 1 + 2) / 3600)
    groups = {(group["target_lang"], group["kind"]): group for group in values["groups"]}
    assert {key: group["rows"] for key, group in groups.items()} == {
        ("de", "offline"): 6,
        ("de", "simultaneous"): 1,
        ("fr", "offline"): 1,
    }
    german = groups["de", "offline"]
    assert german["duration_s"] == pytest.approx({"min": 1, "p5": 1.25, "median": 2.5, "p95": 4.75, "max": 5, "mean": 17 / 6})
    assert (german["target_chars"]["min"], german["target_chars"]["max"]) == (1, 14)
    assert german["chars_per_s"]["max"] == 10
    assert "en→de" in capsys.readouterr().out
    assert (tmp_path / "stats" / "stats.png").read_bytes().startswith(b"\x89PNG")


def test_stats_of_a_broken_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("manifest", "stats", lines(tmp_path / "rows.jsonl", "{}"), "--out", tmp_path / "stats") == 1
    assert "rows.jsonl:1: missing id" in capsys.readouterr().err
    assert not (tmp_path / "stats").exists()


@pytest.mark.parametrize(
    ("settings", "bad", "reason"),
    [
        ({"min_duration_s": 0.5}, row("x", duration_s=0.49), ("duration", "0.49")),
        ({"max_duration_s": 30}, row("x", duration_s=30.5), ("duration", "30.5")),
        ({"min_target_chars": 2}, row("x", "a"), ("target length", "1")),
        ({"max_target_chars": 12}, row("x", "Guten Abend!!"), ("target length", "13")),
        ({"min_chars_per_s": 3}, row("x", "abc", duration_s=2.0), ("characters per second", "1.5")),
        ({"max_chars_per_s": 12}, row("x", "Guten Abend!!"), ("characters per second", "13")),
        ({"max_length_ratio": 2}, row("x", "Hi", source_text="Hello"), ("length ratio", "2.5")),
        ({"max_length_ratio": 2}, row("x", "Hallo", source_text="Hi"), ("length ratio", "2.5")),
        ({}, row("x", " "), ("empty", "translation ''")),
        ({}, row("x", "..."), ("empty", "translation '...'")),
        ({}, row("x", source_text="♪"), ("empty", "source '♪'")),
        ({}, row("x", audio="good.wav"), ("duplicate", "as good")),
        ({"duplicates": "text"}, row("x"), ("duplicate", "as good")),
    ],
)
def test_each_filter(settings: dict[str, Any], bad: Utterance, reason: tuple[str, str]) -> None:
    good = row("good")
    kept, dropped = filter_rows([good, bad], FilterConfig(**settings))
    assert kept == [good]
    assert [(r.id, r.filter, r.found) for r in dropped] == [("x", *reason)]


@pytest.mark.parametrize(
    ("settings", "other"),
    [
        ({}, row("x")),  # the same texts in other audio: two speakers
        ({}, row("x", audio="good.wav", start_s=1.0)),
        ({}, row("x", "Guten Tag.", audio="good.wav")),
        ({}, row("x", source_text=None)),
        ({"duplicates": "keep"}, row("x", audio="good.wav")),
        ({"drop_empty": False}, row("x", "...")),
        ({"max_length_ratio": 2}, row("x", "Guten Abend, meine Damen und Herren.", source_text=None)),
        ({"min_target_chars": 12, "max_length_ratio": 1.5, "min_chars_per_s": 12}, cut("x", "good", "")),
        ({}, cut("x", "good", "")),
        ({}, cut("x", "good", "Guten Abend.", duration_s=1.0)),  # all of its parent
        ({"duplicates": "text"}, row("x", "Guten Tag.")),
    ],
)
def test_what_no_filter_takes(settings: dict[str, Any], other: Utterance) -> None:
    rows = [row("good"), other]
    assert filter_rows(rows, FilterConfig(**settings)) == (rows, [])


def test_different_cuts_of_a_row_are_no_duplicates_and_equal_ones_are() -> None:
    rows = [row("p"), cut("c", "p"), cut("longer", "p", duration_s=0.5), cut("again", "p")]
    kept, dropped = filter_rows(rows, FilterConfig(duplicates="text"))
    assert [r.id for r in kept] == ["p", "c", "longer"]
    assert [(r.id, r.found) for r in dropped] == [("again", "as c")]


def test_a_cut_row_goes_with_its_parent_wherever_it_stands() -> None:
    kept, dropped = filter_rows([cut("c", "long"), row("good"), row("long", duration_s=40.0)], FilterConfig(max_duration_s=30))
    assert [r.id for r in kept] == ["good"]
    assert {r.id: r.filter for r in dropped} == {"long": "duration", "c": "parent"}


@given(st.lists(st.tuples(st.floats(0.1, 60), st.integers(0, 80), st.booleans()), max_size=12))
def test_what_passes_once_passes_again_and_nothing_is_lost(values: list[tuple[float, int, bool]]) -> None:
    rows = [
        cut(f"r{n}", "r0", "x" * chars, duration_s=duration) if is_cut and n else row(f"r{n}", "x" * chars, duration_s=duration)
        for n, (duration, chars, is_cut) in enumerate(values)
    ]
    config = FilterConfig(min_duration_s=1, max_duration_s=30, max_chars_per_s=20, max_length_ratio=3)
    kept, dropped = filter_rows(rows, config)
    assert sorted([r.id for r in kept] + [r.id for r in dropped]) == sorted(r.id for r in rows)
    assert filter_rows(kept, config) == (kept, [])


def test_filter_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.sound(tmp_path / "long.wav", 2.0)
    rows = [row("a"), row("long", duration_s=None), row("lost", duration_s=None), row("b", "  "), row("c", audio="a.wav")]
    rows = [dataclasses.replace(r, audio=str(tmp_path / r.audio)) for r in rows]
    write_manifest(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "good.jsonl"
    assert run("manifest", "filter", tmp_path / "rows.jsonl", "--out", out, "--max-duration-s", "1.5") == 0
    assert [r.id for r in read_manifest(out)] == ["a"]
    lost = [line.split("\t") for line in (tmp_path / "good.jsonl.dropped.tsv").read_text().splitlines()]
    assert [line[:2] for line in lost] == [
        ["id", "filter"],
        ["long", "duration"],
        ["lost", "audio"],
        ["b", "empty"],
        ["c", "duplicate"],
    ]
    shown = capsys.readouterr().out
    assert "all" in shown
    assert f"{out}: 1 rows" in shown
    assert run("manifest", "filter", tmp_path / "rows.jsonl", "--out", tmp_path / "rows.jsonl") == 1
    assert "exists; choose another --out" in capsys.readouterr().err
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 5


def test_tabs_and_line_breaks_in_ids_stay_in_their_column(tmp_path: Path) -> None:
    rows = [row("a"), row("b\tc\nd\r", " "), cut("e", "b\tc\nd\r")]
    write_manifest(tmp_path / "rows.jsonl", rows)
    assert run("manifest", "filter", tmp_path / "rows.jsonl", "--out", tmp_path / "out.jsonl") == 0
    lost = [line.split("\t") for line in (tmp_path / "out.jsonl.dropped.tsv").read_bytes().decode().split("\n")]
    assert lost == [
        ["id", "filter", "found"],
        [r"b\tc\nd\r", "empty", "translation ''"],
        ["e", "parent", r"parent b\tc\nd\r is removed"],
        [""],
    ]


def test_filters_that_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(tmp_path / "rows.jsonl", [row("a"), row("b")])
    assert run("manifest", "filter", tmp_path / "rows.jsonl", "--out", tmp_path / "out.jsonl", "--min-duration-s", "5") == 1
    assert "none of 2 rows passes; 2 fail by duration" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_duration_s": 5, "max_duration_s": 1}, "min_duration_s is 5 and max_duration_s 1"),
        ({"max_duration_s": math.nan}, "max_duration_s is nan; it must be a number, or be left out"),
        ({"max_length_ratio": 0.5}, "max_length_ratio is 0.5; it must be 1 or more"),
    ],
)
def test_filters_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FilterConfig(**values)


def test_measured_arrays() -> None:
    (group,) = measure([row("a", "x" * 10, duration_s=2.0), row("b", "x" * 30, duration_s=3.0)]).groups
    np.testing.assert_array_equal(group.chars_per_s, [5, 10])
    assert group.hours == 5 / 3600
