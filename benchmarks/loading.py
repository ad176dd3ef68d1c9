"""Loader processes alongside the model versus none: rates of `augment` and `train`, and the model thread's wait for rows.

    python -m benchmarks.loading [--processes 0 1 2] [--rows 96] [--repeats 3] [--device auto] [--random-layers 8]

All numbers of processes take turns within a run, on the same rows. A rate is measured from the first request for rows to the
last result. The wait is the share of that time in which the model's thread prepares rows itself or waits for those that
processes prepare. Processor seconds are summed over all processes: on a busy machine they show the cost of loading, unlike
rates.
"""

from __future__ import annotations

import logging
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import tyro

from benchmarks.paper_model import Shape, build
from benchmarks.setup import machine, rows_of
from simulsa.augmentation.augment import augment
from simulsa.augmentation.config import AugmentConfig
from simulsa.augmentation.scoring import Speculation
from simulsa.lalm import workers
from simulsa.lalm.load import load
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.loading import loaded
from simulsa.manifest import Utterance
from simulsa.training.config import TrainConfig
from simulsa.training.train import train_adapter
from simulsa.training.trainer import TokenMeanTrainer


@dataclass(frozen=True)
class Options:
    """Which model, on which rows, with how many processes."""

    model: str = "tiny-en-de"
    random_layers: int = 0
    """layers, 1,024 wide, of a model of Qwen2-Audio's shape with random weights in place of `model`: one that computes more"""
    manifest: Path | None = None
    """offline rows; by default the demo's bundled test set"""
    rows: int = 96
    batch_size: int = 8
    """rows a pass, of both commands; an optimiser step is two passes"""
    processes: tuple[int, ...] = (0, 1, 2)
    device: str = "auto"
    """`cpu`, `cuda`, ...; `auto` takes a GPU when there is one"""
    repeats: int = 3
    """rounds, in each of which every number of processes has its turn; medians count"""


@dataclass
class Run:
    """When a run began and ended, and how long it spent on rows."""

    began: float = 0.0
    ended: float = 0.0
    waited_s: float = 0.0
    processor_s: float = 0.0
    inside: bool = field(default=False, repr=False)

    @property
    def seconds(self) -> float:
        """The time from the first request for rows to the last result."""
        return self.ended - self.began

    def timed(self, fetch: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `fetch` so that its time counts as waiting."""

        def fetched(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return fetch(*args, **kwargs)
            self.inside, started = True, time.perf_counter()
            self.began = self.began or started
            try:
                return fetch(*args, **kwargs)
            finally:
                self.inside = False
                self.waited_s += time.perf_counter() - started

        return fetched

    def iterated(self, load: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """Wrap `load` so that the wait for each of its items counts."""

        def iterated(*args: Any) -> Iterator[Any]:
            items = load(*args)
            try:
                done = object()
                while (item := self.timed(next)(items, done)) is not done:
                    yield item
            finally:
                items.close()  # type: ignore[attr-defined]

        return iterated

    def ending(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `work` so that each return from it updates the end of the run."""

        def done(*args: Any, **kwargs: Any) -> Any:
            result = work(*args, **kwargs)
            self.ended = time.perf_counter()
            return result

        return done


def model_of(options: Options) -> HuggingFaceLALM:
    """The model that the rows are for."""
    if not options.random_layers:
        return load(options.model, options.device)
    shape = Shape(options.random_layers, tower_layers=options.random_layers, width=1024, vocabulary=4096)
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return build(shape, torch.device(auto if options.device == "auto" else options.device), torch.float32)


def augmented(lalm: HuggingFaceLALM, rows: Sequence[Utterance], processes: int, options: Options) -> Run:
    """Measure one augmentation."""
    config = AugmentConfig(num=len(rows), batch_size=options.batch_size, preflight=False, workers=processes)
    with (
        _accounted() as run,
        patch.object(Speculation, "load", run.timed(Speculation.load)),
        patch.object(workers, "loaded", run.iterated(loaded)),
        patch.object(Speculation, "run", run.ending(Speculation.run)),
    ):
        augment(rows, lalm, config)
    return run


def trained(lalm: HuggingFaceLALM, rows: Sequence[Utterance], processes: int, options: Options) -> Run:
    """Measure one epoch of training."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            out=Path(folder) / "run",
            epochs=1,
            batch_size=2 * options.batch_size,
            micro_batch_size=options.batch_size,
            preflight=False,
            workers=processes,
        )
        with (
            _accounted() as run,
            patch.object(TokenMeanTrainer, "get_batch_samples", run.timed(TokenMeanTrainer.get_batch_samples)),
            patch.object(TokenMeanTrainer, "training_step", run.ending(TokenMeanTrainer.training_step)),
        ):
            train_adapter(lalm, rows, config)
    return run


@contextmanager
def _accounted() -> Iterator[Run]:
    """A run, with the processor time of this process and of child processes that ended during the run."""
    run, before = Run(), _processor_s()
    yield run
    run.processor_s = _processor_s() - before


def _processor_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(options: Options) -> None:
    """Print rates, waits and processor time by the number of processes, each compared with the first number."""
    print(machine())
    logging.getLogger("transformers").setLevel(logging.ERROR)
    lalm, rows = model_of(options), rows_of(options.manifest, options.rows)
    steps = TrainConfig(batch_size=2 * options.batch_size, micro_batch_size=options.batch_size, epochs=1).optimiser_steps
    for name, work, unit, count in (
        ("augment", augmented, "rows/s", len(rows)),
        ("train", trained, "steps/s", steps(len(rows))),
    ):
        work(lalm, rows[: 2 * options.batch_size], 0, options)  # warm-up
        runs: dict[int, list[Run]] = {number: [] for number in options.processes}
        for _ in range(options.repeats):
            for number, own in runs.items():
                own.append(work(lalm, rows, number, options))
        rates = {number: count / statistics.median(run.seconds for run in own) for number, own in runs.items()}
        for number, own in runs.items():
            wait = statistics.median(run.waited_s / run.seconds for run in own)
            spent = statistics.median(run.processor_s for run in own)
            ratio = rates[number] / rates[options.processes[0]]
            print(
                f"{name:<8} --workers {number}: {rates[number]:7.2f} {unit}, {ratio:4.2f} times; {wait:6.1%} of the model's "
                f"thread is waiting for rows; {spent:6.2f} processor seconds"
            )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
