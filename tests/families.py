"""Tiny models with random weights, one of each family, of the real classes, saved as a checkpoint is. Nothing is downloaded.

Every builder writes a folder for `simulsa.load`: model, tokenizer (single bytes and a few special tokens) and processor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

EOS, PAD = "<|im_end|>", "<|endoftext|>"
WIDTH = 32
TEXT = {  # a language model of two layers
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
}
MROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}


def byte_tokenizer(special: Sequence[str], **named: str) -> PreTrainedTokenizerFast:
    """One token for each byte, then the special tokens; `named` are those that a processor asks for by name."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, EOS, "<|im_start|>", *special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        **({"extra_special_tokens": named} if named else {}),
    )


def template(audio: str) -> str:
    """A chat template that puts `audio` where a conversation has audio."""
    return (
        "{% for message in messages %}<|im_start|>{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'audio' %}" + audio + "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )


def save(folder: Path, model: Any, processor: Any, tokenizer: Any, scale: float = 0.2) -> Path:
    """Random weights that are large enough for answers to differ from clip to clip, and the processor beside them."""
    for weight in model.parameters():
        if weight.dim() >= 2:
            weight.data.normal_(0, scale)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def whisper(seconds: int = 4, bins: int = 16) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=bins, chunk_length=seconds, return_attention_mask=True)


def whisper_encoder(seconds: int = 4, bins: int = 16) -> dict[str, Any]:
    return {
        "num_mel_bins": bins,
        "d_model": WIDTH,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "max_source_positions": seconds * 50,
    }


def qwen2_audio(folder: Path) -> Path:
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

    tokenizer = byte_tokenizer(["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"])
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **whisper_encoder()},
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TEXT},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    processor = Qwen2AudioProcessor(whisper(), tokenizer, chat_template=template("<|audio_bos|><|AUDIO|><|audio_eos|>"))
    return save(folder, Qwen2AudioForConditionalGeneration(config), processor, tokenizer)


def _omni_tokenizer() -> PreTrainedTokenizerFast:
    names = {
        "image_token": "<|IMAGE|>",
        "audio_token": "<|AUDIO|>",
        "video_token": "<|VIDEO|>",
        "vision_bos_token": "<|vision_bos|>",
        "vision_eos_token": "<|vision_eos|>",
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
    }
    return byte_tokenizer(list(names.values()), **names)


def _omni_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "audio_token_id": tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        "image_token_id": tokenizer.convert_tokens_to_ids("<|IMAGE|>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<|VIDEO|>"),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_bos|>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_eos|>"),
        "audio_start_token_id": tokenizer.convert_tokens_to_ids("<|audio_bos|>"),
        "audio_end_token_id": tokenizer.convert_tokens_to_ids("<|audio_eos|>"),
    }


OMNI_VISION = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}


def _omni_processor(kind: Any, tokenizer: Any) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    prompt = template("<|audio_bos|><|AUDIO|><|audio_eos|>")
    return kind(Qwen2VLImageProcessor(), Qwen2VLVideoProcessor(), whisper(), tokenizer, chat_template=prompt)


def qwen2_5_omni(folder: Path) -> Path:
    from transformers import (
        Qwen2_5OmniProcessor,
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
    )

    tokenizer = _omni_tokenizer()
    config = Qwen2_5OmniThinkerConfig(
        audio_config={**whisper_encoder(), "output_dim": WIDTH},
        vision_config=OMNI_VISION,
        text_config={"vocab_size": len(tokenizer), **TEXT, "rope_parameters": MROPE},
        **_omni_ids(tokenizer),
    )
    processor = _omni_processor(Qwen2_5OmniProcessor, tokenizer)
    return save(folder, Qwen2_5OmniThinkerForConditionalGeneration(config), processor, tokenizer)


def qwen3_omni_thinker() -> Any:
    """The model, with weights as it is made with."""
    from transformers import Qwen3OmniMoeThinkerConfig, Qwen3OmniMoeThinkerForConditionalGeneration

    tokenizer = _omni_tokenizer()
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "rope_parameters": MROPE}
    config = Qwen3OmniMoeThinkerConfig(
        audio_config={**whisper_encoder(), "output_dim": WIDTH, "downsample_hidden_size": 8},
        vision_config={**OMNI_VISION, "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        text_config={"vocab_size": len(tokenizer), **TEXT, **experts},
        **_omni_ids(tokenizer),
    )
    return Qwen3OmniMoeThinkerForConditionalGeneration(config)


def qwen3_omni(folder: Path) -> Path:
    from transformers import Qwen3OmniMoeProcessor

    tokenizer = _omni_tokenizer()
    processor = _omni_processor(Qwen3OmniMoeProcessor, tokenizer)
    return save(folder, qwen3_omni_thinker(), processor, tokenizer)


def qwen3_asr(folder: Path) -> Path:
    from transformers import (
        Qwen3ASRConfig,
        Qwen3ASRFeatureExtractor,
        Qwen3ASRForConditionalGeneration,
        Qwen3ASRProcessor,
    )

    names = {"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"}
    tokenizer = byte_tokenizer(list(names.values()), **names)
    encoder = {**whisper_encoder(), "output_dim": WIDTH, "downsample_hidden_size": 8}
    encoder.pop("max_source_positions")
    config = Qwen3ASRConfig(
        audio_config={"model_type": "qwen3_asr_encoder", **encoder},
        text_config={"model_type": "qwen3", "vocab_size": len(tokenizer), **TEXT},
        audio_token_id=tokenizer.convert_tokens_to_ids("<|audio_pad|>"),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    processor = Qwen3ASRProcessor(
        Qwen3ASRFeatureExtractor(feature_size=16),
        tokenizer,
        chat_template=template("<|audio_start|><|audio_pad|><|audio_end|>"),
    )
    return save(folder, Qwen3ASRForConditionalGeneration(config), processor, tokenizer)


def audio_flamingo_3(folder: Path) -> Path:
    from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration, AudioFlamingo3Processor

    tokenizer = byte_tokenizer(["<sound>"])
    config = AudioFlamingo3Config(
        audio_config={
            "num_mel_bins": 16,
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_source_positions": 50,
        },
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TEXT},
        audio_token_id=tokenizer.convert_tokens_to_ids("<sound>"),
    )
    processor = AudioFlamingo3Processor(whisper(seconds=1), tokenizer, chat_template=template("<sound>"), max_audio_len=20)
    return save(folder, AudioFlamingo3ForConditionalGeneration(config), processor, tokenizer)


def glm_asr(folder: Path) -> Path:
    from transformers import GlmAsrConfig, GlmAsrForConditionalGeneration, GlmAsrProcessor

    tokenizer = byte_tokenizer(["<|pad|>"])
    config = GlmAsrConfig(
        audio_config={
            "num_mel_bins": 16,
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 100,
        },
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, **TEXT},
        audio_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
    )
    processor = GlmAsrProcessor(whisper(seconds=2), tokenizer, chat_template=template("<|pad|>"), max_audio_len=21)
    return save(folder, GlmAsrForConditionalGeneration(config), processor, tokenizer)


def voxtral(folder: Path) -> Path:
    from transformers import MistralCommonBackend, VoxtralConfig, VoxtralForConditionalGeneration, VoxtralProcessor

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tekken.json").write_text(json.dumps(_tekken()), encoding="utf-8")
    tokenizer = MistralCommonBackend.from_pretrained(folder)
    config = VoxtralConfig(
        audio_config={
            "num_mel_bins": 16,
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        text_config={"model_type": "llama", "vocab_size": tokenizer.vocab_size, **TEXT},
        audio_token_id=24,
    )
    processor = VoxtralProcessor(WhisperFeatureExtractor(feature_size=16), tokenizer)
    return save(folder, VoxtralForConditionalGeneration(config), processor, tokenizer, scale=0.5)


def _tekken() -> dict[str, Any]:
    """A tokenizer file of Mistral's format: 100 special tokens, [AUDIO] the 25th, then the bytes."""
    import base64

    from mistral_common.tokens.tokenizers.base import SpecialTokens

    placed = {0: "<unk>", 1: "<s>", 2: "</s>", 11: "<pad>", 24: "[AUDIO]"}
    others = iter([token.value for token in SpecialTokens if token.value not in placed.values()])
    names = [placed.get(i) or next(others, f"<SPECIAL_{i}>") for i in range(100)]
    special = [{"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(names)]
    vocabulary = [
        {"rank": i, "token_bytes": base64.b64encode(bytes([i])).decode("ascii"), "token_str": chr(i)} for i in range(256)
    ]
    return {
        "config": {
            "pattern": r"[^\r\n]|\s",
            "num_vocab_tokens": 256,
            "default_vocab_size": 356,
            "default_num_special_tokens": 100,
            "version": "v7",
        },
        "vocab": vocabulary,
        "special_tokens": special,
        "audio": {
            "sampling_rate": 16_000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 16, "hop_length": 160, "window_size": 400},
            "chunk_length_s": 30.0,
        },
    }


def phi4_multimodal(folder: Path) -> Path:
    from transformers import (
        Phi4MultimodalConfig,
        Phi4MultimodalFeatureExtractor,
        Phi4MultimodalForCausalLM,
        Phi4MultimodalImageProcessor,
        Phi4MultimodalProcessor,
    )

    names = {"image_token": "<|image|>", "audio_token": "<|audio|>"}
    tokenizer = byte_tokenizer([*names.values(), "<|user|>", "<|assistant|>", "<|end|>"], **names)
    text = {name: value for name, value in TEXT.items() if name != "head_dim"}
    config = Phi4MultimodalConfig(
        vocab_size=len(tokenizer),
        **text,
        original_max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "crop_size": 28,
            "image_token_id": tokenizer.convert_tokens_to_ids("<|image|>"),
        },
        audio_config={
            "hidden_size": WIDTH,
            "intermediate_size": 32,
            "num_blocks": 2,
            "num_attention_heads": 2,
            "ext_pw_out_channel": WIDTH,
            "depthwise_separable_out_channel": WIDTH,
            "nemo_conv_channels": 8,
            "audio_token_id": tokenizer.convert_tokens_to_ids("<|audio|>"),
        },
    )
    processor = Phi4MultimodalProcessor(Phi4MultimodalImageProcessor(), Phi4MultimodalFeatureExtractor(), tokenizer)
    return save(folder, Phi4MultimodalForCausalLM(config), processor, tokenizer)


def granite_speech(folder: Path) -> Path:
    from transformers import (
        GraniteSpeechConfig,
        GraniteSpeechFeatureExtractor,
        GraniteSpeechForConditionalGeneration,
        GraniteSpeechProcessor,
    )

    tokenizer = byte_tokenizer(["<|audio|>"])
    config = GraniteSpeechConfig(
        text_config={"model_type": "granite", "vocab_size": len(tokenizer), "logits_scaling": 4.0, **TEXT},
        encoder_config={"num_layers": 2, "hidden_dim": WIDTH, "num_heads": 2, "output_dim": 8, "context_size": 50},
        projector_config={
            "model_type": "blip_2_qformer",
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "encoder_hidden_size": WIDTH,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids("<|audio|>"),
        has_lora_adapter=False,
    )
    processor = GraniteSpeechProcessor(GraniteSpeechFeatureExtractor(), tokenizer, chat_template=template("<|audio|>"))
    return save(folder, GraniteSpeechForConditionalGeneration(config), processor, tokenizer)


def _gemma_tokenizer() -> PreTrainedTokenizerFast:
    names = {
        "image_token": "<image_soft_token>",
        "audio_token": "<audio_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "boa_token": "<start_of_audio>",
        "eoa_token": "<end_of_audio>",
    }
    return byte_tokenizer([*names.values(), "<|video|>", "<end_of_turn>", "<turn|>"], **names)


def _gemma_text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        **TEXT,
        "vocab_size": len(tokenizer),
        "vocab_size_per_layer_input": len(tokenizer),
        "hidden_size_per_layer_input": 8,
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 64,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.eos_token_id,
        "final_logit_softcapping": 2.0,  # low, to be noticed where it is forgotten
    }


def gemma_3n(folder: Path) -> Path:
    from transformers import (
        Gemma3nAudioFeatureExtractor,
        Gemma3nConfig,
        Gemma3nForConditionalGeneration,
        Gemma3nProcessor,
        SiglipImageProcessor,
    )

    tokenizer = _gemma_tokenizer()
    image, audio = (tokenizer.convert_tokens_to_ids(name) for name in ("<image_soft_token>", "<audio_soft_token>"))
    text = {
        **_gemma_text(tokenizer),
        "vocab_size": len(tokenizer) + 8,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0] * 4,
    }
    config = Gemma3nConfig(
        text_config=text,
        vision_config={
            "architecture": "resnet10t",
            "hidden_size": 512,
            "vocab_size": 4,
            "vocab_offset": len(tokenizer),
        },
        audio_config={
            "hidden_size": WIDTH,
            "vocab_size": 4,
            "vocab_offset": len(tokenizer) + 4,
            "conf_num_attention_heads": 2,
            "conf_num_hidden_layers": 2,
            "sscp_conv_channel_size": [8, 4],
        },
        image_token_id=image,
        audio_token_id=audio,
    )
    processor = Gemma3nProcessor(
        Gemma3nAudioFeatureExtractor(), SiglipImageProcessor(), tokenizer, chat_template=template("<audio_soft_token>")
    )
    return save(folder, Gemma3nForConditionalGeneration(config), processor, tokenizer, scale=0.5)


def gemma_4(folder: Path) -> Path:
    from transformers import (
        Gemma4AudioFeatureExtractor,
        Gemma4Config,
        Gemma4ForConditionalGeneration,
        Gemma4ImageProcessor,
        Gemma4Processor,
        Gemma4VideoProcessor,
    )

    tokenizer = _gemma_tokenizer()
    config = Gemma4Config(
        text_config={**_gemma_text(tokenizer), "global_head_dim": 16},
        vision_config=None,
        audio_config={
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "output_proj_dims": WIDTH,
            "subsampling_conv_channels": [128, 4],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        audio_token_id=tokenizer.convert_tokens_to_ids("<audio_soft_token>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video|>"),
    )
    processor = Gemma4Processor(
        Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessor(),
        tokenizer,
        Gemma4VideoProcessor(),
        chat_template=template("<audio_soft_token>"),
    )
    return save(folder, Gemma4ForConditionalGeneration(config), processor, tokenizer)


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "Qwen2-Audio": qwen2_audio,
    "Qwen2.5-Omni": qwen2_5_omni,
    "Qwen3-Omni": qwen3_omni,
    "Qwen3-ASR": qwen3_asr,
    "Voxtral": voxtral,
    "Phi-4-multimodal": phi4_multimodal,
    "Granite Speech": granite_speech,
    "Audio Flamingo 3": audio_flamingo_3,
    "Gemma 3n": gemma_3n,
    "Gemma 4": gemma_4,
    "GLM-ASR": glm_asr,
}


def build(family: str, folder: Path) -> Path:
    """A tiny model of `family`, by its name in the table, in `folder`."""
    torch.manual_seed(0)
    return BUILDERS[family](folder)
