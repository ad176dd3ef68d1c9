"""Work that needs no model, done in separate processes: decoding, resampling, feature extraction.

PyTorch's `DataLoader` starts, feeds and ends the processes. Their results come back as bytes through a pipe, not through
shared memory, which is often scarce in containers; only the semaphores of the queues, 32 bytes each, are in /dev/shm. An error
comes back as the exception that was raised.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import operator
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from simulsa.errors import first_line

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

Item = TypeVar("Item")
Result = TypeVar("Result")

Processes = int | Literal["auto"]
BatchSize = int | Literal["auto"]
OnError = Literal["fail", "skip"]  # what to do about a row whose audio is broken
CPU_ROWS = 16  # per batch
MOST_PROCESSES = 8  # at 20 ms per row in each, enough for 400 rows per second
AHEAD = 2  # batches that each process prepares in advance


class LoadingError(RuntimeError):
    """Processes that load data died or could not be started; the message says what to do."""


@contextlib.contextmanager
def deaths_explained() -> Iterator[None]:
    """Raise `LoadingError` when PyTorch reports that a loader process died.

    PyTorch learns of the death from a signal, so it raises in whatever the main thread is doing: more often in a model pass
    than while waiting for a batch. Code that consumes batches belongs in this context.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, LoadingError) or "DataLoader worker" not in str(error):
            raise
        traceback.clear_frames(error.__traceback__)  # its frames hold the other processes
        raise LoadingError(
            f"a process that loads data ended unexpectedly ({first_line(error)}); perhaps for lack of memory: "
            "use fewer --workers, or --workers 0 to load in this process"
        ) from None


def check_processes(value: object) -> None:
    """Raise `ValueError` if `value` is not a valid number of processes."""
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"workers is {value!r}; it must be 'auto', 0 or a larger whole number")


def processes_for(setting: Processes, device: torch.device | None, models: int = 1) -> int:
    """How many processes load data alongside a model on `device`, if `models` processes share the machine.

    `auto` means none on a CPU, where the model itself uses all cores, and on a GPU one for each remaining core, at most 8.
    """
    if setting != "auto":
        return setting
    if device is None or device.type == "cpu":
        return 0
    return max(0, min(MOST_PROCESSES, _cores() // models - 1))


def rows_for(setting: BatchSize, device: torch.device | None, on_gpu: int) -> int:
    """The maximum number of rows per batch for a model on `device`: `auto` is 16 on a CPU and `on_gpu` elsewhere."""
    if setting != "auto":
        return setting
    return CPU_ROWS if device is None or device.type == "cpu" else on_gpu


def loaded(make: Callable[[Item], Result], items: Sequence[Item], processes: int = 0) -> Generator[Result, None, None]:
    """`make(item)` for every item, in order: by `processes` processes that work ahead, or with 0 in this process, on demand.

    Raises what `make` raises, and `LoadingError` when a process dies or cannot be started.
    """
    if not processes or len(items) < 2:
        yield from map(make, items)
        return
    loader = data_loader([partial(make, item) for item in items], None, operator.call, min(processes, len(items)))
    batches = unpacked(iter(loader))
    try:
        yield from batches
    finally:
        batches.close()  # ends the processes now, not when an error's traceback is forgotten


def data_loader(dataset: Any, batch_size: int | None, collate: Callable[[Any], Any], processes: int) -> DataLoader[Any]:
    """A `DataLoader` in the order of `dataset`; its batches are packed for `unpacked`, whichever process makes them.

    Raises `LoadingError` if processes cannot be started.
    """
    import torch
    from torch.utils.data import DataLoader

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # otherwise tokenizers complains about forked processes
    options: dict[str, Any] = {"prefetch_factor": AHEAD} if processes else {}
    if processes and sys.platform == "linux":  # starts immediately, with everything this process has in memory
        options["multiprocessing_context"] = context = multiprocessing.get_context("fork")
        _rehearse(context, processes)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=False,
        collate_fn=partial(_packed, collate),
        num_workers=processes,
        generator=torch.Generator(),  # not the global one, whose state determines dropout
        **options,
    )


def unpacked(packed: Iterator[Any]) -> Generator[Any, None, None]:
    """The results of a `data_loader`; raises what was raised there, and `LoadingError` when a process died."""
    try:
        while True:
            try:
                with deaths_explained():
                    batch = next(packed)
            except StopIteration:
                return
            result = pickle.loads(batch)
            if isinstance(result, Failed):
                raise result.error
            yield result
    finally:
        del packed


@dataclass(frozen=True)
class Failed:
    """An exception as a result, on its way from another process to where it is raised."""

    error: Exception


def _packed(collate: Callable[[Any], Any], batch: Any) -> bytes:
    """What `collate` makes of a batch, or the error that it raised, as bytes."""
    try:
        result = collate(batch)
    except Exception as error:
        result = Failed(error)
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(result)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays, which is much faster."""

    def reducer_override(self, value: Any) -> Any:
        import torch

        if type(value) is torch.Tensor and value.dtype != torch.bfloat16:
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rehearse(context: Any, processes: int) -> None:
    """Create, as a trial, what a `DataLoader` uses to talk to its processes. Raises `LoadingError` if that fails."""
    try:
        _ = [context.Queue() for _ in range(processes + 1)], context.Event()
    except OSError as error:  # each has semaphores
        raise LoadingError(
            f"processes that load data cannot be started: /dev/shm has no room for their semaphores ({error.strerror or error}); "
            "enlarge it, or use --workers 0 to load in this process"
        ) from None
