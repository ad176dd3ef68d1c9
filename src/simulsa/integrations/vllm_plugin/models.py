"""The models that the plugin registers: vLLM's own classes with the audio placeholder ruled out, made when vLLM asks for one."""

from __future__ import annotations

import importlib
from typing import Any

from simulsa.integrations.vllm_plugin import _CLASSES, _MODULES
from simulsa.lalm.families import audio_token_id, thinker_config


def __getattr__(name: str) -> Any:
    architecture = name.partition("__")[0]
    if architecture not in _MODULES:
        raise AttributeError(name)
    if architecture == "Qwen2AudioForConditionalGeneration":
        from simulsa.integrations.vllm_plugin.qwen2_audio import Qwen2Audio

        return masked(Qwen2Audio)
    module = importlib.import_module(f"vllm.model_executor.models.{_MODULES[architecture]}")
    return masked(getattr(module, _CLASSES.get(architecture, architecture)))


def masked(base: Any) -> Any:
    """A subclass of a vLLM model that never says the audio placeholder.

    simulsa leaves the placeholder out of every distribution. vLLM's `logit_bias` does so for generated tokens only; the
    log-probabilities of a prompt are made of what `compute_logits` returns.
    """

    class Masked(base):  # type: ignore[misc]
        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
            config = vllm_config.model_config.hf_config
            self._placeholder = audio_token_id(thinker_config(config))

        def compute_logits(self, *arguments: Any, **options: Any) -> Any:
            logits = super().compute_logits(*arguments, **options)
            # with tensor parallelism only one process may have logits
            if logits is not None and self._placeholder is not None and self._placeholder < logits.shape[-1]:
                logits[..., self._placeholder] = -float("inf")
            return logits

    Masked.__name__ = Masked.__qualname__ = base.__name__
    return Masked
