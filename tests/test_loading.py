"""Loader processes: the same results in the same order, errors as they are, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import Any

import pytest
import torch

from simulsa.audio import AudioError
from simulsa.loading import LoadingError, check_processes, loaded, processes_for


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
