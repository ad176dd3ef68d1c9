"""A folder like Qwen2-Audio-7B-Instruct's on the hub, small and with random weights: the published files in their format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor
from transformers.models.qwen2_audio.processing_qwen2_audio import Qwen2AudioProcessor

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
TIMES = [
    f"<|{hundredths / 100:.2f}|>" for hundredths in range(0, 3000, 50)
]  # the published tokenizer has thousands of such marks
SPLIT = (  # Qwen2's, as in its tokenizer.json
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build(folder: Path, texts: Sequence[str]) -> Path:
    """Write the folder; its byte-level BPE is learnt from `texts`."""
    folder.mkdir(parents=True)
    tokenizer = _tokenizer(folder, texts)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    _write(
        folder / "preprocessor_config.json",
        {
            **WhisperFeatureExtractor(feature_size=128, return_attention_mask=True).to_dict(),
            "processor_class": "Qwen2AudioProcessor",
        },
    )
    _write(folder / "chat_template.json", {"chat_template": Qwen2AudioProcessor.default_chat_template.fget(None)})  # type: ignore[attr-defined]
    _model(folder, ids, len(tokenizer.get_vocab()) + 10)  # as published: more rows than tokens
    _write(
        folder / "generation_config.json",  # samples, unless it is told not to
        {
            "do_sample": True,
            "eos_token_id": [ids["<|endoftext|>"], ids["<|im_end|>"]],
            "pad_token_id": ids["<|endoftext|>"],
            "repetition_penalty": 1.1,
            "temperature": 0.7,
            "top_k": 20,
            "top_p": 0.5,
        },
    )
    return folder


def _tokenizer(folder: Path, texts: Sequence[str]) -> Tokenizer:
    """`tokenizer.json`, `vocab.json`, `merges.txt` and `tokenizer_config.json`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt: without the special tokens, which follow them
    tokenizer.add_special_tokens([*SPECIAL, *TIMES])
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token in (*SPECIAL, *TIMES)
    }
    _write(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": added,
            "additional_special_tokens": [*SPECIAL[1:], *TIMES],
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 8192,
            "pad_token": "<|endoftext|>",
            "processor_class": "Qwen2AudioProcessor",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )
    return tokenizer


def _model(folder: Path, ids: dict[str, int], rows: int) -> None:
    """`config.json` with the published fields, and the weights in shards with their index."""
    width, tower = 64, 40
    config = {
        "architectures": ["Qwen2AudioForConditionalGeneration"],
        "audio_config": {
            "activation_function": "gelu",
            "d_model": tower,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 4 * tower,
            "encoder_layers": 2,
            "max_source_positions": 1500,
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 128,
            "scale_embedding": False,
        },
        "audio_token_index": ids["<|AUDIO|>"],
        "ignore_index": -100,
        "model_type": "qwen2_audio",
        "text_config": {
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "hidden_size": width,
            "intermediate_size": 172,
            "max_position_embeddings": 8192,
            "model_type": "qwen2",
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000,
            "sliding_window": 32768,
            "torch_dtype": "bfloat16",
            "use_mrope": False,
            "vocab_size": rows,
        },
        "torch_dtype": "bfloat16",
        "transformers_version": "4.38.1",
        "vocab_size": rows,
    }
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(
        Qwen2AudioConfig(**{key: value for key, value in config.items() if key != "model_type"})
    )
    for weight in model.parameters():
        if weight.dim() >= 2:
            weight.data.normal_(0, 0.2)  # answers that differ from clip to clip
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="200KB")
    _write(folder / "config.json", config)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
