"""JSON that any parser reads: nothing else comes in, nothing else goes out, whichever module reads or writes it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import simulsa
from simulsa.evaluation.folder import read_scores
from simulsa.evaluation.instances import EvaluationError
from simulsa.evaluation.logs import read_log
from simulsa.files import append_jsonl, write_json
from simulsa.manifest import ManifestError, Utterance, read_manifest, write_manifest
from simulsa.strict_json import JSONError, dumps, loads

NOT_JSON = ["NaN", "-Infinity", "[1, Infinity]", '{"a": NaN}', "1e400", "-1e999", "1" + "0" * 400, "[" * 100_000, "{", "", "'a'"]

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    return all(map(is_finite, value)) if isinstance(value, list) else True


def refuse(name: str) -> None:
    raise AssertionError(f"{name} was written")


@pytest.mark.parametrize("text", NOT_JSON)
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(JSONError):
        loads(text)


@example({"scores": [{"bleu": float("nan")}]})
@given(values)
def test_what_is_written_is_read_again_and_nothing_else_is_written(value: Any) -> None:
    if is_finite(value):
        for text in (dumps(value), dumps(value, escape=True), dumps(value, indent=2)):
            assert json.loads(text, parse_constant=refuse) == loads(text.encode()) == value
    else:
        with pytest.raises(JSONError, match=r"(nan|inf); JSON has finite numbers only"):
            dumps(value)


def test_the_place_of_a_number_that_is_none() -> None:
    with pytest.raises(JSONError, match=re.escape("scores[1].bleu is nan")):
        dumps({"scores": [{"bleu": 1.0}, {"bleu": float("nan")}]})


def test_half_a_character_is_escaped() -> None:
    assert loads(dumps(["ä\ud800"]).encode()) == ["ä\ud800"]


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"bleu": 1.0})
    with pytest.raises(JSONError):
        write_json(tmp_path / "a.json", {"bleu": float("nan")})
    assert loads((tmp_path / "a.json").read_bytes()) == {"bleu": 1.0}
    with pytest.raises(JSONError):
        append_jsonl(tmp_path / "a.jsonl", [{"loss": 1.0}, {"loss": float("inf")}])
    assert not (tmp_path / "a.jsonl").exists()


ROW = '{"id": "%s", "audio": "a.wav", "source_lang": "en", "target_lang": "de", "target_text": "Ja.", "speaker_age": %s}\n'


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_in_a_manifest_it_is_an_error_of_the_line(tmp_path: Path, number: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(ROW % ("a", 30) + ROW % ("b", number))
    with pytest.raises(ManifestError, match=r"rows.jsonl:2: not JSON \(.*" + number):
        read_manifest(path)
    row = Utterance("a", str(tmp_path / "a.wav"), "en", "de", "Ja.", extra={"speaker_age": float(number.lower())})
    with pytest.raises(JSONError, match="speaker_age"):
        write_manifest(tmp_path / "again.jsonl", [row])


def test_in_a_log_it_is_an_error_of_the_line(written: Any) -> None:
    line = {"index": 0, "prediction": "Ja", "delays": [100.0], "elapsed": [100.0], "source_length": 100.0}
    with pytest.raises(EvaluationError, match=r"a.log:1: not JSON \(NaN is not JSON"):
        read_log(written([dumps(line).replace("100.0]", "NaN]", 1), line]))


def test_scores_that_are_not_json(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text('[{"bleu": NaN}]')
    with pytest.raises(EvaluationError, match="NaN is not JSON"):
        read_scores(tmp_path)


def test_nobody_else_reads_or_writes_json() -> None:
    root = Path(simulsa.__file__).parent
    users = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"^import json|^from json", path.read_text(), re.M)
    }
    assert users == {"strict_json.py", "training/folder.py"}  # the latter for a file of transformers
