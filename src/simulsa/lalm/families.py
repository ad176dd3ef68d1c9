"""Families of audio-language models: a table of the small differences between them, and nothing else.

All are used the same way: the chat template yields the prompt, the backbone the hidden states, and the output head the logits.
A family that is not in the table is loaded with the defaults and verified before use (see `load`).
"""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from simulsa.audio import SAMPLE_RATE, wav_bytes

EXTRA = "simulsa[families]"  # the pip requirement that installs the packages of all families
_MODULES = {"Pillow": "PIL", "mistral-common": "mistral_common"}  # packages imported under another name
_TEXT_TOKENS = 512  # of the context, reserved for instruction and translation

# seconds; the feature extractor's window; as many whole windows as the processor takes; or what the context leaves for audio
Limit = float | Literal["window", "windows", "context"]


@dataclass(frozen=True)
class Family:
    """Differences of a model family from the defaults."""

    name: str
    model_types: tuple[str, ...]
    """`model_type` in the configuration, of the published checkpoint and of what is loaded from it"""
    example: str
    """a Hugging Face id"""
    tokens_per_s: float
    """audio tokens in the prompt per second of audio"""
    longest: str
    """the longest clip that the published checkpoints take, in words"""
    limit: Limit
    """what determines the longest clip that a checkpoint hears (see `longest_clip`)"""
    languages: frozenset[str] = frozenset()
    """the spoken languages that the model card lists, if it does"""
    packages: tuple[str, ...] = ()
    """the packages that its processor needs beyond simulsa's own"""
    model_class: str = ""
    """the class to load, if it is not the one that the checkpoint names"""
    audio_content: Callable[[np.ndarray], dict[str, Any]] = lambda audio: {"type": "audio", "audio": audio}
    """from float32 mono audio to the part of a conversation that holds it"""
    chat_template: str = ""
    """for processors without one of their own"""
    turn_end: str = ""
    """the token that closes an answer, if it is not the tokenizer's end of text"""
    speech_adapter: str = ""
    """folder, within the checkpoint, of a LoRA adapter without which the model does not hear"""
    mixes_lengths: bool = False
    """clips of different lengths affect each other in a batch, and are therefore encoded separately"""
    pads_to_window: bool = False
    """the processor pads every clip to its window with silence; it is asked for no more padding than the batch needs"""
    fills_window: bool = False
    """the prompt has audio tokens for a whole window, whatever the clip: those after its end stand for silence"""
    whisper_window: bool = False
    """the tower is a `Qwen2AudioEncoder`, whose padding can be trimmed and whose outputs can be cached"""
    graphs: bool = True
    """on a GPU, a decoding step can be a CUDA graph: no sliding cache, and no experts whose share of the tokens varies"""
    translates: bool = True
    """whether the published checkpoints translate; those that do not must be trained to"""

    @property
    def missing_packages(self) -> list[str]:
        """Which of `packages` are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(_MODULES.get(name, name)) is None]


def family_of(config: Any) -> Family:
    """The family of a model's configuration; `UNKNOWN` for one that is not in the table."""
    return _BY_MODEL_TYPE.get(config.model_type, UNKNOWN)


def thinker_config(config: Any) -> Any:
    """The configuration of the part that hears and writes; only Qwen-Omni's has another beside it, which speaks."""
    return getattr(config, "thinker_config", None) or config


def audio_token_id(config: Any) -> int | None:
    """The id of the placeholder for audio in a prompt."""
    for part in (config, getattr(config, "audio_config", None)):
        if (token := getattr(part, "audio_token_id", None)) is not None:
            return int(token)
    return None


def hears(config: Any) -> bool:
    """Whether a configuration includes an audio tower."""
    inner = thinker_config(config)
    return any(getattr(inner, name, None) is not None for name in ("audio_config", "encoder_config"))


def extractor_of(processor: Any) -> Any:
    """The part of a processor that turns audio into features, or `None`."""
    return getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", None)


def longest_clip(family: Family, config: Any, processor: Any) -> int:
    """The model's window in samples; audio beyond it would be truncated silently."""
    extractor = extractor_of(processor)
    if isinstance(family.limit, float):
        return int(family.limit * SAMPLE_RATE)
    if family.limit == "windows":
        return int(processor.max_audio_len // extractor.chunk_length) * int(extractor.n_samples)
    if family.limit == "window" and hasattr(extractor, "n_samples"):
        return int(extractor.n_samples)
    positions = context_tokens(config) or _TEXT_TOKENS
    return max(int((positions - _TEXT_TOKENS) / family.tokens_per_s * SAMPLE_RATE), SAMPLE_RATE)


def context_tokens(config: Any) -> int | None:
    """Number of tokens in a model's context: audio, text and translation together; `None` if not configured."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if positions is None else int(positions)


def _wav(audio: np.ndarray) -> dict[str, Any]:
    return {"type": "audio", "base64": base64.b64encode(wav_bytes(audio, "FLOAT")).decode("ascii")}


_VISION = ("Pillow", "torchvision")  # without these, the processors of models that also take images cannot be loaded
_PHI4_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'audio' %}<|audio|>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

FAMILIES = (
    Family(
        name="Qwen2-Audio",
        model_types=("qwen2_audio",),
        example="Qwen/Qwen2-Audio-7B-Instruct",
        tokens_per_s=25,
        longest="30 s",
        limit="window",
        pads_to_window=True,
        whisper_window=True,
    ),
    Family(
        name="Qwen2.5-Omni",
        model_types=("qwen2_5_omni", "qwen2_5_omni_thinker"),
        example="Qwen/Qwen2.5-Omni-7B",
        tokens_per_s=25,
        longest="300 s",
        limit="window",
        packages=_VISION,
        pads_to_window=True,
        model_class="Qwen2_5OmniThinkerForConditionalGeneration",
    ),
    Family(
        name="Qwen3-Omni",
        model_types=("qwen3_omni_moe", "qwen3_omni_moe_thinker"),
        example="Qwen/Qwen3-Omni-30B-A3B-Instruct",
        tokens_per_s=13,
        longest="the context",
        limit="context",
        mixes_lengths=True,
        packages=_VISION,
        model_class="Qwen3OmniMoeThinkerForConditionalGeneration",
        graphs=False,
    ),
    Family(
        name="Qwen3-ASR",
        model_types=("qwen3_asr",),
        example="Qwen/Qwen3-ASR-1.7B-hf",
        tokens_per_s=13,
        longest="the context",
        limit="context",
        mixes_lengths=True,
        translates=False,
    ),
    Family(
        name="Voxtral",
        model_types=("voxtral",),
        example="mistralai/Voxtral-Mini-3B-2507",
        tokens_per_s=12.5,
        fills_window=True,
        longest="the context",
        limit="context",
        languages=frozenset({"en", "es", "fr", "pt", "hi", "de", "nl", "it"}),
        packages=("mistral-common",),
        audio_content=_wav,
    ),
    Family(
        name="Phi-4-multimodal",
        model_types=("phi4_multimodal",),
        example="microsoft/Phi-4-multimodal-instruct@refs/pr/70",
        tokens_per_s=12.5,
        longest="the context",
        limit="context",
        languages=frozenset({"en", "zh", "de", "fr", "it", "ja", "es", "pt"}),
        packages=(*_VISION, "peft"),
        chat_template=_PHI4_TEMPLATE,
        turn_end="<|end|>",
        speech_adapter="speech-lora",
        mixes_lengths=True,
    ),
    Family(
        name="Granite Speech",
        model_types=("granite_speech",),
        example="ibm-granite/granite-speech-3.3-8b",
        tokens_per_s=10,
        longest="the context",
        limit="context",
        languages=frozenset({"en", "fr", "de", "es", "pt"}),
        packages=("torchaudio",),
        mixes_lengths=True,
    ),
    Family(
        name="Audio Flamingo 3",
        model_types=("audioflamingo3",),
        example="nvidia/audio-flamingo-3-hf",
        tokens_per_s=25,
        longest="600 s",
        limit="windows",
    ),
    Family(
        name="Gemma 3n",
        model_types=("gemma3n",),
        example="google/gemma-3n-E4B-it",
        tokens_per_s=6.25,
        fills_window=True,
        longest="30 s",
        limit=30.0,
        packages=(*_VISION, "timm"),
        turn_end="<end_of_turn>",
        mixes_lengths=True,
        graphs=False,
    ),
    Family(
        name="Gemma 4",
        model_types=("gemma4",),
        example="google/gemma-4-E4B-it",
        tokens_per_s=25,
        longest="30 s",
        limit=30.0,
        packages=_VISION,
        turn_end="<turn|>",
        graphs=False,
    ),
    Family(
        name="GLM-ASR",
        model_types=("glmasr",),
        example="zai-org/GLM-ASR-Nano-2512",
        tokens_per_s=12.5,
        longest="630 s",
        limit="windows",
        translates=False,
    ),
)

UNKNOWN = Family(name="unknown", model_types=(), example="", tokens_per_s=25, longest="", limit="window")

_BY_MODEL_TYPE = {model_type: family for family in FAMILIES for model_type in family.model_types}
