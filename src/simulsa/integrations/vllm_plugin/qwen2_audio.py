"""Qwen2-Audio for vLLM with LoRA and with windows other than 30 s."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
from vllm.model_executor.models.interfaces import SupportsLoRA
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.qwen2_audio import (
    Qwen2AudioDummyInputsBuilder,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioMultiModalProcessor,
    Qwen2AudioProcessingInfo,
    _get_feat_extract_output_lengths,
)
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.utils.tensor_schema import TensorSchema, TensorShape


class AnyWindow(TensorSchema):  # type: ignore[misc]
    """Features of clips that are padded to the window of their feature extractor, whatever its length."""

    type: Literal["audio_features"]
    input_features: Annotated[torch.Tensor | list[torch.Tensor], TensorShape("clips", "mel_bins", "frames")]
    feature_attention_mask: Annotated[torch.Tensor, TensorShape("clips", "frames")]


class AnyWindowInfo(Qwen2AudioProcessingInfo):  # type: ignore[misc]
    """How many audio tokens the window takes, where vLLM counts 30 s at most."""

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """`{"audio": tokens}`, or nothing where no audio is asked for."""
        if not (mm_counts or {}).get("audio"):
            return {}
        _, tokens = _get_feat_extract_output_lengths(torch.tensor(self.get_feature_extractor().nb_max_frames))
        return {"audio": int(tokens)}


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2AudioMultiModalProcessor, info=AnyWindowInfo, dummy_inputs=Qwen2AudioDummyInputsBuilder
)
class Qwen2Audio(Qwen2AudioForConditionalGeneration, SupportsLoRA):  # type: ignore[misc]
    """vLLM's Qwen2-Audio; adapters and weights may have the names that transformers and PEFT give them today."""

    packed_modules_mapping = {  # noqa: RUF012  # as vLLM declares it
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "model.language_model.": "language_model.model.",
            "language_model.model.model.": "language_model.model.",  # of models that transformers 5.19 saved
            "model.audio_tower.": "audio_tower.",
            "model.multi_modal_projector.": "multi_modal_projector.",
            "lm_head.": "language_model.lm_head.",
        }
    )

    def get_mm_mapping(self) -> MultiModelKeys:
        """Which modules are the language model, where vLLM looks for LoRA."""
        return MultiModelKeys.from_string_field(
            language_model="language_model", connector="multi_modal_projector", tower_model="audio_tower"
        )

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Take the weights by the names of any transformers release."""
        return set(AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper))

    def _parse_and_validate_audio_input(self, **inputs: Any) -> Any:
        if inputs.get("input_features") is None or inputs.get("audio_embeds") is not None:
            return super()._parse_and_validate_audio_input(**inputs)
        return AnyWindow(
            type="audio_features",
            input_features=inputs["input_features"],
            feature_attention_mask=inputs["feature_attention_mask"],
        )
