"""Build and measure systems in several processes, which share only the lab's folder."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from recipes.experiments.corpus import TRAIN, VAL, Corpus, Selection, spoken_selection, unheard_rows
from recipes.experiments.lab import Lab
from recipes.experiments.systems import System
from simulsa.corpora.multi30k import read_captions
from simulsa.lalm.load import Dtype, load
from simulsa.lalm.precision import has_bfloat16
from simulsa.manifest import Utterance


@dataclass(frozen=True)
class LabConfig:
    """Where the captions are, where all output goes, and how much to make."""

    data: Path = Path("../shared/data/multi30k")
    """folder with Multi30k's captions"""
    assets: Path = Path(".assets")
    """folder that recipes/base/fetch.sh filled"""
    work: Path = Path(".experiments")
    """folder of speech, adapters and scores; an interrupted run goes on there"""
    model: str = ".base/half"
    """the base; `recipes.base.build --captions 0 14500` makes the one that knows half of train's captions"""
    dtype: Dtype = field(default_factory=lambda: "bfloat16" if has_bfloat16() else "float32")
    """number format of the measurements, by default bfloat16 where the processor has it; rows are cut in float32"""
    known_captions: int = 14_500
    """captions of train that the base was trained on; those behind them are new to it or, if there are none, those of val"""
    familiar_captions: int = 0
    """how many of the captions that the base knows fine-tuning hears too"""
    readings: int = 2
    """how many times the new captions are spoken, by other voices each time: fine-tuning hears them all and cuts some"""
    test_limit: int | None = None
    """only the first sentences of each test set"""
    jobs: int = 2
    """processes, each with its share of the cores; 1 stays in this one"""

    def open(self) -> Lab:
        """The lab, with its speech ready."""
        base = load(self.model, dtype="float32")
        measurable = base if self.dtype == "float32" else load(self.model, dtype=self.dtype)
        familiar = Selection(TRAIN, 0, self.familiar_captions)
        spoken = [spoken_selection(self.data, self.assets, self.work, part, self.jobs) for part in (familiar, self.fresh)]
        return Lab(base, measurable, Corpus(*spoken), self.work)

    @property
    def fresh(self) -> Selection:
        """The captions that are new to the base."""
        if self.known_captions < len(read_captions(self.data, TRAIN, "en")):
            return Selection(TRAIN, self.known_captions, None, self.readings)
        return Selection(VAL, 0, None, self.readings)

    def test(self, split: str) -> list[Utterance]:
        """A test set's rows."""
        return unheard_rows(self.data, self.assets, self.work, split, self.test_limit)


@dataclass(frozen=True)
class Job:
    """A system with a seed, to be measured on test sets with chunk sizes and policies."""

    system: System
    seed: int
    splits: tuple[str, ...]
    chunks_ms: tuple[float, ...]
    policies: tuple[str, ...]


def run_jobs(config: LabConfig, jobs: Sequence[Job]) -> None:
    """Do all jobs and leave the results in the lab's folder; results that already exist take no time."""
    config.open()  # speech is made once, before the processes need it
    for split in sorted({split for job in jobs for split in job.splits}):
        config.test(split)
    if config.jobs == 1:
        _start(config)
        for job in jobs:
            print(f"done: {_do(job).system.name}, seed {job.seed}", flush=True)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.jobs, context, _start_process, (config,)) as pool:
        for job in pool.map(_do, jobs):
            print(f"done: {job.system.name}, seed {job.seed}", flush=True)


_opened: tuple[LabConfig, Lab] | None = None


def _start(config: LabConfig) -> None:
    """Open the lab for this process."""
    global _opened
    logging.getLogger("simulsa").setLevel(logging.WARNING)
    _opened = config, config.open()


def _start_process(config: LabConfig) -> None:
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.jobs))
    _start(config)


def _end_with_parent() -> None:
    """End this process with its parent: a killed command cannot end its processes, which might run on for hours."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _do(job: Job) -> Job:
    if _opened is None:
        raise RuntimeError("no lab was opened; jobs are done by run_jobs")
    config, lab = _opened
    for split in job.splits:
        lab.measured(job.system, job.seed, config.test(split), job.chunks_ms, job.policies)
    return job
