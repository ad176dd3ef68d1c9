"""Rows for other trainers: what the files hold, slices as files, broken audio."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from simulsa.audio import SAMPLE_RATE, AudioError, load_audio
from simulsa.cli import main
from simulsa.integrations.export import ExportConfig, ExportError, export
from simulsa.manifest import ManifestError, Utterance, write_manifest
from tests.conftest import small_disk

Rows = Callable[..., list[Utterance]]


@pytest.fixture
def rows(make_rows: Rows) -> list[Utterance]:
    """Two offline rows and one that was cut from the first."""
    offline = make_rows(2)
    return [*offline, dataclasses.replace(offline[0], id="row-0@700ms", parent_id="row-0", duration_s=0.7, target_text="Ein")]


def conversations(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "train.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("Qwen/Qwen2-Audio-7B-Instruct", "Translate the English speech into German."),
        ("microsoft/Phi-4-multimodal-instruct", "Translate the audio to German."),
        ("ibm-granite/granite-speech-3.3-8b", "translate the speech to German"),
        ("a-folder", "translate the speech to German"),
        ("nobody/knows-this", "Translate the English speech into German."),
    ],
)
def test_the_instruction_is_the_one_of_the_family(
    model: str, asked: str, rows: list[Utterance], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if model == "a-folder":
        model = str(tmp_path / model)
        Path(model).mkdir()
        (tmp_path / "a-folder" / "config.json").write_text(json.dumps({"model_type": "granite_speech"}))
    export(rows, tmp_path / "out", ExportConfig(base_model=model))
    assert {line["messages"][0]["content"] for line in conversations(tmp_path / "out")} == {f"<audio>{asked}"}  # type: ignore[index]
    assert ("family is unknown" in caplog.text) is (model == "nobody/knows-this")


def test_ms_swift_reads_messages_and_audio_files(rows: list[Utterance], tmp_path: Path) -> None:
    assert export(rows, tmp_path / "out") == 3
    first, _, cut = conversations(tmp_path / "out")
    assert first == {
        "messages": [
            {"role": "user", "content": "<audio>Translate the English speech into German."},
            {"role": "assistant", "content": rows[0].target_text},
        ],
        "audios": [str(Path(rows[0].audio).resolve())],
    }
    assert cut["messages"][1]["content"] == "Ein"  # type: ignore[index]
    [audio] = cut["audios"]  # type: ignore[misc]
    assert Path(audio).parent == (tmp_path / "out" / "audio").resolve()
    written = load_audio(audio)
    assert len(written) == 0.7 * SAMPLE_RATE
    assert np.abs(written - rows[2].load()).max() <= 2**-15
    script = (tmp_path / "out" / "train.sh").read_text(encoding="utf-8")
    assert script.splitlines()[2] == "swift sft \\"
    for setting in (
        "lora_rank 8",
        "lora_alpha 32",
        "learning_rate 0.0001",
        "gradient_accumulation_steps 16",
        "dataset train.jsonl",
    ):
        assert f"    --{setting}" in script


def test_llamafactory_finds_the_rows_by_its_dataset_info(rows: list[Utterance], tmp_path: Path) -> None:
    export(rows, tmp_path / "out", ExportConfig("llamafactory", "some/model"))
    settings = yaml.safe_load((tmp_path / "out" / "train.yaml").read_text(encoding="utf-8"))
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text(encoding="utf-8"))[settings["dataset"]]
    made = conversations(tmp_path / "out")
    assert info["file_name"] == "train.jsonl"
    assert all(set(info["columns"].values()) == set(row) for row in made)
    answers = [row["messages"][1]["content"] for row in made]  # type: ignore[index]
    assert answers == [rows[0].target_text, rows[1].target_text, "Ein"]
    assert (settings["model_name_or_path"], settings["lora_rank"], settings["num_train_epochs"]) == ("some/model", 8, 2)


def test_a_hugging_face_dataset(rows: list[Utterance], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs simulsa[datasets]")
    export(rows, tmp_path / "out", ExportConfig("hf-dataset"))
    dataset = datasets.load_from_disk(str(tmp_path / "out" / "dataset"))
    assert dataset["id"][:] == [row.id for row in rows]
    assert dataset["parent_id"][:] == [None, None, "row-0"]
    assert dataset.features["audio"].sampling_rate == SAMPLE_RATE
    with pytest.raises(ExportError, match=r"holds a dataset already.*--overwrite"):
        export(rows, tmp_path / "out", ExportConfig("hf-dataset"))
    assert export(rows, tmp_path / "out", ExportConfig("hf-dataset", overwrite=True)) == 3


def test_slices_are_written_once(rows: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(rows, tmp_path / "out")
    before = conversations(tmp_path / "out")
    monkeypatch.setattr(soundfile, "write", lambda *args, **kwargs: pytest.fail("written again"))
    export(rows, tmp_path / "out")
    assert conversations(tmp_path / "out") == before


def test_a_changed_source_is_cut_again(rows: list[Utterance], tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(rows, out)
    soundfile.write(rows[0].audio, np.zeros(2 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    os.utime(rows[0].audio, ns=(0, 0))
    with pytest.raises(ExportError, match=r"train\.jsonl would change.*--overwrite"):
        export(rows, out)
    export(rows, out, ExportConfig(overwrite=True))
    assert not load_audio(conversations(out)[2]["audios"][0]).any()  # type: ignore[index]


@pytest.mark.parametrize(("kind", "edited"), [("ms-swift", "train.sh"), ("llamafactory", "train.yaml")])
def test_edited_settings_and_other_rows_are_kept(rows: list[Utterance], tmp_path: Path, kind: Any, edited: str) -> None:
    out, again = tmp_path / "out", ExportConfig(kind)
    export(rows, out, again)
    (out / "train.jsonl").unlink()  # as if the export had been interrupted
    export(rows, out, again)
    with open(out / edited, "a", encoding="utf-8") as file:
        file.write("# mine\n")
    with pytest.raises(ExportError, match=rf"{edited} would change; choose another --out, or replace it with --overwrite"):
        export(rows, out, again)
    assert (out / edited).read_text(encoding="utf-8").endswith("# mine\n")
    export(rows[:2], out, dataclasses.replace(again, overwrite=True))
    assert "mine" not in (out / edited).read_text(encoding="utf-8")
    with pytest.raises(ExportError, match=r"train\.jsonl would change"):
        export(rows, out, again)
    assert len(conversations(out)) == 2


def test_an_id_stands_for_one_row(rows: list[Utterance], tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"'row-0'.*unique"):
        export([*rows, dataclasses.replace(rows[2], id="row-0")], tmp_path / "out")
    with pytest.raises(ExportError, match="no rows"):
        export([], tmp_path / "out")


def test_broken_audio_is_named_or_left_out(rows: list[Utterance], tmp_path: Path) -> None:
    broken = dataclasses.replace(rows[1], id="broken", audio=str(tmp_path / "none.wav"))
    with pytest.raises(AudioError, match="broken"):
        export([*rows, broken], tmp_path / "out")
    assert not (tmp_path / "out" / "train.jsonl").exists()
    assert export([*rows, broken], tmp_path / "out", ExportConfig(on_error="skip")) == 3
    with pytest.raises(ExportError, match="none of the 1 rows"):
        export([broken], tmp_path / "out", ExportConfig(on_error="skip"))


def test_the_command(rows: list[Utterance], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(tmp_path / "offline.jsonl", rows[:2])
    write_manifest(tmp_path / "cut.jsonl", rows[2:])
    given = ["export", "--offline", str(tmp_path / "offline.jsonl"), "--augmented", str(tmp_path / "cut.jsonl")]
    assert main([*given, "--out", str(tmp_path / "out"), "--format", "llamafactory"]) == 0
    assert "3 rows for llamafactory" in capsys.readouterr().err
    assert len(conversations(tmp_path / "out")) == 3
    assert main([*given, "--out", str(tmp_path / "out"), "--format", "fairseq"]) == 2


def test_a_disk_too_small_for_the_slices_is_one_line(make_rows: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [dataclasses.replace(row, duration_s=0.9) for row in make_rows(1)]
    write_manifest(tmp_path / "rows.jsonl", rows)
    with small_disk():
        assert main(["export", "--offline", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("simulsa export: while writing: a file is larger than this disk or a limit (ulimit -f) allows; ")
