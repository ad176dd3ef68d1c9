"""What makes training fast and must not change it: loader processes, compiled layers, nothing that walks all modules."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from simulsa.audio import AudioError
from simulsa.loading import LoadingError
from simulsa.manifest import Utterance
from simulsa.training.collator import Collator
from simulsa.training.compiled import compile_layers
from simulsa.training.config import TrainConfig
from simulsa.training.lora import add_lora
from simulsa.training.train import train
from simulsa.training.trainer import TokenMeanTrainer
from tests.test_loading import NO_SEMAPHORES, kill_a_loader, no_process_is_left, no_semaphores
from tests.test_training_data import break_while_reading
from tests.trainings import before_pass, difference, killed_at, log, settings, weights

Rows = Callable[..., list[Utterance]]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_loader_processes_change_nothing(dropout: float, make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    rows = make_rows(7)
    for workers in (0, 1, 4):
        config = settings(
            tmp_path / str(workers), batch_size=4, micro_batch_size=2, epochs=2, lora_dropout=dropout, workers=workers
        )
        train(random_lalm, rows, config)
    for workers in (1, 4):
        assert difference(weights(tmp_path / "0"), weights(tmp_path / str(workers))) == 0
        assert log(tmp_path / "0") == log(tmp_path / str(workers))


def test_loader_processes_go_on_where_a_training_stopped(make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    rows = make_rows(6)
    options = {"batch_size": 2, "micro_batch_size": 2, "epochs": 2, "save_every_steps": 2, "workers": 2}
    train(random_lalm, rows, settings(tmp_path / "whole", **options))
    stopped = settings(tmp_path / "stopped", **options)
    killed_at(4, random_lalm, rows, stopped)
    assert no_process_is_left()
    train(random_lalm, rows, stopped)
    assert difference(weights(tmp_path / "whole"), weights(tmp_path / "stopped")) < 1e-6
    assert no_process_is_left()


def test_a_loader_that_dies_ends_a_training_that_can_be_resumed(
    make_rows: Rows, random_lalm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(8)
    options = {"batch_size": 2, "micro_batch_size": 2, "epochs": 4, "save_every_steps": 2}
    train(random_lalm, rows, settings(tmp_path / "whole", **options))
    with monkeypatch.context() as patch:
        before_pass(patch, 4, kill_a_loader)
        with pytest.raises(LoadingError, match=r"^a process that loads data ended unexpectedly .*--workers 0 .*$"):
            train(random_lalm, rows, settings(tmp_path / "stopped", workers=2, **options))
    assert no_process_is_left()
    train(random_lalm, rows, settings(tmp_path / "stopped", workers=0, **options))
    assert difference(weights(tmp_path / "whole"), weights(tmp_path / "stopped")) < 1e-6


def test_semaphores_that_cannot_be_had_end_a_training_before_it_begins(
    make_rows: Rows, random_lalm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        no_semaphores(patch)
        with pytest.raises(LoadingError) as raised:
            train(random_lalm, make_rows(4), settings(tmp_path / "run", workers=2))
    assert str(raised.value) == NO_SEMAPHORES
    train(random_lalm, make_rows(4), settings(tmp_path / "run", workers=0))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_that_breaks_is_named_whoever_loads_it(
    workers: int, make_rows: Rows, random_lalm: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make_rows(6)
    break_while_reading(rows[4])
    config = settings(tmp_path / "run", batch_size=2, micro_batch_size=2, epochs=2, workers=workers)
    with pytest.raises(AudioError, match=r"^row 'row-4': .*NaN.*--on-error skip$"):
        train(random_lalm, rows, config)
    skipping = settings(tmp_path / "skip", batch_size=2, micro_batch_size=2, epochs=2, workers=workers, on_error="skip")
    train(random_lalm, rows, skipping)
    said = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("train: row 'row-4' skipped: ")
    assert no_process_is_left()


def test_the_loaders_load_and_this_process_does_not(
    make_rows: Rows, random_lalm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: list[str] = []
    original = Collator.__call__

    def collate(self: Any, passed: Any) -> Any:
        here.append(multiprocessing.current_process().name)
        return original(self, passed)

    monkeypatch.setattr(Collator, "__call__", collate)
    train(random_lalm, make_rows(4), settings(tmp_path / "beside", batch_size=2, micro_batch_size=2, workers=1))
    assert not here
    train(random_lalm, make_rows(4), settings(tmp_path / "here", batch_size=2, micro_batch_size=2, workers=0))
    assert len(here) == 2


def test_no_pass_walks_all_modules(make_rows: Rows, random_lalm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[str] = []
    inside = False
    original, named_modules = TokenMeanTrainer.training_step, torch.nn.Module.named_modules
    modules = len(list(add_lora(random_lalm.model, TrainConfig()).modules()))

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal inside
        inside = True
        try:
            return original(self, *args, **kwargs)
        finally:
            inside = False

    def walked(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = list(named_modules(self, *args, **kwargs))
        if inside and len(found) > modules // 2:
            walks.append(type(self).__name__)
        return iter(found)

    switched: list[bool] = []
    original_train = torch.nn.Module.train
    monkeypatch.setattr(
        torch.nn.Module,
        "train",
        lambda self, mode=True: (switched.append(mode) if inside else None, original_train(self, mode))[1],
    )
    monkeypatch.setattr(TokenMeanTrainer, "training_step", training_step)
    monkeypatch.setattr(torch.nn.Module, "named_modules", walked)
    train(random_lalm, make_rows(2), settings(tmp_path / "run", batch_size=2, micro_batch_size=1))
    assert not walks
    assert not switched


def test_layers_that_cannot_be_compiled_stay_as_they_are(
    make_rows: Rows, random_lalm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Any, **_: Any) -> None:
        def call(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no C++ compiler was found\nand more lines")

        self._compiled_call_impl = call

    rows = make_rows(4)
    train(random_lalm, rows, settings(tmp_path / "plain", compile="off"))
    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    train(random_lalm, rows, settings(tmp_path / "tried", compile="on"))
    assert difference(weights(tmp_path / "plain"), weights(tmp_path / "tried")) == 0
    said = [record.getMessage() for record in caplog.records if "not compiled" in record.getMessage()]
    assert said == [
        "train: the decoder layers are not compiled (RuntimeError: no C++ compiler was found); training continues, but slower"
    ]


def test_compiled_layers_learn_the_same(
    make_rows: Rows, random_lalm: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "simulsa")
    original = torch.nn.Module.compile
    # all of it but the writing of C++, which takes minutes
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: original(self, backend="aot_eager", **options))
    rows = make_rows(4)
    for compiles, checkpointing in (("off", "off"), ("on", "off"), ("on", "on")):
        options = {"compile": compiles, "gradient_checkpointing": checkpointing}
        train(random_lalm, rows, settings(tmp_path / f"{compiles}-{checkpointing}", **options))
    assert sum("layers are compiled" in record.getMessage() for record in caplog.records) == 2
    for name in ("on-off", "on-on"):
        assert difference(weights(tmp_path / "off-off"), weights(tmp_path / name)) < 3e-4


def test_as_many_shapes_are_compiled_as_the_grid_has(random_lalm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its limits Dynamo runs layers uncompiled without a word; 256 for all of one class are 8 shapes of 32 layers."""
    import torch._dynamo

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: None)
    monkeypatch.setattr(random_lalm.decoder, "round_up", random_lalm.decoder.round_up)  # restored behind the test
    with torch._dynamo.config.patch(recompile_limit=8, accumulated_recompile_limit=16):
        assert compile_layers(random_lalm, 1)
        layers = len(random_lalm.decoder.language_model.layers)
        assert torch._dynamo.config.recompile_limit == 64
        assert torch._dynamo.config.accumulated_recompile_limit == 64 * layers


@pytest.mark.parametrize(("device", "setting", "expected"), [
    ("cpu", "auto", False), ("cpu", "on", True), ("cuda", "auto", True), ("cuda", "off", False),
])  # fmt: skip
def test_layers_are_compiled_on_a_gpu(device: str, setting: Any, expected: bool) -> None:
    assert TrainConfig(compile=setting).compiles(device) is expected


def test_settings_of_speed_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="compile is 'yes'; it must be one of auto, on, off"):
        TrainConfig(compile="yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers is -1"):
        TrainConfig(workers=-1)
