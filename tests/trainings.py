"""Small trainings of the random model, and what to compare of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from simulsa.languages import Direction
from simulsa.manifest import Utterance
from simulsa.training.config import TrainConfig
from simulsa.training.train import train
from simulsa.training.trainer import TokenMeanTrainer
from tests.lalms import continue_, score

Rows = Callable[..., list[Utterance]]
DIRECTION = Direction("en", "de")


def settings(out: Path, **changes: Any) -> TrainConfig:
    values = {"batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-2, "epochs": 1, "preflight": False, **changes}
    values = {"workers": 0, "compile": "off", **values}  # on a GPU they would be started and compiled for every test
    return TrainConfig(out=out, **values)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter_model.safetensors")


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def answers(lalm: Any, rows: list[Utterance]) -> list[list[int]]:
    return continue_(lalm, [row.load() for row in rows], [[] for _ in rows], [DIRECTION] * len(rows))


def negative_log_probs(lalm: Any, rows: list[Utterance]) -> np.ndarray:
    """Of every target token and EOS, float32 `[tokens]`."""
    targets = [[*lalm.encode(row.target_text), lalm.eos_id] for row in rows]
    scores = score(lalm, [row.load() for row in rows], targets, [DIRECTION] * len(rows))
    return -np.concatenate([score.log_probs for score in scores])


def killed_at(forward_pass: int, *arguments: Any) -> None:
    """Train, and be stopped before the given forward pass as by Ctrl-C."""
    with pytest.MonkeyPatch.context() as patch:
        stop_training_at(patch, forward_pass)
        with pytest.raises(KeyboardInterrupt):
            train(*arguments)


def stop_training_at(monkeypatch: pytest.MonkeyPatch, forward_pass: int) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    before_pass(monkeypatch, forward_pass, stop)


def before_pass(monkeypatch: pytest.MonkeyPatch, forward_pass: int, happen: Callable[[], None]) -> None:
    """Let something happen before the given forward pass of the trainings that follow, counted from 1."""
    calls = 0
    original = TokenMeanTrainer.training_step

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == forward_pass:
            happen()
        return original(self, *args, **kwargs)

    monkeypatch.setattr(TokenMeanTrainer, "training_step", training_step)
