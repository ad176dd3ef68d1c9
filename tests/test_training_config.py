"""The settings of training."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulsa.settings import from_mapping, to_mapping
from simulsa.training import processes
from simulsa.training.config import DECISIVE_SETTINGS, PAPER_SETTINGS, TrainConfig


def test_the_defaults_are_the_papers() -> None:
    config = TrainConfig()
    assert (config.lora_r, config.lora_alpha, config.batch_size, config.epochs) == (8, 32, 128, 2)
    assert (config.learning_rate, config.weight_decay) == (1e-4, 0.1)
    assert processes.accumulation_steps(config) == 16
    assert {config.origins()[name] for name in PAPER_SETTINGS} == {"paper"}


def test_settings_survive_yaml() -> None:
    config = TrainConfig(out=Path("run"), epochs=1.5, batch_size=6, micro_batch_size=3)
    assert from_mapping(TrainConfig, to_mapping(config), "here") == config


def test_the_folder_may_be_text() -> None:
    assert TrainConfig(out="run").out == Path("run")  # type: ignore[arg-type]


def test_origins_name_what_was_changed_and_from_what() -> None:
    origins = TrainConfig(learning_rate=1e-3, seed=3).origins()
    assert origins["learning_rate"] == "changed, paper: 0.0001"
    assert origins["seed"] == "changed, default: 0"
    assert origins["max_grad_norm"] == "default"
    assert set(DECISIVE_SETTINGS) < set(origins)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lora_r", 0),
        ("lora_r", 1.5),
        ("lora_alpha", 0),
        ("lora_dropout", 1.0),
        ("self_distillation", 1.1),
        ("learning_rate", 0),
        ("learning_rate", math.nan),
        ("learning_rate", "1e-4"),
        ("weight_decay", -0.1),
        ("batch_size", 0),
        ("micro_batch_size", True),
        ("epochs", 0),
        ("epochs", math.inf),
        ("warmup_share", -0.01),
        ("lr_scheduler", "cosin"),
        ("max_grad_norm", -1),
        ("seed", -1),
        ("save_every_steps", 0),
        ("logging_every_steps", 0),
        ("on_error", "ignore"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value!r}"):
        TrainConfig(**{name: value})  # type: ignore[arg-type]


def test_a_micro_batch_must_divide_the_batch() -> None:
    with pytest.raises(ValueError, match=r"micro_batch_size is 8 and batch_size 12; .* use 6"):
        TrainConfig(batch_size=12, micro_batch_size=8)


@given(rows=st.integers(1, 500), batch_size=st.integers(1, 40), epochs=st.integers(1, 3))
def test_optimiser_steps_are_the_batches_of_all_epochs(rows: int, batch_size: int, epochs: int) -> None:
    config = TrainConfig(batch_size=batch_size, micro_batch_size=1, epochs=epochs)
    assert config.optimiser_steps(rows) == epochs * len(range(0, rows, batch_size))
