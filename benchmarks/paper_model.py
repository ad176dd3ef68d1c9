"""A model of Qwen2-Audio-7B's shape, or smaller, with random weights and the bundled model's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from recipes.covost2.estimate import Model
from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.load import load
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.manifest import Utterance

HEAD_WIDTH = 128
TOKENS_PER_S, POSITIONS_PER_S = 25, 50  # of the language model, and of the audio tower


@dataclass(frozen=True)
class Shape:
    """The size of a model; the audio tower has 5/16 of the width, as Qwen2-Audio's 1,280 of 4,096."""

    layers: int = Model.layers
    tower_layers: int = 32
    width: int = Model.width
    vocabulary: int = Model.vocabulary


TRIAL = Shape(layers=2, tower_layers=2, width=128, vocabulary=4096)


def build(shape: Shape, device: torch.device, dtype: torch.dtype) -> HuggingFaceLALM:
    """The model on `device`; its answers never end by themselves."""
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor, WhisperFeatureExtractor

    embedded = load("tiny-en-de", device="cpu").processor
    extractor = WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)
    processor = Qwen2AudioProcessor(extractor, embedded.tokenizer, chat_template=embedded.chat_template)
    tower_width = shape.width * 5 // 16
    heads = max(1, shape.width // HEAD_WIDTH)
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 128,
            "d_model": tower_width,
            "encoder_layers": shape.tower_layers,
            "encoder_attention_heads": max(1, tower_width // 64),
            "encoder_ffn_dim": 4 * tower_width,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": shape.vocabulary,
            "hidden_size": shape.width,
            "intermediate_size": round(shape.width * Model.feed_forward / Model.width),
            "num_hidden_layers": shape.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": False,
        },
        audio_token_index=embedded.tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = Qwen2AudioForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(default)
    model.generation_config.eos_token_id = embedded.tokenizer.eos_token_id
    return HuggingFaceLALM(model, processor, "random", "random@0")


def parameters(lalm: HuggingFaceLALM) -> dict[str, int]:
    """The number of parameters of the audio tower and of the language model."""
    whole = lalm.model.model
    parts = {"audio tower": whole.audio_tower, "language model": whole.language_model}
    return {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}


def operations(lalm: HuggingFaceLALM, rows: Sequence[Utterance], passes: int) -> float:
    """Operations for `rows`: per parameter and token, `passes` in the language model and 2 in the tower (forward only)."""
    counts = parameters(lalm)
    seconds = sum(row.length_samples() for row in rows) / SAMPLE_RATE
    text = sum(len(lalm.encode(row.target_text)) for row in rows)
    spoken = seconds * POSITIONS_PER_S * 2 * counts["audio tower"]
    return spoken + (seconds * TOKENS_PER_S + text) * passes * counts["language model"]
