"""LoRA adapters as part of the weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any


def without_adapters(model: Any) -> Any:
    """`model`, changed in place: what transformers has put in as active LoRA adapters is part of the weights.

    For adapters that a checkpoint brings along, without which it does not hear. LoRA can then be put into it as into any other
    model, and taken out again without losing what came with the checkpoint.
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


def with_adapters_merged(model: Any) -> Any:
    """A `PeftModel`, changed in place: its adapters are added to the weights, so that using them costs nothing."""
    # in a thread of its own that ends: where two threads of a process have computed, OpenMP lets the helpers of both sleep
    # between two operations, and a server's thread is slower by a third
    with ThreadPoolExecutor(1) as thread:
        thread.submit(model.merge_adapter).result()
    return model
