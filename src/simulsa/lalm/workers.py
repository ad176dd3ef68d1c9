"""Workers for the batches of a long job: this process with its model, or several processes with a copy each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from simulsa.lalm.interface import LALM
from simulsa.languages import Direction
from simulsa.loading import Processes, deaths_explained, loaded, processes_for

Item = TypeVar("Item")
Result = TypeVar("Result")

Prepare = Callable[[Any, Direction], Any]
"""From audio and direction to what a model's `hear` takes instead of the audio; does not need the model."""


class Workers(Protocol):
    """Models that share a job. Work, items and results must be picklable; work must not depend on the worker."""

    def map(self, work: Callable[[LALM, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Call `work(lalm, item)` for every item with some worker's model; results come in any order."""
        ...


@dataclass(frozen=True)
class LocalWorker:
    """This process and its model."""

    lalm: LALM

    def map(self, work: Callable[[LALM, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Process one item after the other."""
        return (work(self.lalm, item) for item in items)


@contextmanager
def ahead(
    workers: Workers, load: Callable[[Any, Prepare], Any], items: Sequence[Any], processes: Processes
) -> Iterator[Iterable[Any]]:
    """What the `workers` map over: if this process has the model, each item as `load` returns it from a loader process.

    `load` is given the model's `Prepare`. Without loader processes, and for other workers, the items are passed through and
    loaded by whichever worker processes them. All loader processes end with the context; if one dies within it, `LoadingError`
    is raised.
    """
    count = processes_for(processes, getattr(workers.lalm, "device", None)) if isinstance(workers, LocalWorker) else 0
    if not isinstance(workers, LocalWorker) or not count:
        yield items
        return
    with deaths_explained(), closing(loaded(_Loading(load, preparing(workers.lalm)), items, count)) as batches:
        yield batches


def preparing(lalm: LALM) -> Prepare:
    """How audio is prepared for a model: by its frontend, or not at all where it has none."""
    frontend = getattr(lalm, "frontend", None)
    return unprepared if frontend is None else frontend.keyed


def announce(lalm: LALM, directions: Iterable[Direction]) -> None:
    """Let the model's frontend give its warnings about a job's directions here, not in every loader process."""
    frontend = getattr(lalm, "frontend", None)
    for direction in dict.fromkeys(directions):
        if frontend is not None:
            frontend.announce(direction)


def warm_up(lalm: LALM, direction: Direction, rows: int, samples: int) -> None:
    """Let a model on a GPU of this process do its one-time work before the first chunk (see `HuggingFaceLALM.warm_up`)."""
    prepare = getattr(lalm, "warm_up", None)
    if prepare is not None:
        prepare(direction, rows, samples)


@dataclass(frozen=True)
class _Loading:
    load: Callable[[Any, Prepare], Any]
    prepare: Prepare

    def __call__(self, item: Any) -> Any:
        return self.load(item, self.prepare)


def unprepared(audio: Any, _: Direction) -> Any:
    """The audio itself, which every model's `hear` takes."""
    return audio
