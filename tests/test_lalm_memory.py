"""A clip is heard once, and what is remembered changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from simulsa.lalm.memory import AudioMemory, memory_of, remembering

from simulsa.lalm.interface import Direction
from simulsa.testing import FakeLALM
from tests.conftest import noise
from tests.lalms import score

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

EN_DE = Direction("en", "de")


def scores(lalm: HuggingFaceLALM, audios: list[np.ndarray]) -> list[np.ndarray]:
    found = score(lalm, audios, [lalm.encode("Ein Mann")] * len(audios), [EN_DE] * len(audios))
    return [score.log_probs for score in found]


def test_the_second_time_comes_from_memory_and_is_the_same(random_lalm: HuggingFaceLALM) -> None:
    audios = [noise(seconds, seed=seed) for seed, seconds in enumerate((0.7, 2.0, 1.3))]
    plain = scores(random_lalm, audios)
    with remembering(random_lalm, 10) as memory:
        assert memory is not None
        first = scores(random_lalm, audios)
        assert (memory.hits, memory.misses) == (0, 3)
        # another batch: another padding, one clip twice, one new
        again = scores(random_lalm, [audios[2], noise(3, seed=9), audios[0], audios[2]])
        assert (memory.hits, memory.misses) == (3, 4)
    for found, wanted in zip([*first, again[0], again[2], again[3]], [*plain, plain[2], plain[0], plain[2]], strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert memory_of(random_lalm.tower) is None
    assert "forward" not in vars(random_lalm.tower)


def test_equal_clips_of_a_batch_are_heard_once(random_lalm: HuggingFaceLALM) -> None:
    with remembering(random_lalm, 10) as memory:
        one, other = scores(random_lalm, [noise(1, seed=0)] * 2)
    assert memory is not None
    assert memory.misses == 1
    assert np.array_equal(one, other)


def test_what_was_heard_in_another_precision_is_another_clip() -> None:
    def tower(features: torch.Tensor, attention_mask: object) -> object:
        weights = torch.full((256, 256), 1 / 3)
        return type("Output", (), {"last_hidden_state": features @ weights})

    memory = AudioMemory(1)
    clip = torch.rand(1, 1, 256)
    with torch.autocast("cpu", torch.bfloat16):
        assert memory.encode(tower, clip, [256], None).dtype == torch.bfloat16
    assert memory.encode(tower, clip, [256], None).dtype == torch.float32
    assert (memory.hits, memory.misses) == (0, 2)


def test_the_least_recently_used_is_dropped() -> None:
    heard = []

    def tower(features: torch.Tensor, attention_mask: object) -> object:
        heard.extend(features[:, 0, 0].tolist())
        return type("Output", (), {"last_hidden_state": features[:, :, :256].clone()})  # 1 KiB a clip

    memory = AudioMemory(3 / 1024)
    clips = torch.arange(5.0)[:, None, None].expand(5, 1, 256)
    for number in (0, 1, 2, 0, 3, 0, 1):  # 3 drops 1, because 0 was heard again since
        memory.encode(tower, clips[number : number + 1], [256], None)
    assert heard == [0, 1, 2, 3, 1]
    assert memory.bytes <= memory.max_bytes
    # a clip that does not fit is heard and forgotten, one that was remembered when the batch began is still given
    small = AudioMemory(1 / 1024)
    for _ in range(2):
        out = small.encode(tower, clips[:3], [256] * 3, None)
        assert torch.equal(out, clips[:3])


@pytest.mark.parametrize("limit", [0, 10])
def test_an_outer_memory_stays_in_force_and_fakes_have_none(random_lalm: HuggingFaceLALM, limit: int) -> None:
    with remembering(random_lalm, 20) as outer, remembering(random_lalm, limit) as inner:
        assert inner is outer
    with remembering(FakeLALM(lambda audio: ""), 10) as memory:
        assert memory is None
    with remembering(random_lalm, 0) as memory:
        assert memory is None


def test_a_tower_that_learns_is_not_remembered(random_lalm: HuggingFaceLALM) -> None:
    prompts, audio = random_lalm.prompts([noise(1, seed=0)], [EN_DE])
    with remembering(random_lalm, 10) as memory:
        hidden, _ = random_lalm.forward(random_lalm.pad(prompts, audio))
    assert memory is not None
    assert memory.misses == 0
    assert hidden.requires_grad
