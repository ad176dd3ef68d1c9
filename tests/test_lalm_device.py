"""What is rounded for a GPU, tried on a CPU: the same results, and how much padding it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.padding import drawn, grid_cost
from simulsa.lalm.device import copied, identity, on_grid, rounding, set_up
from simulsa.languages import Direction
from simulsa.training.config import TrainConfig
from simulsa.training.order import passed_examples
from tests.conftest import noise

EN_DE = Direction("en", "de")


@given(st.integers(1, 100_000))
def test_a_length_on_the_grid_is_long_enough_and_stays_where_it_is(length: int) -> None:
    rounded = on_grid(length)
    assert length <= rounded < length + max(64, length) // 8 + 1
    assert on_grid(rounded) == rounded
    assert rounded % 8 == 0  # what kernels of attention want of a mask


def test_the_grid_has_eight_sizes_for_each_doubling() -> None:
    assert len({on_grid(length) for length in range(129, 257)}) == 8
    assert len({on_grid(length) for length in range(1, 1025)}) <= 40


@pytest.mark.parametrize(("size", "grouping"), [(1, False), (16, False), (16, True), (48, True)])
def test_padding_to_the_grid_costs_few_tokens_of_read_speech(size: int, grouping: bool) -> None:
    config = TrainConfig(batch_size=size, micro_batch_size=size, epochs=1, length_grouping=grouping)
    assert 0 < grid_cost(passed_examples(drawn(4000), config), size) <= 0.08


def test_a_gpu_plans_no_attention_and_keeps_float32_exact(random_lalm: Any) -> None:
    set_up.cache_clear()
    cudnn = torch.backends.cudnn.allow_tf32
    precision, attention = torch.get_float32_matmul_precision(), torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        torch.set_float32_matmul_precision("high")
        set_up(torch.device("cpu"))
        assert torch.backends.cuda.cudnn_sdp_enabled()
        set_up(torch.device("cuda"))
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = cudnn
        torch.set_float32_matmul_precision(precision)
        torch.backends.cuda.enable_cudnn_sdp(attention)
        set_up.cache_clear()
        set_up(random_lalm.device)


def test_only_a_gpu_rounds(random_lalm: Any) -> None:
    assert rounding(torch.device("cpu"))(131) == 131
    assert rounding(torch.device("cuda"))(131) == 144
    assert random_lalm.decoder.round_up(131) == rounding(random_lalm.device)(131)


def test_a_copy_on_the_same_device_is_no_copy() -> None:
    tensor = torch.ones(2)
    assert copied(tensor, torch.device("cpu")) is tensor


def test_results_are_the_same_on_the_grid(random_lalm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    audios = [noise(seconds, seed=i) for i, seconds in enumerate((0.3, 2.0, 3.7))]
    prefixes = [[], [7, 8], [9]]
    drafts = [[4, 5], [], [6]]

    def results() -> tuple[list[list[int]], list[np.ndarray], set[int], set[int]]:
        encoded, decoded = set(), set()
        hooks = [
            random_lalm.encoder.register_forward_pre_hook(
                lambda _, args, named: encoded.add(named["input_features"].shape[-1] if not args else args[0].shape[-1]),
                with_kwargs=True,
            ),
            random_lalm.decoder.language_model.layers[0].register_forward_pre_hook(lambda _, args: decoded.add(args[0].shape[1])),
        ]
        heard = random_lalm.hear(audios, [EN_DE] * 3)
        said = [row.tokens for row in random_lalm.continue_(heard, prefixes, drafts)]
        scores = [row.log_probs for row in random_lalm.score(heard, [[5, 6, 7], [8], [9, 10]])]
        for hook in hooks:
            hook.remove()
        return said, scores, encoded, decoded - {1}

    monkeypatch.setattr(random_lalm.decoder, "round_up", identity)
    said, scores, _, _ = results()
    monkeypatch.setattr(random_lalm.decoder, "round_up", on_grid)
    said_on_grid, scores_on_grid, encoded, decoded = results()
    assert said_on_grid == said
    for one, other in zip(scores, scores_on_grid, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert encoded <= {4 * on_grid(frames // 4) for frames in range(1001)} | {1000}
    assert decoded <= {on_grid(length) for length in range(1000)}
