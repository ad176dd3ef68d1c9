"""Systems trained together have the adapters that they would have had alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipes.experiments.corpus import Corpus
from recipes.experiments.lab import Lab
from recipes.experiments.systems import FINE_TUNING, SFT, SIMULSA, System, changed
from recipes.experiments.together import train_together
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.manifest import Utterance

Rows = Callable[..., list[Utterance]]

SETTINGS = replace(FINE_TUNING, batch_size=4, micro_batch_size=4, mixed_precision=False, logging_every_steps=1)
PLAIN, CUT = replace(SFT, training=SETTINGS), replace(SIMULSA, training=SETTINGS, share=0.4)
JOBS: list[tuple[System, int]] = [(PLAIN, 0), (CUT, 1), (changed(CUT, "half of it distilled", {"self_distillation": 0.5}), 0)]


def lab(lalm: HuggingFaceLALM, rows: list[Utterance], work: Path) -> Lab:
    return Lab(lalm, lalm, Corpus([], rows), work)


def test_the_adapters_are_those_of_train(make_rows: Rows, random_lalm: HuggingFaceLALM, tmp_path: Path) -> None:
    rows = make_rows(6, seconds=1.5)
    alone, together = (lab(random_lalm, rows, tmp_path / name) for name in ("alone", "together"))
    before = {name: weight.clone() for name, weight in random_lalm.model.named_parameters()}
    train_together(together, random_lalm, JOBS)
    after = dict(random_lalm.model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    lengths = set()
    for system, seed in JOBS:
        folders = [where.training(system, system.training or SETTINGS, seed)[1].out for where in (alone, together)]
        alone.tuned(system, seed, random_lalm)
        made = folders[1].stat().st_mtime_ns
        assert together.tuned(system, seed, random_lalm).has_adapter
        assert folders[1].stat().st_mtime_ns == made
        expected, found = (load_file(folder / "adapter_model.safetensors") for folder in folders)
        assert expected.keys() == found.keys()
        for name, weight in expected.items():
            assert (found[name] - weight).norm() <= 1e-4 * weight.norm()  # AdamW magnifies the rounding of tiny gradients
        logs = [(folder / "log.jsonl").read_text(encoding="utf-8").splitlines() for folder in folders]
        assert len(logs[0]) == len(logs[1])
        lengths.add(len(logs[0]))
    assert len(lengths) == 2  # a system that ended while others went on


def test_batches_must_be_of_one_size(make_rows: Rows, random_lalm: HuggingFaceLALM, tmp_path: Path) -> None:
    other = replace(PLAIN, training=replace(SETTINGS, batch_size=8))
    with pytest.raises(ValueError, match=r"the systems have batch_size \[4, 8\]; together they need one"):
        train_together(lab(random_lalm, make_rows(4), tmp_path), random_lalm, [(PLAIN, 0), (other, 0)])


def test_dropout_is_refused(make_rows: Rows, random_lalm: HuggingFaceLALM, tmp_path: Path) -> None:
    dropped = replace(PLAIN, training=replace(SETTINGS, lora_dropout=0.1))
    with pytest.raises(ValueError, match=r"a system has lora_dropout above 0; together there is none, so train it alone"):
        train_together(lab(random_lalm, make_rows(4), tmp_path), random_lalm, [(dropped, 0)])
