"""A base in 4 bits: what is rounded and what is not, training on it, its adapter on either base."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simulsa.lalm.interface import LALMError
from simulsa.lalm.load import load
from simulsa.languages import Direction
from simulsa.manifest import Utterance
from simulsa.training.config import TrainConfig
from simulsa.training.train import train
from tests.lalms import score

Rows = Callable[..., list[Utterance]]


@pytest.fixture(scope="module")
def rounded(random_model_folder: Path) -> Any:
    pytest.importorskip("bitsandbytes", reason="needs simulsa[quantization]")
    return load(str(random_model_folder), device="cpu", four_bit=True)


def log_probs(lalm: Any, rows: list[Utterance]) -> np.ndarray:
    targets = [lalm.encode(row.target_text) for row in rows]
    return np.concatenate(
        [s.log_probs for s in score(lalm, [row.load() for row in rows], targets, [Direction("en", "de")] * len(rows))]
    )


def test_only_the_decoder_layers_are_rounded(rounded: Any, random_lalm: Any, make_rows: Rows) -> None:
    kinds = {name: type(module).__name__ for name, module in rounded.model.named_modules()}
    linear = {name for name, kind in kinds.items() if kind == "Linear4bit"}
    assert linear
    assert all(name.startswith("model.language_model.layers.") for name in linear)
    assert kinds["model.audio_tower.layers.0.fc1"] == kinds["lm_head"] == "Linear"
    assert rounded.signature == random_lalm.signature + "+4bit"
    assert not rounded.exact
    rows = make_rows(3)
    difference = np.abs(log_probs(rounded, rows) - log_probs(random_lalm, rows))
    assert 0 < difference.max() < 1


def test_an_adapter_is_trained_on_it_and_goes_with_both(
    rounded: Any, random_model_folder: Path, make_rows: Rows, tmp_path: Path
) -> None:
    rows = make_rows(8)
    before = log_probs(rounded, rows).mean()
    settings = TrainConfig(tmp_path / "run", batch_size=4, micro_batch_size=4, learning_rate=1e-2, epochs=6, preflight=False)
    tuned = train(rounded, rows, settings)
    assert log_probs(tuned, rows).mean() > before + 0.3
    assert log_probs(rounded, rows).mean() == pytest.approx(before, abs=1e-2)
    plain, four = (load(str(tmp_path / "run"), device="cpu", four_bit=four_bit) for four_bit in (False, True))
    assert np.allclose(log_probs(four, rows), log_probs(tuned, rows), atol=1e-2)
    assert np.abs(log_probs(plain, rows) - log_probs(four, rows)).max() < 1
    assert plain.exact
    assert next(plain.model.parameters()).dtype == torch.float32


def test_without_the_package_the_extra_is_named(random_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    with pytest.raises(LALMError, match=r"pip install 'simulsa\[quantization\]'"):
        load(str(random_model_folder), device="cpu", four_bit=True)
