"""Loader processes: the same results in the same order, errors as they are, and nothing left behind."""

from __future__ import annotations

import errno
import multiprocessing
import multiprocessing.synchronize
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from simulsa.audio import AudioError
from simulsa.lalm.workers import LocalWorker
from simulsa.loading import LoadingError, check_processes, loaded, processes_for
from simulsa.testing import FakeLALM


def squared(item: int) -> dict[str, Any]:
    return {"number": item * item, "tensor": torch.full((2, 3), float(item)), "mask": torch.tensor([item > 3])}


def fails_at_three(item: int) -> int:
    if item == 3:
        raise AudioError("row 'three': no such audio")
    return item


def dies_at_three(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def much(item: int) -> dict[str, torch.Tensor]:
    """16 MiB."""
    return {"single": torch.full((2 << 20,), float(item)), "half": torch.full((4 << 20,), float(item), dtype=torch.bfloat16)}


def kill_a_loader(number: int = signal.SIGKILL) -> None:
    """End a loader process as the kernel does, and wait for the signal that tells of it."""
    os.kill(multiprocessing.active_children()[0].pid or 0, number)
    for _ in range(500):
        time.sleep(0.01)


def no_process_is_left() -> bool:
    for _ in range(100):
        if not multiprocessing.active_children():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("processes", [0, 1, 4])
def test_results_and_their_order_do_not_depend_on_the_processes(processes: int) -> None:
    results = list(loaded(squared, range(9), processes))
    assert [result["number"] for result in results] == [item * item for item in range(9)]
    for item, result in enumerate(results):
        assert torch.equal(result["tensor"], torch.full((2, 3), float(item)))
        assert result["mask"].tolist() == [item > 3]
        result["tensor"] += 1  # it may be written to
    assert no_process_is_left()


@pytest.mark.parametrize("processes", [0, 2])
def test_an_error_comes_back_as_itself_when_its_turn_comes(processes: int) -> None:
    results = loaded(fails_at_three, range(6), processes)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(AudioError) as raised:
        next(results)
    assert str(raised.value) == "row 'three': no such audio"
    assert no_process_is_left()


def test_a_process_that_dies_is_one_line_that_says_what_to_do() -> None:
    with pytest.raises(LoadingError, match=r"ended unexpectedly .*--workers 0") as raised:
        list(loaded(dies_at_three, range(6), 2))
    assert "\n" not in str(raised.value)
    assert no_process_is_left()


class Passed:
    """Work that has each item as its result."""

    def load(self, item: int, frontend: Any, ahead: bool) -> int:
        return item

    def run(self, lalm: Any, loaded: int) -> int:
        return loaded


def beside_loaders(work: Callable[[], object]) -> None:
    """Do some work while two processes load."""
    with LocalWorker(FakeLALM(lambda _: "")).map(Passed(), range(50), 2) as results:
        next(results)
        work()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_a_process_that_dies_while_the_model_works_is_the_same_line(number: int) -> None:
    """PyTorch raises from the signal's handler, wherever the main thread is."""
    with pytest.raises(LoadingError, match=r"ended unexpectedly .*--workers 0") as raised:
        beside_loaders(lambda: kill_a_loader(number))
    assert "\n" not in str(raised.value)
    assert no_process_is_left()


def test_an_error_of_the_model_beside_loaders_stays_what_it_is() -> None:
    def fails() -> None:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match=r"^no such kernel$"):
        beside_loaders(fails)
    assert no_process_is_left()


def test_what_is_loaded_does_not_come_through_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.getpid()

    def full(*_: Any, **__: Any) -> None:
        if os.getpid() != here:  # in a thread of a loader, whose errors nobody would see
            os._exit(1)
        raise OSError(errno.ENOSPC, "no shared memory is to be had")

    for name in ("_share_fd_cpu_", "_share_filename_cpu_", "_new_using_fd_cpu", "_new_using_filename_cpu"):  # forked along
        monkeypatch.setattr(torch.UntypedStorage, name, full)
    with pytest.raises(OSError, match="no shared memory"):
        torch.zeros(3).share_memory_()
    results = list(loaded(much, range(3), 2))
    assert [(result["single"][-1].item(), result["half"][-1].item()) for result in results] == [(0, 0), (1, 1), (2, 2)]


SMALL_SHM = """
import os
from simulsa.loading import LoadingError, loaded
from tests.test_loading import much, no_process_is_left

def mount(size):
    assert os.system(f"mount -t tmpfs -o size={size} tmpfs /dev/shm") == 0

mount("128k")
print([int(result["single"][0]) for result in loaded(much, range(4), 2)])
mount("4k")
try:
    print(list(loaded(much, range(4), 2)))
except LoadingError as error:
    print(error)
print(no_process_is_left())
"""


def test_the_shared_memory_of_a_small_container_will_do() -> None:
    """In a mount namespace of its own, so /dev/shm is as small as it says: 128 kB for 64 MiB of tensors, then 4 kB."""
    isolated = [shutil.which("unshare") or "", "--user", "--map-root-user", "--mount"]
    if not isolated[0] or subprocess.run([*isolated, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], check=False).returncode:
        pytest.skip("this system lets nobody mount in a namespace of their own")
    command = [*isolated, sys.executable, "-W", "ignore", "-c", SMALL_SHM]
    path = os.pathsep.join(sys.path)
    root = Path(__file__).parent.parent
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.stdout.splitlines() == ["[0, 1, 2, 3]", NO_SEMAPHORES, "True"], done.stderr


NO_SEMAPHORES = (
    "processes that load data cannot be started: /dev/shm has no room for their semaphores (No space left on device); "
    "enlarge it, or use --workers 0 to load in this process"
)


def no_semaphores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose /dev/shm is full."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("_multiprocessing.SemLock", full)


def test_semaphores_that_cannot_be_had_are_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    no_semaphores(monkeypatch)
    with pytest.raises(LoadingError) as raised:
        list(loaded(squared, range(6), 2))
    assert str(raised.value) == NO_SEMAPHORES
    assert next(iter(loaded(squared, [2], 0)))["number"] == 4


def test_who_stops_asking_leaves_no_process() -> None:
    results = loaded(squared, range(100), 2)
    next(results)
    assert multiprocessing.active_children()
    results.close()  # type: ignore[attr-defined]
    assert no_process_is_left()


def test_processes_beside_a_gpu_only_and_never_more_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulsa.loading._cores", lambda: 16)
    assert processes_for("auto", torch.device("cpu")) == 0
    assert processes_for("auto", torch.device("cuda")) == 8
    assert processes_for("auto", torch.device("cuda"), models=4) == 3
    assert processes_for(3, torch.device("cpu")) == 3
    monkeypatch.setattr("simulsa.loading._cores", lambda: 1)
    assert processes_for("auto", torch.device("cuda")) == 0


@pytest.mark.parametrize("value", [-1, 1.5, True, "many", None])
def test_a_number_of_processes_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"workers is .*'auto', 0 or a larger whole number"):
        check_processes(value)
