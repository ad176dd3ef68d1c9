"""The encoder without padding: the same values as with the whole window, and nothing left changed."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simulsa.lalm.window import padded_samples, trimmed_window
from simulsa.languages import Direction
from tests.conftest import noise

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

WHISPER = SimpleNamespace(hop_length=160, n_fft=400, n_samples=480_000)


@given(st.integers(1, WHISPER.n_samples))
def test_the_padding_is_whole_audio_tokens_and_at_most_the_window(longest: int) -> None:
    samples = padded_samples(longest, WHISPER)
    assert longest <= samples <= WHISPER.n_samples
    assert samples % 640 == 0
    assert samples == WHISPER.n_samples or samples - longest >= 2 * 160 + 200
    assert samples - longest < 2 * 160 + 200 + 640


@pytest.mark.parametrize("lengths", [(700,), (16_000, 15_999), (32_001, 8_123, 640), (160_000,), (159_000, 20_000)])
def test_the_encoder_gives_the_same_as_with_the_whole_window(random_lalm: HuggingFaceLALM, lengths: tuple[int, ...]) -> None:
    audios = [noise(10, seed=length)[:length] for length in lengths]
    clips = [random_lalm.frontend.prepare(audio, Direction("en", "de")) for audio in audios]
    extractor = random_lalm.processor.feature_extractor
    whole = []
    for clip, audio in zip(clips, audios, strict=True):
        batch = extractor([audio], sampling_rate=16_000, padding="max_length", return_attention_mask=True, return_tensors="pt")
        features = {"input_features": batch.input_features, "feature_attention_mask": batch.attention_mask}
        assert features["input_features"].shape[-1] == 1000
        assert clip.features["input_features"].shape[-1] < 1000 or len(audio) > 158_000
        whole.append(dataclasses.replace(clip, features=features))
    for found, wanted in zip(random_lalm.listen(clips), random_lalm.listen(whole), strict=True):
        torch.testing.assert_close(found.embeddings["inputs_embeds"], wanted.embeddings["inputs_embeds"], atol=1e-4, rtol=1e-4)


def test_an_error_leaves_the_window_as_it_was(random_lalm: HuggingFaceLALM) -> None:
    tower = random_lalm.model.model.audio_tower
    embedding = tower.embed_positions
    with trimmed_window(tower, 40):
        assert tower.embed_positions.weight.shape[0] == 20
    with pytest.raises(ZeroDivisionError), trimmed_window(tower, 40):
        1 / 0  # noqa: B018
    assert tower.embed_positions is embedding
    assert tower.config.max_source_positions == embedding.weight.shape[0] == 500
