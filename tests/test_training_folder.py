"""The folder of a training: what lies in it, resuming, and other trainings' folders."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simulsa.lalm.interface import LALMError
from simulsa.lalm.load import load
from simulsa.lalm.parts import RECORD
from simulsa.manifest import Utterance
from simulsa.settings import to_mapping
from simulsa.training.config import TrainConfig
from simulsa.training.folder import Folder
from simulsa.training.train import TrainError, train
from tests.locks import written_elsewhere
from tests.trainings import (
    Rows,
    answers,
    difference,
    killed_at,
    log,
    negative_log_probs,
    settings,
    stop_training_at,
    weights,
)

# the tuned model and its base


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, random_lalm: Any) -> tuple[Any, list[Utterance], TrainConfig, Any]:
    """A finished training of four offline rows and an augmented one: the tuned model, rows, settings, the base's state before."""
    import soundfile

    from tests.conftest import CAPTIONS, noise

    folder = tmp_path_factory.mktemp("tuned")
    rows = []
    for i, (_, german) in enumerate(CAPTIONS):
        soundfile.write(folder / f"{i}.wav", noise(1.5 + 0.2 * i, seed=i), 16_000)
        rows.append(Utterance(f"row-{i}", str(folder / f"{i}.wav"), "en", "de", german))
    tokens = random_lalm.encode(rows[0].target_text)[:3]
    rows.append(
        dataclasses.replace(
            rows[0],
            id="cut",
            parent_id="row-0",
            duration_s=0.7,
            target_text=random_lalm.decode(tokens),
            target_tokens=tuple(tokens),
        )
    )
    before = {name: weight.clone() for name, weight in random_lalm.model.state_dict().items()}, answers(random_lalm, rows)
    config = settings(folder / "run", learning_rate=3e-2, epochs=3, batch_size=2, micro_batch_size=2, preflight=True)
    return train(random_lalm, rows, config), rows, config, before


def test_the_base_is_as_it_was(tuned: Any, random_lalm: Any) -> None:
    model, rows, _, (state, answers_before) = tuned
    after = random_lalm.model.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[name], state[name]) for name in state)
    assert answers(random_lalm, rows) == answers_before
    assert np.abs(negative_log_probs(model, rows) - negative_log_probs(random_lalm, rows)).max() > 0.1


def test_the_folder_loads_as_the_model_that_was_returned(tuned: Any) -> None:
    model, rows, config, _ = tuned
    loaded = load(str(config.out), device="cpu")
    loaded.max_target_tokens = model.max_target_tokens
    assert loaded.signature == model.signature
    assert loaded.name == model.name
    # merged into the weights, which rounds elsewhere
    np.testing.assert_allclose(negative_log_probs(loaded, rows), negative_log_probs(model, rows), atol=1e-4)
    assert answers(loaded, rows) == answers(model, rows)


def test_the_record_says_what_was_trained_on_what_and_how(tuned: Any, random_lalm: Any) -> None:
    _, _, config, _ = tuned
    record = json.loads((config.out / RECORD).read_text())
    assert record["base_model"] == random_lalm.name
    assert record["base_signature"] == random_lalm.signature
    assert (record["data"]["offline_rows"], record["data"]["augmented_rows"]) == (4, 1)
    assert record["settings"] == to_mapping(config)
    assert record["versions"].keys() == {"simulsa", "transformers", "peft", "torch"}
    assert record["final_loss"] == log(config.out)[-1]["loss"]
    assert log(config.out)[-1]["step"] == config.optimiser_steps(5) == 9
    assert (config.out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((config.out / "adapter_config.json").read_text())["base_model_name_or_path"] == random_lalm.name


def test_a_finished_training_is_not_done_again(tuned: Any, random_lalm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows, config, _ = tuned
    stop_training_at(monkeypatch, 1)
    relaxed = dataclasses.replace(config, micro_batch_size=1, logging_every_steps=7, on_error="skip")  # not decisive
    again = train(random_lalm, rows, relaxed)
    assert again.signature == model.signature
    assert answers(again, rows) == answers(model, rows)


def test_a_training_of_an_earlier_version_is_known_and_what_is_gone_from_its_settings_ignored(
    tuned: Any, random_lalm: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, rows, config, _ = tuned
    stop_training_at(monkeypatch, 1)
    path = config.out / RECORD
    written = path.read_text()
    record = json.loads(written)
    record["settings"]["simultaneous_from"] = 0.5
    path.write_text(json.dumps(record))
    try:
        assert train(random_lalm, rows, config).signature == model.signature
    finally:
        path.write_text(written)
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert warnings == [f"{path}: has settings that simulsa no longer has (simultaneous_from); they are ignored"]


def test_a_folder_from_before_the_number_format_was_recorded(
    tuned: Any, random_lalm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows, config, _ = tuned
    stop_training_at(monkeypatch, 1)
    path = config.out / RECORD
    record = path.read_text()
    assert random_lalm.signature.endswith("+float32")
    for found, accepted in ((random_lalm.content, True), (f"{random_lalm.content}+bfloat16", False), ("other@0", False)):
        path.write_text(record.replace(random_lalm.signature, found))
        if accepted:
            assert train(random_lalm, rows, config).signature == model.signature
        else:
            with pytest.raises(TrainError, match="the base model was"):
                train(random_lalm, rows, config)
    path.write_text(record)


def test_other_audio_under_the_same_names_is_another_training(
    tuned: Any, random_lalm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows, config, _ = tuned
    stop_training_at(monkeypatch, 1)
    records = {path: path.read_text() for path in (config.out / RECORD, config.out / "checkpoints" / RECORD)}
    audio = Path(rows[1].audio)
    heard = audio.read_bytes()
    audio.write_bytes(heard[:-2] + b"\x12\x34")
    try:
        with pytest.raises(TrainError, match=r"the audio's signature was \w+ and is \w+.*--overwrite"):
            train(random_lalm, rows, config)
        for path in records:
            without_audio(path)
        assert train(random_lalm, rows, config).signature == model.signature
        for path, record in records.items():
            path.write_text(record)
        audio.unlink()  # deleted audio contradicts nothing
        assert train(random_lalm, rows, config).signature == model.signature
    finally:
        for path, record in records.items():
            path.write_text(record)
        audio.write_bytes(heard)


def without_audio(path: Path) -> None:
    """Make a record one of earlier versions, which did not record the audio's signature."""
    record = json.loads(path.read_text())
    del record["data"]["audio"]
    path.write_text(json.dumps(record))


def test_a_training_that_an_earlier_version_began_goes_on(make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    rows = make_rows(4)
    config = settings(tmp_path / "run", batch_size=2, micro_batch_size=2, save_every_steps=1)
    killed_at(2, random_lalm, rows, config)
    without_audio(config.out / "checkpoints" / RECORD)
    train(random_lalm, rows, config)
    assert [entry["step"] for entry in log(config.out)] == [1, 2]


def test_a_failed_preflight_overwrites_nothing(tuned: Any, random_lalm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, rows, config, _ = tuned
    before = {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()}

    def fails(*_: object) -> None:
        raise LALMError("deaf")

    monkeypatch.setattr("simulsa.training.train.preflight", fails)
    with pytest.raises(LALMError, match="deaf"):
        train(random_lalm, rows, dataclasses.replace(config, seed=1, overwrite=True))
    assert {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()} == before


def test_another_training_in_the_folder_is_refused(tuned: Any, random_lalm: Any) -> None:
    _, rows, config, _ = tuned
    with pytest.raises(TrainError, match=r"holds another training \(seed was 0 and is 1\).*--overwrite"):
        train(random_lalm, rows, dataclasses.replace(config, seed=1))
    with pytest.raises(TrainError, match=r"the rows' hash was \w+ and is \w+.*--overwrite"):
        train(random_lalm, rows[:4], config)


def test_an_adapter_is_no_base(tuned: Any, tmp_path: Path) -> None:
    model, rows, _, _ = tuned
    with pytest.raises(LALMError, match="carries an adapter already"):
        train(model, rows, settings(tmp_path))


def test_a_changed_base_is_refused(make_rows: Rows, random_model_folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(random_model_folder, base)
    train(load(str(base), device="cpu"), make_rows(2), settings(tmp_path / "run"))
    load(str(tmp_path / "run"), device="cpu")
    lalm = load(str(base), device="cpu")
    lalm.model.lm_head.weight.data += 0.01
    lalm.model.save_pretrained(base)
    with pytest.raises(LALMError, match=r"the adapter was trained on .* restore that base, or train the adapter again"):
        load(str(tmp_path / "run"), device="cpu")


def test_a_base_named_by_a_relative_path_is_found_from_anywhere(
    make_rows: Rows, random_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(random_model_folder.parent)
    base = load(random_model_folder.name, device="cpu")
    train(base, make_rows(2), settings(tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    assert load("run", device="cpu").name == "run"


# the folder


@pytest.mark.parametrize("length_grouping", [False, True])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    length_grouping: bool, make_rows: Rows, random_lalm: Any, tmp_path: Path
) -> None:
    rows = make_rows(7)
    # 4 steps an epoch; with dropout, so that the generators' states matter too
    changes = {"batch_size": 2, "micro_batch_size": 1, "epochs": 2, "lora_dropout": 0.2, "logging_every_steps": 1}
    changes["length_grouping"] = length_grouping
    train(random_lalm, rows, settings(tmp_path / "straight", **changes))
    config = settings(tmp_path / "killed", save_every_steps=3, **changes)
    for forward_pass in (5, 7):  # in step 3, before any checkpoint; then after steps 1 to 3, so in the first epoch's last step
        killed_at(forward_pass, random_lalm, rows, config)
    (config.out / "checkpoints" / "checkpoint-5").mkdir()  # the kill came while this one was written
    killed_at(8, random_lalm, rows, config)  # from step 3 on, so in the second epoch, behind the checkpoint of step 6
    assert not (config.out / "adapter_config.json").exists()
    train(random_lalm, rows, config)
    assert difference(weights(tmp_path / "straight"), weights(config.out)) < 1e-5
    assert [entry["step"] for entry in log(config.out)] == list(range(1, 8 if length_grouping else 9))
    for straight, resumed in zip(log(tmp_path / "straight"), log(config.out), strict=True):
        assert straight["loss"] == pytest.approx(resumed["loss"], abs=1e-5)


def test_a_training_killed_behind_its_last_step_only_finishes(
    make_rows: Rows, random_lalm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(4)
    config = settings(tmp_path / "run", batch_size=1, micro_batch_size=1, epochs=1.5)  # ends within an epoch
    train(random_lalm, rows, config)
    before = weights(config.out)
    for name in ("adapter_config.json", RECORD, "adapter_model.safetensors"):
        (config.out / name).unlink()
    stop_training_at(monkeypatch, 1)
    train(random_lalm, rows, config)
    assert difference(before, weights(config.out)) == 0


def test_an_unfinished_training_is_protected_until_overwritten(make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    rows = make_rows(4)
    config = settings(tmp_path / "run", batch_size=2, micro_batch_size=2, save_every_steps=1)
    killed_at(2, random_lalm, rows, config)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    other = dataclasses.replace(config, learning_rate=2e-2)
    with pytest.raises(TrainError, match=r"learning_rate was 0.01 and is 0.02.*--overwrite"):
        train(random_lalm, rows, other)
    train(random_lalm, rows, dataclasses.replace(other, overwrite=True))
    assert [entry["step"] for entry in log(config.out)] == [1, 2]
    assert json.loads((config.out / RECORD).read_text())["settings"]["learning_rate"] == 2e-2
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_checkpoints_are_not_without_their_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    folder = Folder(tmp_path)
    (folder.checkpoints / "checkpoint-1").mkdir(parents=True)
    (folder.checkpoints / RECORD).write_text("{}")
    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.clear()
    assert (folder.checkpoints / RECORD).exists(), "or the next training would go on from another one's weights"


def test_a_copy_of_a_checkpoint_is_not_one_and_stays(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for name in ("checkpoint-2", "checkpoint-10", "checkpoint-10-copy"):
        (folder.checkpoints / name).mkdir(parents=True)
        (folder.checkpoints / name / "trainer_state.json").write_text('{"global_step": 10}')
    assert folder.last_checkpoint() == (folder.checkpoints / "checkpoint-10", {"global_step": 10})
    folder.clear()
    assert [path.name for path in folder.checkpoints.iterdir()] == ["checkpoint-10-copy"]


def test_checkpoints_that_a_kill_left_incomplete_do_not_count_as_kept(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for name in ("checkpoint-5", "checkpoint-10", "checkpoint-15", "checkpoint-20", "checkpoint-50"):
        (folder.checkpoints / name).mkdir(parents=True)
    for name in ("checkpoint-5", "checkpoint-10", "checkpoint-15"):
        (folder.checkpoints / name / "trainer_state.json").write_text("{}")
    folder.drop_old_checkpoints()
    names = sorted(path.name for path in folder.checkpoints.iterdir())
    assert names == ["checkpoint-10", "checkpoint-15", "checkpoint-20", "checkpoint-50"]


def test_only_the_last_two_checkpoints_are_kept_and_every_copy(make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    rows = make_rows(4)
    config = settings(tmp_path / "run", batch_size=1, micro_batch_size=1, save_every_steps=1)
    killed_at(3, random_lalm, rows, config)
    checkpoints = Folder(config.out).checkpoints
    shutil.copytree(checkpoints / "checkpoint-1", checkpoints / "checkpoint-1-copy")
    os.utime(checkpoints / "checkpoint-1-copy", (0, 0))  # the oldest
    train(random_lalm, rows, config)
    names = sorted(path.name for path in checkpoints.iterdir() if path.is_dir())
    assert names == ["checkpoint-1-copy", "checkpoint-3", "checkpoint-4"]


def test_rows_that_come_or_go_within_a_training_are_noticed(make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    rows = make_rows(4)
    config = settings(tmp_path / "run", batch_size=1, micro_batch_size=1, save_every_steps=1, on_error="skip")
    killed_at(3, random_lalm, rows, config)
    Path(rows[2].audio).unlink()
    with pytest.raises(TrainError, match=r"left out the rows \[\], now \['row-2'\]"):
        train(random_lalm, rows, config)


def test_the_folders_of_models_and_of_other_trainers_are_left_alone(
    make_rows: Rows, random_lalm: Any, random_model_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match="holds a model; choose another --out"):
        train(random_lalm, make_rows(1), settings(random_model_folder, overwrite=True))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(TrainError, match="adapter of another trainer"):
        train(random_lalm, make_rows(1), settings(tmp_path))
    (tmp_path / RECORD).write_text("{}")
    with pytest.raises(TrainError, match=r"simulsa\.json: not the record of a training"):
        train(random_lalm, make_rows(1), settings(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="has no fcntl")
def test_a_folder_that_another_process_trains_into_is_refused(make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    run = settings(tmp_path / "run")
    with written_elsewhere(run.out), pytest.raises(TrainError, match=r"run: another process is training into it.*another --out"):
        train(random_lalm, make_rows(1), run)
    assert not run.out.exists()


def test_training_says_what_it_does_and_prints_nothing(
    make_rows: Rows, random_lalm: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="simulsa"):
        train(random_lalm, make_rows(2), settings(tmp_path / "run"))
    assert capfd.readouterr() == ("", "")
    for part in ("2 offline (100.0%)", "1 optimiser steps", "parameters are trained (", "changed, paper: 128", "step 1 of 1"):
        assert part in caplog.text
