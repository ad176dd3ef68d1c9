"""The encoder without padding: the same values as with the whole window, and nothing left changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.interface import Direction
from simulsa.lalm.window import narrowed, padded_samples
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
    prompts, narrow = random_lalm.prompts(audios, [Direction("en", "de")] * len(audios))
    whole = random_lalm.processor.feature_extractor(
        audios, sampling_rate=SAMPLE_RATE, padding="max_length", return_attention_mask=True, return_tensors="pt"
    )
    window = {"input_features": whole.input_features, "feature_attention_mask": whole.attention_mask}
    assert window["input_features"].shape[-1] == 500
    assert narrow["input_features"].shape[-1] < 500 or max(lengths) > 158_000
    with torch.inference_mode():
        found, _ = random_lalm.forward(random_lalm.pad(prompts, narrow))
        wanted, _ = random_lalm.forward(random_lalm.pad(prompts, window))
    heard = random_lalm.pad(prompts, narrow).mask.bool()
    torch.testing.assert_close(found[heard], wanted[heard], atol=1e-4, rtol=1e-4)


def test_an_error_leaves_the_window_as_it_was(random_lalm: HuggingFaceLALM) -> None:
    tower = random_lalm.model.model.audio_tower
    embedding = tower.embed_positions
    with narrowed(tower, 40):
        assert tower.embed_positions.weight.shape[0] == 20
    with pytest.raises(ZeroDivisionError), narrowed(tower, 40):
        1 / 0  # noqa: B018
    assert tower.embed_positions is embedding
    assert tower.config.max_source_positions == embedding.weight.shape[0] == 250
