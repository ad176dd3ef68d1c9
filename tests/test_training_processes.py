"""Training in two processes, as torchrun starts them (gloo, CPU): the same steps, the same adapter."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from simulsa.manifest import Utterance, write_manifest
from simulsa.training import processes
from simulsa.training.config import TrainConfig
from simulsa.training.train import TrainError

Rows = Callable[..., list[Utterance]]
SETTINGS = ["--batch-size", "4", "--micro-batch-size", "2", "--epochs", "2", "--learning-rate", "1e-2", "--no-preflight"]


def run(folder: Path, out: str, count: int, *more: str) -> subprocess.CompletedProcess[str]:
    """`simulsa train` in `count` processes."""
    launcher = ["torch.distributed.run", "--nproc-per-node", str(count), "--standalone", "-m"] if count > 1 else []
    command = [sys.executable, "-m", *launcher, "simulsa", "train", "--offline", "rows.jsonl", "--out", out, *SETTINGS, *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def folder(make_rows: Rows, random_model_folder: Path, tmp_path: Path) -> Path:
    """Seven offline rows and a cut one: two steps an epoch, the second of them full."""
    rows = make_rows(6, seconds=1.0)
    rows.append(dataclasses.replace(rows[0], id="cut", parent_id=rows[0].id, duration_s=0.6, target_text="Ein"))
    write_manifest(tmp_path / "rows.jsonl", rows)
    (tmp_path / "model").symlink_to(random_model_folder)
    return tmp_path


def test_two_processes_train_the_same_adapter_as_one(folder: Path) -> None:
    more = ("--model", "model", "--logging-every-steps", "1", "--save-every-steps", "2")
    for out, count in (("one", 1), ("two", 2)):
        done = run(folder, out, count, *more)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("the adapter is in") == 1
    assert len(losses(folder / "one")) == 4
    assert losses(folder / "two") == pytest.approx(losses(folder / "one"), abs=1e-4)
    one, two = (load_file(folder / out / "adapter_model.safetensors") for out in ("one", "two"))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4
    assert max(float(weight.abs().max()) for name, weight in two.items() if "lora_B" in name) > 1e-3
    # what two processes left behind after the first epoch goes on in one
    last = folder / "two" / "checkpoints" / "checkpoint-4"
    for path in (*last.iterdir(), folder / "two" / "simulsa.json", folder / "two" / "adapter_config.json"):
        path.unlink()
    assert run(folder, "two", 1, *more).returncode == 0
    again = load_file(folder / "two" / "adapter_model.safetensors")
    assert max(float((one[name] - again[name]).abs().max()) for name in one) < 1e-4
    assert losses(folder / "two") == pytest.approx(losses(folder / "one"), abs=1e-4)


def test_a_step_is_shared_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(batch_size=12, micro_batch_size=2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert processes.accumulation_steps(config) == 2
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(TrainError, match=r"there are 4 processes; micro_batch_size times the processes, 8, must divide"):
        processes.accumulation_steps(config)


def test_each_process_trains_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    processes.join(torch.device("cuda:1"))
    with pytest.raises(RuntimeError, match="is on cuda:0 and this process trains on GPU 1"):
        processes.join(torch.device("cuda:0"))
