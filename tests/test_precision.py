"""bfloat16: chosen where the processor has it, and warned of where it has not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.experiments.systems import BEST, FINE_TUNING
from recipes.experiments.workers import LabConfig
from simulsa.lalm import precision
from simulsa.lalm.device import chosen_device
from simulsa.lalm.load import ModelConfig, load
from simulsa.manifest import Utterance
from simulsa.training.train import TrainConfig, train_adapter

Rows = Callable[..., list[Utterance]]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device="auto": False)
    monkeypatch.setattr(precision, "slowdown", lambda device="cpu": 25.0)


def test_the_processor_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for has in ({"bf16": True}, {"amx": True}, {}):
        precision.has_bfloat16.cache_clear()
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has.get("bf16", False))
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=has: has.get("amx", False))
        assert precision.has_bfloat16("cpu") is bool(has)
        assert precision.has_bfloat16() is bool(has)
    precision.has_bfloat16.cache_clear()


@pytest.mark.parametrize("gpus", [False, True])
def test_one_place_says_which_device_auto_is(gpus: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpus)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert chosen_device("auto") == ("cuda:1" if gpus else "cpu")
    assert chosen_device("cuda:3") == "cuda:3"
    monkeypatch.setattr("simulsa.lalm.device.chosen_device", lambda device: "cuda:7")
    precision.has_bfloat16.cache_clear()
    assert precision.has_bfloat16() is gpus
    precision.has_bfloat16.cache_clear()
    assert ModelConfig().on_gpu


def test_the_ratio_is_measured() -> None:
    assert precision.slowdown("cpu") > 0


def test_whoever_asks_for_it_is_told_the_ratio(
    without: None, random_lalm: Any, make_rows: Rows, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrainConfig(tmp_path / "run", batch_size=2, micro_batch_size=2, epochs=1, preflight=False)
    rows = make_rows(2, seconds=0.5)
    train_adapter(random_lalm, rows, config)
    load(random_lalm.name, device="cpu")
    assert caplog.records == []
    train_adapter(random_lalm, rows, TrainConfig(**{**vars(config), "out": tmp_path / "mixed", "mixed_precision": True}))
    load(random_lalm.name, device="cpu", dtype="bfloat16")
    assert [record.getMessage() for record in caplog.records] == [
        f"{asked}: this processor has no bfloat16 of its own; a matrix product takes 25.0 times as long as in float32"
        for asked in ("mixed_precision", "dtype bfloat16")
    ]


def test_recipes_and_experiments_choose_it_where_it_is() -> None:
    has = precision.has_bfloat16()
    assert FINE_TUNING.mixed_precision is has
    assert BEST.training is not None
    assert BEST.training.mixed_precision is has
    assert LabConfig().dtype == ("bfloat16" if has else "float32")
