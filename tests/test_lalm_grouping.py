"""Rows in groups of similar length: the cheapest cut, and the same tokens as from one pass."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.costs import DECODER_ON_CPU, ENCODER_ON_CPU, ONE_PASS, PassCost, least_length, measured
from simulsa.lalm.decoding import _Greedy
from simulsa.lalm.grouping import grouped
from simulsa.lalm.interface import Heads, LALMError, Want
from simulsa.languages import Direction
from tests.conftest import noise
from tests.lalms import continue_

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM


def cost(groups: list[list[int]], lengths: list[int], overhead: int, least: int) -> int:
    return sum(max(len(rows) * max(lengths[row] for row in rows), least) + overhead for rows in groups)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8), st.integers(0, 200), st.sampled_from([0, 60, 300]))
def test_no_way_to_cut_the_sorted_rows_is_cheaper(lengths: list[int], overhead: int, least: int) -> None:
    groups = grouped(lengths, PassCost(overhead, least))
    rows = [row for group in groups for row in group]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths)
    for number in range(len(rows)):
        for cuts in itertools.combinations(range(1, len(rows)), number):
            other = [rows[begin:end] for begin, end in itertools.pairwise((0, *cuts, len(rows)))]
            assert cost(groups, lengths, overhead, least) <= cost(other, lengths, overhead, least)


def test_a_gpu_that_waits_for_launches_is_not_asked_for_small_passes() -> None:
    launches = PassCost(least=400)
    assert grouped([30, 10, 31, 11], launches) == [[1, 3, 0, 2]]  # 124 in all: one pass is as long as its launches
    large = grouped([1000, 100] * 8, launches)
    assert [len(rows) for rows in large] == [8, 8]


@given(st.integers(5, 14), st.floats(1e-6, 1e-3))
def test_the_least_length_of_a_pass_is_found_by_its_times(power: int, rate: float) -> None:
    """A pass of up to 2^power tokens takes as long as its launches, a longer one as long as its tokens."""
    true = 2**power
    found = least_length(lambda length: rate * max(length, true), 256)
    assert found == max(true, 256)


def test_costs_that_cannot_be_measured_are_said_and_leave_one_pass(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run(_: int) -> None:
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    cost = measured(run, "decoder", 256)
    assert grouped([1, 1000, 1, 1000], cost) == [[0, 2, 1, 3]]
    assert [record.getMessage() for record in caplog.records] == [
        "not enough memory to measure passes of the decoder: rows of all lengths share a pass, with more padding"
    ]


def test_rows_stay_together_where_cutting_does_not_pay() -> None:
    assert grouped([10, 20, 30], PassCost(1_000)) == [[0, 1, 2]]
    assert grouped([30, 10, 31, 11], PassCost(10)) == [[1, 3], [0, 2]]


@pytest.mark.parametrize(("device", "encoder", "decoder"), [("cpu", ENCODER_ON_CPU, DECODER_ON_CPU), ("mps", ONE_PASS, ONE_PASS)])
def test_costs_are_measured_with_cuda_only(
    random_lalm: HuggingFaceLALM, device: str, encoder: PassCost, decoder: PassCost, monkeypatch: pytest.MonkeyPatch
) -> None:
    lalm = copy.copy(random_lalm)
    lalm.__dict__.pop("encoder_cost", None)
    lalm.__dict__.pop("decoder_cost", None)
    monkeypatch.setattr(type(lalm), "device", torch.device(device))
    assert (lalm.encoder_cost, lalm.decoder_cost) == (encoder, decoder)
    assert grouped([1, 10_000, 3], ONE_PASS) == [[0, 2, 1]]


@pytest.mark.parametrize("overhead", [0, 20, 100_000])
def test_the_tokens_do_not_depend_on_the_groups(
    random_lalm: HuggingFaceLALM, overhead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(random_lalm.__dict__, "encoder_cost", PassCost(overhead * SAMPLE_RATE // 20))
    monkeypatch.setitem(random_lalm.__dict__, "decoder_cost", PassCost(overhead))
    audios = [noise(seconds, seed) for seed, seconds in enumerate((1.9, 0.2, 1.7, 0.3, 0.9))]
    directions = [Direction("en", "de")] * 5
    endless = [continue_(random_lalm, [audio], [[]], directions[:1])[0] for audio in audios]
    lalm = copy.copy(random_lalm)
    lalm.eos_ids = [endless[0][6], endless[1][9]]  # so that rows end at different times
    alone = [continue_(lalm, [audio], [[]], directions[:1])[0] for audio in audios]
    assert len({len(tokens) for tokens in alone}) >= 2
    prefixes = [alone[0][:3], [], alone[2][:1], alone[3][:2], []]
    drafts = [alone[0][3:5], [*alone[1][:2], 7, 7], [9], [], alone[4]]
    passes: list[int] = []
    verify = _Greedy.verify
    monkeypatch.setattr(_Greedy, "verify", lambda self, rows: passes.append(len(rows)) or verify(self, rows))
    heard = lalm.hear(audios, directions)
    together = lalm.continue_(heard, prefixes, drafts, Want(heads=Heads()))
    assert [said.tokens for said in together] == [t[len(prefix) :] for t, prefix in zip(alone, prefixes, strict=True)]
    assert passes == {0: [2, 1, 1, 1], 20: [2, 3]}.get(overhead, [5])
    for clip, prefix, said in zip(heard, prefixes, together, strict=True):
        (single,) = lalm.continue_([clip], [prefix], None, Want(heads=Heads()))
        assert single.attention is not None
        np.testing.assert_allclose(said.attention, single.attention, atol=1e-5)


def test_the_clip_that_is_too_long_is_named_by_its_place_in_the_batch(random_lalm: HuggingFaceLALM) -> None:
    audios = [noise(seconds, 0) for seconds in (0.5, random_lalm.max_samples / SAMPLE_RATE + 1, 0.2)]
    with pytest.raises(LALMError, match="clip 1 of the batch"):
        random_lalm.hear(audios, [Direction("en", "de")] * 3)
