"""Decoding in fixed memory, without the graph that a GPU adds: the same tokens as the plain path."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simulsa.lalm import graphs
from simulsa.lalm.families import FAMILIES
from simulsa.lalm.graphs import StaticSteps, capacity, rows_on_grid
from simulsa.lalm.interface import Heads, Want
from simulsa.lalm.load import load
from simulsa.languages import Direction
from tests.conftest import noise
from tests.test_lalm_families import family_folder, sounds

EN_DE = Direction("en", "de")


@pytest.fixture
def static(random_lalm: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The random model with decoding in fixed memory, in small caches, and answers of up to 70 tokens."""
    monkeypatch.setattr(graphs, "LEAST_CAPACITY", 64)
    monkeypatch.setattr(graphs, "ROOM", 8)
    monkeypatch.setattr(random_lalm, "max_target_tokens", 70)
    monkeypatch.setattr(random_lalm.decoder, "steps", StaticSteps(random_lalm.decoder, graphs=False))
    return random_lalm


def both_ways(lalm: Any, *arguments: Any) -> tuple[list[Any], list[Any]]:
    """What `continue_` says in fixed memory and the plain way."""
    heard = lalm.hear(arguments[0], [EN_DE] * len(arguments[0]))
    steps = lalm.decoder.steps
    fixed = lalm.continue_(heard, *arguments[1:])
    lalm.decoder.steps = None
    try:
        return fixed, lalm.continue_(heard, *arguments[1:])
    finally:
        lalm.decoder.steps = steps


@given(st.integers(1, 20_000))
def test_a_cache_has_room_and_few_sizes(length: int) -> None:
    assert length + graphs.ROOM <= capacity(length) <= max(graphs.LEAST_CAPACITY, 1.5 * (length + graphs.ROOM))
    assert capacity(length) % 8 == 0


def test_there_are_few_sizes() -> None:
    assert sorted({capacity(some) for some in range(1, 1900)}) == [256, 384, 512, 768, 1024, 1536, 2048]


def test_rows_come_in_powers_of_two() -> None:
    assert [rows_on_grid(rows) for rows in (1, 2, 3, 4, 5, 9, 16, 17)] == [1, 2, 4, 4, 8, 16, 16, 32]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_tokens_of_every_family_are_those_of_the_plain_path(family: Any, tmp_path: Any) -> None:
    lalm = load(str(family_folder(family.name, tmp_path / "model")), device="cpu")
    lalm.max_target_tokens = 24
    lalm.decoder.steps = StaticSteps(lalm.decoder, graphs=False)
    audios = sounds()
    prefixes, drafts = [[], [5], [6, 7], [], [8]], [[4, 4], [], [], [9], []]
    fixed, plain = both_ways(lalm, audios, prefixes, drafts)
    assert [row.tokens for row in fixed] == [row.tokens for row in plain]
    assert (lalm.decoder.steps.steps > 0) is (not lalm.decoder.slides)
    if family.graphs:
        assert not lalm.decoder.slides


def test_rows_end_apart_in_caches_that_are_too_small_and_batches_that_shrink(static: Any) -> None:
    # the random model never says EOS: tokens that it says at different times stand for it
    audios = [noise(seconds, seed=i) for i, seconds in enumerate((0.4, 1.6, 1.2, 0.7, 0.9, 1.4))]
    free = static.continue_(static.hear(audios, [EN_DE] * 6), [[]] * 6)
    ends = sorted({row.tokens[place] for row, place in zip(free, (3, 17, 30, 45, 69, 7), strict=True)})
    eos, static.eos_ids = static.eos_ids, ends[:3]
    try:
        fixed, plain = both_ways(static, audios, [[]] * 6, None, Want(log_probs=True))
    finally:
        static.eos_ids = eos
    assert [row.tokens for row in fixed] == [row.tokens for row in plain]
    assert [row.truncated for row in fixed] == [row.truncated for row in plain]
    for one, other in zip(fixed, plain, strict=True):
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-4)
    unlimited, _ = both_ways(static, audios, [[]] * 6)
    assert [len(row.tokens) for row in unlimited] == [70] * 6  # more than the capacity of the first cache


def test_a_batch_leaves_nothing_behind_for_the_next(static: Any) -> None:
    long, short = [noise(4.0, seed=1)] * 3, [noise(1.0, seed=2)]
    for audios in (long, short, long[:2], short * 4):
        fixed, plain = both_ways(static, audios, [[]] * len(audios))
        assert [row.tokens for row in fixed] == [row.tokens for row in plain]


def test_a_single_row_takes_no_step_in_vain_and_a_batch_few(static: Any) -> None:
    static.max_target_tokens = 11
    static.continue_(static.hear([noise(1.0)], [EN_DE]), [[]])
    assert static.decoder.steps.steps == 10  # the first token is the prefill's
    static.continue_(static.hear([noise(1.0)] * 2, [EN_DE] * 2), [[]] * 2)
    assert static.decoder.steps.steps == 20


def test_the_memory_of_the_cache_is_shared_and_bounded(static: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = static.decoder.steps
    static.continue_(static.hear([noise(1.0)] * 4, [EN_DE] * 4), [[]] * 4)
    four = steps.nbytes
    static.continue_(static.hear([noise(1.0)], [EN_DE]), [[]])
    assert steps.nbytes == four
    monkeypatch.setattr(graphs, "MAX_CACHE_BYTES", four)
    fixed, plain = both_ways(static, [noise(1.0, seed=i) for i in range(9)], [[]] * 9)
    assert [row.tokens for row in fixed] == [row.tokens for row in plain]
    assert 0 < steps.nbytes <= four


@pytest.mark.parametrize("after", [0, 1])
def test_a_graph_that_cannot_be_captured_is_said_once_and_the_plain_path_goes_on(
    after: int, static: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    captured = 0

    def capture(self: Any, memory: Any) -> None:
        nonlocal captured
        captured += 1
        if captured > after:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graphs._Slot, "capture", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    static.decoder.steps = StaticSteps(static.decoder, graphs=True)
    audios = [noise(2.0, seed=i) for i in range(3)]
    for _ in range(2):
        fixed, plain = both_ways(static, audios, [[]] * 3)
        assert [row.tokens for row in fixed] == [row.tokens for row in plain]
    assert [record.getMessage() for record in caplog.records if "CUDA graphs" in record.getMessage()] == [
        "decoding continues without CUDA graphs, but slower (RuntimeError: operation not permitted when stream is capturing)"
    ]
    assert captured == after + 1


def test_a_live_stream_captures_nothing_that_was_captured_at_the_start(static: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[tuple[int, int]] = []
    monkeypatch.setattr(graphs._Slot, "capture", lambda self, memory: captured.append((self.rows, self.capacity)))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(static.decoder, "steps", StaticSteps(static.decoder, graphs=True))
    static.warm_up(EN_DE, 4, 4 * 16_000)
    at_start = list(captured)
    assert {rows for rows, _ in at_start} == {1, 2, 4}
    assert at_start == sorted(at_start, key=lambda size: -size[0] * size[1])  # the memory never grows, which would lose graphs
    static.max_target_tokens = 12
    for rows in (1, 3, 4):
        for chunk in range(1, 8):  # lengths that are new
            audios = [noise(0.5 * chunk + 0.01 * row, seed=row) for row in range(rows)]
            fixed, plain = both_ways(static, audios, [[5] * chunk] * rows)
            assert [row.tokens for row in fixed] == [row.tokens for row in plain]
    assert captured == at_start


def test_steps_that_are_no_graphs_have_nothing_to_capture(static: Any) -> None:
    static.warm_up(EN_DE, 4, 4 * 16_000)
    assert static.decoder.steps.captures == 0
    assert static.decoder.steps.nbytes == 0


def test_memory_that_grows_begins_a_new_pool_for_graphs(static: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch refuses a pool whose graphs are all gone."""
    pools: list[int] = []
    used: list[int] = []
    monkeypatch.setattr(graphs._Slot, "capture", lambda self, memory: used.append(memory))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (pools.append(len(pools) + 1), len(pools))[1])
    monkeypatch.setattr(static.decoder, "steps", StaticSteps(static.decoder, graphs=True))
    static.max_target_tokens = 4
    for rows in (1, 4, 2):  # the memory of the second is larger, that of the third is there
        static.continue_(static.hear([noise(1.0)] * rows, [EN_DE] * rows), [[]] * rows)
    assert used == [1, 2, 2]


@pytest.mark.parametrize(("total", "free", "held", "expected"), [
    (80, 60, 0, 16), (24, 20, 0, 6), (80, 8, 0, 4), (80, 8, 6, 7), (80, 0, 0, 0),
])  # fmt: skip
def test_the_cache_leaves_room_for_the_rest(
    total: int, free: int, held: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=total << 30))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: ((free - 1) << 30 if free else 0, total << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: (3 << 30) if free else 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: (2 << 30) if free else 0)
    assert graphs.cache_limit(torch.device("cuda"), held << 30) == expected << 30
    assert graphs.cache_limit(torch.device("cpu")) == graphs.MAX_CACHE_BYTES


def test_memory_that_is_not_there_is_said_once_and_the_plain_path_goes_on(
    static: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Any, *_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.00 GiB")

    monkeypatch.setattr(StaticSteps, "_reserve", full)
    for _ in range(2):
        fixed, plain = both_ways(static, [noise(2.0)] * 2, [[]] * 2)
        assert [row.tokens for row in fixed] == [row.tokens for row in plain]
    assert len([record for record in caplog.records if "out of memory" in record.getMessage()]) == 1
    assert static.decoder.steps.nbytes == 0


def test_attention_that_is_wanted_is_seen_the_plain_way(static: Any) -> None:
    heard = static.hear([noise(1.0)], [EN_DE])
    static.max_target_tokens = 5
    (said,) = static.continue_(heard, [[]], None, Want(heads=Heads()))
    assert said.attention.shape[0] == 5
    assert static.decoder.steps.steps == 0
