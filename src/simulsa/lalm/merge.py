"""Adapters that a checkpoint brings along, without which it does not hear: merged into the weights when it is loaded."""

from __future__ import annotations

from typing import Any


def without_adapters(model: Any) -> Any:
    """`model`, changed in place: what transformers has put in as active LoRA adapters is part of the weights.

    LoRA can then be put into it as into any other model, and taken out again without losing what came with the checkpoint.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    if layers:
        del model.peft_config
        model._hf_peft_config_loaded = False
    return model
