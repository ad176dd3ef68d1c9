"""Workers for the batches of a long job: this process with its model, or several processes with a copy each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from simulsa.lalm.interface import LALM
from simulsa.languages import Direction
from simulsa.loading import Processes, deaths_explained, loaded, processes_for

if TYPE_CHECKING:
    from simulsa.lalm.frontend import Frontend

Item = TypeVar("Item", contravariant=True)
Result = TypeVar("Result", covariant=True)


class Work(Protocol[Item, Result]):
    """What is done with each item of a job: load it, which needs no model, then run the model on it.

    Work, items, what is loaded, and results must be picklable; they must not depend on the worker.
    """

    def load(self, item: Item, frontend: Frontend | None, ahead: bool) -> Any:
        """What `run` needs of an item. `frontend` is the model's, which may prepare audio; `ahead` says that a loader process
        loads while the model is busy, so that preparing costs no time."""
        ...

    def run(self, lalm: LALM, loaded: Any) -> Result:
        """The result for a loaded item."""
        ...


class Workers(Protocol):
    """Models that share a job."""

    def map(
        self, work: Work[Item, Result], items: Sequence[Item], processes: Processes = 0
    ) -> AbstractContextManager[Iterator[Result]]:
        """The results of all items, in any order, within a context.

        `processes` is how many loader processes work ahead of a model in this process; workers elsewhere load for themselves.
        All processes end with the context. Raises what the work raises, and `LoadingError` if a loader process dies.
        """
        ...


@dataclass(frozen=True)
class LocalWorker:
    """This process and its model."""

    lalm: LALM

    @contextmanager
    def map(self, work: Work[Item, Result], items: Sequence[Item], processes: Processes = 0) -> Iterator[Iterator[Result]]:
        """The results in the order of the items (see `Workers.map`)."""
        count = processes_for(processes, self.lalm.device)
        load = partial(work.load, frontend=self.lalm.frontend, ahead=count > 0)
        with deaths_explained(), closing(loaded(load, items, count)) as inputs:
            yield (work.run(self.lalm, each) for each in inputs)


def announce(lalm: LALM, directions: Iterable[Direction]) -> None:
    """Let the model's frontend give its warnings about a job's directions here, not in every loader process."""
    if lalm.frontend is not None:
        for direction in dict.fromkeys(directions):
            lalm.frontend.announce(direction)
