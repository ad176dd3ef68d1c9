"""A clip is heard once, and what is cached changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from simulsa.lalm.cache import CachedLALM, EncoderCache
from simulsa.languages import Direction
from simulsa.testing import FakeHeard, FakeLALM
from tests.conftest import noise
from tests.lalms import score

if TYPE_CHECKING:
    from simulsa.lalm.interface import LALM
    from simulsa.lalm.model import HuggingFaceLALM

EN_DE = Direction("en", "de")
KIB = np.zeros(256, dtype=np.float32)


def scores(lalm: LALM, audios: list[np.ndarray]) -> list[np.ndarray]:
    return [row.log_probs for row in score(lalm, audios, [lalm.encode("Ein Mann")] * len(audios), [EN_DE] * len(audios))]


def counted(lalm: HuggingFaceLALM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips each call of `lalm.hear` from now on encodes."""
    hear, counts = lalm.hear, list[int]()

    def hear_and_count(audios: Sequence[Any], directions: Sequence[Direction]) -> list[Any]:
        counts.append(len(audios))
        return hear(audios, directions)

    monkeypatch.setattr(lalm, "hear", hear_and_count)
    return counts


def test_the_second_time_comes_from_the_cache_and_is_the_same(
    random_lalm: HuggingFaceLALM, monkeypatch: pytest.MonkeyPatch
) -> None:
    audios = [noise(seconds, seed=seed) for seed, seconds in enumerate((0.7, 2.0, 1.3))]
    plain = scores(random_lalm, audios)
    cached = CachedLALM(random_lalm, 10)
    encoded = counted(random_lalm, monkeypatch)
    first = scores(cached, audios)
    # another batch: another padding, one clip twice, one new
    again = scores(cached, [audios[2], noise(3, seed=9), audios[0], audios[2]])
    assert encoded == [3, 1]
    for found, wanted in zip([*first, again[0], again[2], again[3]], [*plain, plain[2], plain[0], plain[2]], strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_equal_clips_of_a_batch_are_heard_once(random_lalm: HuggingFaceLALM, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = counted(random_lalm, monkeypatch)
    one, other = scores(CachedLALM(random_lalm, 10), [noise(1, seed=0)] * 2)
    assert encoded == [1]
    assert np.array_equal(one, other)


def test_another_direction_is_another_prompt() -> None:
    cached = CachedLALM(FakeLALM(lambda audio: ""), 10)
    german, french, again = cached.hear([KIB] * 3, [EN_DE, Direction("en", "fr"), EN_DE])
    assert german is again
    assert french.direction.target_lang == "fr"


def hears(keys: Sequence[int], heard: list[int]) -> Callable[[list[int]], list[FakeHeard]]:
    """What encodes the clips of `keys`, and notes them in `heard`."""

    def hear(rows: list[int]) -> list[FakeHeard]:
        heard.extend(keys[row] for row in rows)
        return [FakeHeard(KIB + keys[row], EN_DE) for row in rows]

    return hear


def test_the_least_recently_used_is_dropped() -> None:
    heard: list[int] = []
    cache = EncoderCache(3 / 1024)
    for number in (0, 1, 2, 0, 3, 0, 1):  # 3 drops 1, because 0 was heard again since
        (clip,) = cache.fetch([number], hears([number], heard))
        assert clip.audio[0] == number
    assert heard == [0, 1, 2, 3, 1]
    assert cache.bytes <= cache.max_bytes
    # a clip that does not fit is heard and forgotten, one that was cached when the batch began is still given
    small = EncoderCache(1 / 1024)
    for _ in range(2):
        found = small.fetch([7, 8, 9], hears([7, 8, 9], heard))
        assert [clip.audio[0] for clip in found] == [7, 8, 9]


def test_epochs_over_more_rows_than_fit_find_those_that_were_kept() -> None:
    heard: list[int] = []
    cache = EncoderCache(2 / 1024, drop=False)
    for epoch in ([0, 1, 2, 3], [3, 0, 2, 1], [2, 3, 1, 0]):
        heard.clear()
        for number in epoch:
            (clip,) = cache.fetch([number], hears([number], heard))
            assert clip.audio[0] == number
    assert heard == [2, 3]
    assert cache.bytes <= cache.max_bytes


def test_what_is_kept_does_not_hold_its_batch(random_lalm: HuggingFaceLALM) -> None:
    cached = CachedLALM(random_lalm, 10)
    audios = [noise(1, seed=seed) for seed in range(3)]
    cached.hear(audios, [EN_DE] * 3)
    for clip in cached.hear(audios, [EN_DE] * 3):
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in clip.embeddings.values())
