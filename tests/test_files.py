"""Files are whole or absent; journals survive a kill and a full disk."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa import files
from simulsa.files import append_jsonl, atomic_write, recover_jsonl, write_json
from tests.conftest import examples

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as file:
        file.write("one\n")
        assert not path.exists()
    assert path.read_bytes() == b"one\n"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("mode", ["w", "wb"])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: BaseException, mode: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with atomic_write(path, mode) as file:
            file.write("new" if mode == "w" else b"new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_write(path) as slow:
        with atomic_write(path) as quick:
            quick.write("quick")
        assert path.read_text() == "quick"
        slow.write("slow")
    assert path.read_text() == "slow"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "a.json", {"ä": 1})
    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_json(tmp_path / "a.json", {"ä": 2})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ä": 1}
    assert names(tmp_path) == ["a.json"]


def test_json_is_readable_by_people(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "ä": [\n    1\n  ]\n}\n'


def test_a_journal_grows(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    assert recover_jsonl(path) == []
    append_jsonl(path, [{"n": 1}, {"n": 2}])
    append_jsonl(path, [])
    append_jsonl(path, [{"n": 3}])
    assert recover_jsonl(path) == [{"n": 1}, {"n": 2}, {"n": 3}]


@given(texts=st.lists(ANY_TEXT, max_size=5))
@settings(max_examples=examples(40), deadline=None)
def test_any_text_survives_a_journal(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("journal") / "a.jsonl"
    values = [{"text": text} for text in [*texts, "line\u2028separator\x85next\x1c"]]
    append_jsonl(path, values)
    assert recover_jsonl(path) == values


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    append_jsonl(path, [{"n": 1}])
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            append_jsonl(path, [{"n": 2}])
    assert path.read_bytes() == b'{"n": 1}\n'
    append_jsonl(path, [{"n": 2}])
    assert recover_jsonl(path) == [{"n": 1}, {"n": 2}]


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_write_that_stops_halfway_is_taken_back(tmp_path: Path) -> None:
    """A real short write: the operating system takes the first part of a long line, then refuses the rest."""
    path = tmp_path / "journal.jsonl"
    append_jsonl(path, [{"n": 1}])
    code = f"""
        import resource, signal
        from simulsa.files import append_jsonl
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            append_jsonl({str(path)!r}, [{{"n": 2, "text": "x" * 30_000}}])
        except OSError:
            print("refused")
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert result.stdout == "refused\n"
    assert path.read_bytes() == b'{"n": 1}\n'


@given(cut=st.integers(0, 60))
@settings(max_examples=61, deadline=None)
def test_whatever_byte_a_kill_stops_at_whole_lines_remain(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "a.jsonl"
    values = [{"n": 1, "text": "für"}, {"n": 2, "text": "漢字"}, {"n": 3}]
    append_jsonl(path, values)
    data = path.read_bytes()
    path.write_bytes(data[:cut])
    whole = data[:cut].count(b"\n")
    assert recover_jsonl(path) == values[:whole]
    append_jsonl(path, [])
    assert path.read_bytes() == data[:cut]
    append_jsonl(path, values[whole:])
    assert path.read_bytes() == data


@pytest.mark.parametrize("line", ["no JSON", "[1]", '{"a": 1}', "\x00"])
def test_a_line_that_is_of_no_journal_is_named_and_kept(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    append_jsonl(path, [{"a": 1, "b": 2}])
    with open(path, "a") as file:
        file.write(f"{line}\nhalf a line")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"journal\.jsonl:2: not a line of the journal .* delete the file to start over"):
        recover_jsonl(path, ("a", "b"))
    assert path.read_bytes() == before
