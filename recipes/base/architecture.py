"""The bundled model's shape: a small `Qwen2AudioForConditionalGeneration` with Whisper's encoder, and its processor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from recipes.base.text import AUDIO, CHAT_TEMPLATE

MEL_BINS, HOP_SAMPLES, WINDOW_S = 80, 160, 10  # Whisper's, except for the window
FRAMES_PER_WINDOW = WINDOW_S * 16_000 // HOP_SAMPLES  # 1,000: 100 a second
POSITIONS_PER_WINDOW = FRAMES_PER_WINDOW // 2  # 500, after the stride of the second convolution; 25 audio tokens a second
ENCODER = "encoder.safetensors"  # among the assets
Frames = TypeVar("Frames", int, torch.Tensor)


@dataclass(frozen=True)
class Shape:
    """The decoder's size."""

    layers: int = 6
    width: int = 320
    inner: int = 1280
    heads: int = 5
    key_value_heads: int = 5


def build_extractor() -> WhisperFeatureExtractor:
    """Whisper's log-mel front end with a shorter window."""
    return WhisperFeatureExtractor(
        feature_size=MEL_BINS, hop_length=HOP_SAMPLES, chunk_length=WINDOW_S, return_attention_mask=True
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2AudioProcessor:
    """The front end, the tokenizer and the chat template above."""
    return Qwen2AudioProcessor(build_extractor(), tokenizer, chat_template=CHAT_TEMPLATE)


def build_encoder(assets: Path) -> Qwen2AudioEncoder:
    """Whisper's encoder from `assets`, frozen, in float32."""
    weights = encoder_weights(assets)
    encoder = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**settings_of(weights)))
    encoder.load_state_dict(weights)
    return encoder.eval().requires_grad_(False)


def encoder_weights(assets: Path) -> dict[str, torch.Tensor]:
    """The encoder's weights in float32, with its 1,500 positions cut to those of the window."""
    path = assets / ENCODER
    if not path.exists():
        raise FileNotFoundError(f"no {path}: fetch it with recipes/base/fetch.sh {assets}")
    weights = {name: weight.float() for name, weight in load_file(path).items()}
    weights["embed_positions.weight"] = weights["embed_positions.weight"][:POSITIONS_PER_WINDOW].clone()
    return weights


def encoder_settings(width: int, layers: int) -> dict[str, Any]:
    """The configuration of an encoder of Whisper's shape with the window above."""
    return {
        "model_type": "qwen2_audio_encoder",
        "num_mel_bins": MEL_BINS,
        "d_model": width,
        "encoder_layers": layers,
        "encoder_attention_heads": width // 64,
        "encoder_ffn_dim": 4 * width,
        "max_source_positions": POSITIONS_PER_WINDOW,
    }


def settings_of(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The configuration that matches an encoder's weights."""
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))
    return encoder_settings(weights["conv1.bias"].shape[0], layers)


def audio_tokens(frames: Frames) -> Frames:
    """Qwen2-Audio's number of audio tokens for a number of mel frames, or for a tensor of such: a stride of 2, then pooling by
    2."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


@torch.no_grad()
def encode(encoder: Qwen2AudioEncoder, mels: Sequence[np.ndarray], frames: Sequence[int]) -> list[torch.Tensor]:
    """The encoder's outputs `[tokens, width]`, on the CPU, for each float32 mel `[80, ≥ frames]`, of which the first `frames` are
    real."""
    device = encoder.conv1.weight.device
    outputs = encoded(encoder, torch.from_numpy(padded(mels, frames)).to(device), torch.tensor(frames, device=device)).cpu()
    return [output[: audio_tokens(count)] for output, count in zip(outputs, frames, strict=True)]


def padded(mels: Sequence[np.ndarray], frames: Sequence[int]) -> np.ndarray:
    """The mels as one array `[clips, 80, width]`, followed by as much silence as the encoder's convolutions look ahead."""
    width = min(max(frames) + 4 + max(frames) % 2, FRAMES_PER_WINDOW)
    return np.stack([np.pad(m[:, :width], ((0, 0), (0, max(0, width - m.shape[1]))), constant_values=m.min()) for m in mels])


def encoded(encoder: Qwen2AudioEncoder, mels: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """The encoder's outputs `[clips, tokens, width]` for mels `[clips, 80, width]` with `frames` `[clips]` real frames each.

    The tower itself requires the full window; here the padding is trimmed, which is several times faster and gives the same
    values where there is speech (attention is masked, and the convolutions see silence after the end).
    """
    hidden = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(mels))))
    hidden = hidden.transpose(1, 2) + encoder.embed_positions.weight[: hidden.shape[-1]]
    positions = (frames - 1) // 2 + 1
    mask = (torch.arange(hidden.shape[1], device=mels.device)[None, :] < positions[:, None])[:, None, None, :]
    for layer in encoder.layers:
        hidden = layer(hidden, mask)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden  # differs between versions of transformers
    outputs: torch.Tensor = encoder.layer_norm(encoder.avg_pooler(hidden.transpose(1, 2)).transpose(1, 2))
    return outputs


def build_model(tokenizer: PreTrainedTokenizerFast, shape: Shape, assets: Path) -> Qwen2AudioForConditionalGeneration:
    """The model with Whisper's encoder from `assets` and random weights above it."""
    weights = encoder_weights(assets)
    model = random_model(tokenizer, shape, settings_of(weights))
    model.model.audio_tower.load_state_dict(weights)
    return model


def random_model(tokenizer: PreTrainedTokenizerFast, shape: Shape, encoder: dict[str, Any]) -> Qwen2AudioForConditionalGeneration:
    """The model with random weights and the encoder's configuration."""
    config = Qwen2AudioConfig(
        audio_config=encoder,
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": shape.width,
            "intermediate_size": shape.inner,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.key_value_heads,
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
    positions = model.model.audio_tower.embed_positions.weight
    positions.data.copy_(sinusoids(*positions.shape))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def sinusoids(length: int, channels: int) -> torch.Tensor:
    """Whisper's fixed positions, float32 `[length, channels]`: sines, then cosines, of geometrically spaced periods.

    The class declares them as a frozen embedding and leaves the values to the checkpoint.
    """
    frequencies = torch.exp(-math.log(10_000) / (channels // 2 - 1) * torch.arange(channels // 2))
    angles = torch.arange(length)[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
