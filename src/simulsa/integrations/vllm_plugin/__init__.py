"""A vLLM plugin (entry point `vllm.general_plugins`): audio-language models that answer vLLM as they answer simulsa.

vLLM calls `register` in each of its processes when simulsa is installed beside it. Nothing heavy is imported before vLLM asks for
one of the models, so the entry point costs nothing elsewhere.
"""

from __future__ import annotations

_MODULES = {  # architecture of a checkpoint -> module of vLLM's own class
    "AudioFlamingo3ForConditionalGeneration": "audioflamingo3",
    "Gemma3nForConditionalGeneration": "gemma3n_mm",
    "Gemma4ForConditionalGeneration": "gemma4_mm",
    "GlmAsrForConditionalGeneration": "glmasr",
    "GraniteSpeechForConditionalGeneration": "granite_speech",
    "Qwen2AudioForConditionalGeneration": "qwen2_audio",
    "Qwen2_5OmniForConditionalGeneration": "qwen2_5_omni_thinker",
    "Qwen2_5OmniModel": "qwen2_5_omni_thinker",
    "Qwen3ASRForConditionalGeneration": "qwen3_asr",
    "Qwen3OmniMoeForConditionalGeneration": "qwen3_omni_moe_thinker",
    "VoxtralForConditionalGeneration": "voxtral",
}
_CLASSES = {  # where the class is not named after the architecture
    "Qwen2_5OmniForConditionalGeneration": "Qwen2_5OmniThinkerForConditionalGeneration",
    "Qwen2_5OmniModel": "Qwen2_5OmniThinkerForConditionalGeneration",
    "Qwen3OmniMoeForConditionalGeneration": "Qwen3OmniMoeThinkerForConditionalGeneration",
}


def register() -> None:
    """Put simulsa's subclasses in place of those audio-language models that this vLLM knows."""
    import vllm

    supported = vllm.ModelRegistry.get_supported_archs()
    # vLLM caches what it found out about a class, by its name and the file it is in; another vLLM must not find that
    version = vllm.__version__.replace(".", "_").replace("+", "_")
    for architecture in _MODULES:
        if architecture in supported:
            vllm.ModelRegistry.register_model(architecture, f"{__name__}.models:{architecture}__{version}")
