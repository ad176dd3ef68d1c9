"""Workers for the batches of a long job: this process with its model, or several processes with a copy each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from simulsa.lalm.interface import LALM

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(Protocol):
    """Models that share a job. Work, items and results must be picklable; work must not depend on the worker."""

    def map(self, work: Callable[[LALM, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`work(lalm, item)` of every item with some worker's model; the results come in any order."""
        ...


@dataclass(frozen=True)
class LocalWorker:
    """This process and its model."""

    lalm: LALM

    def map(self, work: Callable[[LALM, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """One item after the other."""
        return (work(self.lalm, item) for item in items)
