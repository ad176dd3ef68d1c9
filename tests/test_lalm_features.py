"""Features of a whole batch against the processor's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.lalm import features
from simulsa.lalm.features import BatchFrontend
from simulsa.lalm.frontend import Frontend
from simulsa.languages import Direction
from tests.conftest import examples, noise

EN_DE, DE_EN = Direction("en", "de"), Direction("de", "en")


@given(st.lists(st.tuples(st.integers(1, 160_000), st.sampled_from([EN_DE, DE_EN]), st.floats(0, 1)), min_size=1, max_size=4))
@settings(max_examples=examples(20))
def test_clips_are_prepared_as_the_processor_prepares_them(random_lalm: Any, rows: list[tuple[int, Direction, float]]) -> None:
    audios = [(volume * noise(10, seed=i))[:length].astype(np.float32) for i, (length, _, volume) in enumerate(rows)]
    directions = [direction for _, direction, _ in rows]
    together = BatchFrontend(random_lalm.frontend, random_lalm.device)
    for _ in range(2):  # the second time no length is new
        for clip, audio, direction in zip(together.prepare(audios, directions), audios, directions, strict=True):
            own = random_lalm.frontend.prepare(audio, direction)
            assert (clip.prompt, clip.samples) == (own.prompt, own.samples)
            assert clip.features.keys() == own.features.keys()
            for name, tensor in own.features.items():
                torch.testing.assert_close(clip.features[name], tensor, atol=features.TOLERANCE / 2, rtol=0)


def test_a_clip_keeps_only_its_own_memory(random_lalm: Any) -> None:
    """Whisper's extractor makes the mask of frames as a view of one with a number for each sample."""
    for tensor in random_lalm.frontend.prepare(noise(1.0), EN_DE).features.values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_what_was_seen_is_not_prepared_by_the_processor_again(random_lalm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live stream's chunks have the lengths of every stream before it: nothing waits for the processor."""
    calls: list[int] = []
    original = Frontend.prepare
    monkeypatch.setattr(
        Frontend, "prepare", lambda self, audio, asked: (calls.append(len(audio)), original(self, audio, asked))[1]
    )
    monkeypatch.setattr(random_lalm, "batch_frontend", BatchFrontend(random_lalm.frontend, random_lalm.device))
    lengths = [8000, 16000, 24000]
    for seed in range(3):
        random_lalm.hear([noise(1.5, seed)[:length] for length in lengths], [EN_DE] * 3)
    assert calls == [*lengths, lengths[0]]  # each once, and the first to compare


def test_the_same_is_heard_and_said(random_lalm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    audios = [noise(seconds, seed=i) for i, seconds in enumerate((0.3, 2.0, 0.01))]
    audios[1:1] = [random_lalm.frontend.prepare(noise(1.0, 9), EN_DE)]  # a loader's

    def said() -> list[list[int]]:
        return [row.tokens for row in random_lalm.continue_(random_lalm.hear(audios, [EN_DE] * 4), [[]] * 4)]

    together = said()
    monkeypatch.setattr(random_lalm, "batch_frontend", None)
    assert said() == together


def test_features_that_differ_are_said_once_and_not_used(
    random_lalm: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    together = BatchFrontend(random_lalm.frontend, random_lalm.device)
    monkeypatch.setattr(BatchFrontend, "_log_mel", lambda self, audios: [torch.zeros(1, 80, 1) for _ in audios])
    for _ in range(2):
        (clip,) = together.prepare([noise(1.0)], [EN_DE])
        own = random_lalm.frontend.prepare(noise(1.0), EN_DE)
        assert torch.equal(clip.features["input_features"], own.features["input_features"])
    assert len([record for record in caplog.records if "differ from the processor's" in record.getMessage()]) == 1


def test_clips_of_equally_many_frames_share_a_prompt_but_not_a_length(random_lalm: Any) -> None:
    together = BatchFrontend(random_lalm.frontend, random_lalm.device)
    clips = together.prepare([noise(1.0)[:length] for length in (8001, 8100)], [EN_DE] * 2)
    assert [clip.samples for clip in clips] == [8001, 8100]
    assert len(together._forms) == 1


def test_only_so_many_lengths_are_remembered(random_lalm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MOST_FORMS", 2)
    together = BatchFrontend(random_lalm.frontend, random_lalm.device)
    lengths = (8000, 16000, 24000, 8000)
    clips = together.prepare([noise(1.5)[:length] for length in lengths], [EN_DE] * 4)
    assert [clip.samples for clip in clips] == list(lengths)
    assert len(together._forms) == 2
