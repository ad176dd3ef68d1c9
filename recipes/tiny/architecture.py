"""The embedded model's shape: a small `Qwen2AudioForConditionalGeneration`, its tokenizer and its processor."""

from __future__ import annotations

import math

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from recipes.base.text import AUDIO, CHAT_TEMPLATE

MEL_BINS = 80
HOP_SAMPLES = 320  # 20 ms at 16 kHz: 50 frames/s, 25 encoder positions/s, 12.5 audio tokens/s
FFT_SAMPLES = 512  # 32 ms
WINDOW_S = 10  # the longest clip
FRAMES_PER_WINDOW = WINDOW_S * 16_000 // HOP_SAMPLES  # 500
POSITIONS_PER_WINDOW = FRAMES_PER_WINDOW // 2  # 250, after the stride of the second convolution
WIDTH = 256


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2AudioProcessor:
    """Whisper's log-mel front end with a longer hop and a shorter window, and the chat template above."""
    extractor = WhisperFeatureExtractor(
        feature_size=MEL_BINS, hop_length=HOP_SAMPLES, n_fft=FFT_SAMPLES, chunk_length=WINDOW_S, return_attention_mask=True
    )
    return Qwen2AudioProcessor(extractor, tokenizer, chat_template=CHAT_TEMPLATE)


def sinusoids(length: int, channels: int) -> torch.Tensor:
    """Whisper's fixed positions, float32 `[length, channels]`: sines, then cosines, of geometrically spaced periods.

    The class declares them as a frozen embedding and leaves the values to the checkpoint.
    """
    frequencies = torch.exp(-math.log(10_000) / (channels // 2 - 1) * torch.arange(channels // 2))
    angles = torch.arange(length)[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def build_model(
    tokenizer: PreTrainedTokenizerFast, encoder_layers: int = 4, decoder_layers: int = 4
) -> Qwen2AudioForConditionalGeneration:
    """The model with random weights (9.5 M parameters at the default depth)."""
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": MEL_BINS,
            "d_model": WIDTH,
            "encoder_layers": encoder_layers,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 4 * WIDTH,
            "max_source_positions": POSITIONS_PER_WINDOW,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": decoder_layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids(AUDIO),
        tie_word_embeddings=True,
    )
    model = Qwen2AudioForConditionalGeneration(config)
    model.model.audio_tower.embed_positions.weight.data.copy_(sinusoids(POSITIONS_PER_WINDOW, WIDTH))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model
