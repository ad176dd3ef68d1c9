"""Gradient checkpointing by the memory at hand: the estimate, the choice, and what is said when it was wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.activations import SHAPES, saved_bytes
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.manifest import Utterance
from simulsa.settings import SettingsError, from_mapping
from simulsa.training import memory
from simulsa.training.config import TrainConfig
from simulsa.training.examples import TrainError, make_examples
from simulsa.training.memory import PassShape, activation_bytes, checkpoints, largest_pass, must_checkpoint
from simulsa.training.train import train
from tests.trainings import before_pass, difference, settings, weights

Rows = Callable[..., list[Utterance]]
LARGE = PassShape(rows=32, tokens=320, layers=32, width=4096, feed_forward=11_008, labels=40, vocabulary=156_032)


def test_the_constants_are_what_autograd_keeps() -> None:
    shape = SHAPES[0]
    more = saved_bytes(replace(shape, layers=2)) - saved_bytes(replace(shape, layers=1))
    assert activation_bytes(replace(shape, layers=1)) == pytest.approx(more, rel=0.05)


def test_the_estimate_is_what_was_measured_on_a_gpu() -> None:
    """Passes of 16 and of 32 rows of 3 s took 32 and 47 GB: Qwen2-Audio-7B's shape, bfloat16 autocast, about 140 tokens a row."""
    sixteen = replace(LARGE, rows=16, tokens=136)
    assert activation_bytes(sixteen) / 1e9 == pytest.approx(47 - 32, rel=0.1)


@pytest.mark.parametrize(("free", "shape", "compiled", "expected"), [
    (62, replace(LARGE, rows=16), False, False),
    (62, LARGE, False, True),
    (62, LARGE, True, False),
    (62, replace(LARGE, tokens=800), True, True),
    (6, replace(LARGE, rows=4), False, True),
    (0, replace(LARGE, rows=1), True, True),
])  # fmt: skip
def test_what_does_not_fit_is_recomputed(free: int, shape: PassShape, compiled: bool, expected: bool) -> None:
    assert must_checkpoint(free * 10**9, shape, compiled) is expected


def test_the_largest_pass_is_the_longest_rows(make_rows: Rows, random_lalm: HuggingFaceLALM) -> None:
    rows = make_rows(4)  # each longer than the one before
    examples, _ = make_examples(rows, random_lalm, "fail")
    shape = largest_pass(random_lalm, examples, TrainConfig(micro_batch_size=4, batch_size=8))
    (heard,) = random_lalm.hear([rows[-1].load()], [examples[-1].row.direction])
    labels = 1 + max(len(example.target) for example in examples)
    text = random_lalm.decoder.language_model.config
    assert shape == PassShape(
        *(4, len(heard) + labels, text.num_hidden_layers, text.hidden_size, text.intermediate_size),
        *(labels, random_lalm.vocabulary_size),
    )


def test_a_gpu_decides_by_its_free_memory_and_a_setting_wins(
    make_rows: Rows, random_lalm: HuggingFaceLALM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "simulsa")
    examples, _ = make_examples(make_rows(2), random_lalm, "fail")
    free = 1 << 40
    monkeypatch.setattr(memory, "free_bytes", lambda _: free)
    assert not checkpoints(random_lalm, examples, TrainConfig())  # on a CPU
    assert not caplog.records
    monkeypatch.setattr(HuggingFaceLALM, "device", property(lambda _: torch.device("cuda")))
    assert not checkpoints(random_lalm, examples, TrainConfig())
    free = (1024 << 20) + 1000  # the encoder cache fills it
    assert checkpoints(random_lalm, examples, TrainConfig())
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[1].strip() for line in said] == [f"gradient checkpointing is {state}" for state in ("off", "on")]
    assert "8 rows of " in said[1]
    assert "0.0 GB are free" in said[1]
    assert not checkpoints(random_lalm, examples, TrainConfig(gradient_checkpointing="off"))
    free = 1 << 40
    assert checkpoints(random_lalm, examples, TrainConfig(gradient_checkpointing="on"))


@pytest.mark.parametrize(("setting", "micro", "fix"), [
    ("off", 4, "--gradient-checkpointing on or --micro-batch-size 2 or less"),
    ("auto", 1, "--gradient-checkpointing on"),
    ("on", 4, "--micro-batch-size 2 or less"),
    ("on", 1, "--four-bit"),
])  # fmt: skip
def test_a_pass_that_did_not_fit_names_the_settings(setting: Any, micro: int, fix: str) -> None:
    config = TrainConfig(batch_size=4, micro_batch_size=micro, gradient_checkpointing=setting)
    assert memory.advice(config, setting == "on") == f"use {fix} with the same command, which resumes"


def test_a_training_that_ran_out_of_memory_resumes_with_the_setting_that_it_names(
    make_rows: Rows, random_lalm: HuggingFaceLALM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(4)
    options = {"batch_size": 2, "micro_batch_size": 2, "epochs": 2, "save_every_steps": 1}
    train(random_lalm, rows, settings(tmp_path / "whole", **options))

    def run_out_of_memory() -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...")

    with monkeypatch.context() as patch:
        before_pass(patch, 3, run_out_of_memory)
        with pytest.raises(TrainError) as raised:
            train(random_lalm, rows, settings(tmp_path / "stopped", **options))
    assert str(raised.value) == (
        "a pass did not fit into the GPU's memory (CUDA out of memory): use --gradient-checkpointing on or --micro-batch-size 1 "
        "or less with the same command, which resumes"
    )
    train(random_lalm, rows, settings(tmp_path / "stopped", **options, gradient_checkpointing="on"))
    assert difference(weights(tmp_path / "whole"), weights(tmp_path / "stopped")) < 1e-6


@pytest.mark.parametrize(("value", "expected"), [(True, "on"), (False, "off"), ("auto", "auto"), ("on", "on")])
def test_yaml_reads_on_and_off_as_truth_values(value: object, expected: str) -> None:
    config = from_mapping(TrainConfig, {"gradient-checkpointing": value, "compile": value}, "here")
    assert (config.gradient_checkpointing, config.compile) == (expected, expected)


def test_other_words_stay_what_they_are() -> None:
    with pytest.raises(SettingsError, match="gradient_checkpointing is 'yes'; it must be one of auto, on, off"):
        from_mapping(TrainConfig, {"gradient_checkpointing": "yes"}, "here")
    with pytest.raises(SettingsError, match="on_error is True; it must be one of fail, skip"):
        from_mapping(TrainConfig, {"on_error": True}, "here")
