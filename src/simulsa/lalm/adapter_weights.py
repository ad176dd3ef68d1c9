"""LoRA adapters: attaching them to a model, and merging them into its weights."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from simulsa.extras import optional
from simulsa.lalm.interface import LALMError
from simulsa.lalm.plain_lora import has_plain_layers, is_plain, merge_plain, misfit


def merged(model: Any, folder: Path) -> Any:
    """Merge the adapter in `folder` into the weights of `model`, in place, so that inference costs nothing extra.

    A plain LoRA adapter needs no PEFT; for any other, a `PeftModel` is returned. Raises `LALMError` as `with_adapter` does.
    """
    # in a short-lived thread: once two threads of a process have computed, OpenMP lets the worker threads of both sleep between
    # operations, and a server's thread becomes slower by a third
    with ThreadPoolExecutor(1) as thread:
        if is_plain(folder) and has_plain_layers(model, folder):
            thread.submit(merge_plain, model, folder).result()
            return model
        adapted = with_adapter(model, folder).to(model.device)
        # PEFT nests the layers of experts, and warns that the inner one is already merged
        warnings.filterwarnings("ignore", "All adapters are already merged", UserWarning)
        thread.submit(adapted.merge_adapter).result()
    return adapted


def with_adapter(model: Any, folder: Path) -> Any:
    """Wrap `model`, in place, in a `PeftModel` with the adapter in `folder`.

    Raises `LALMError` unless adapter weights and LoRA layers match one to one: PEFT ignores mismatches, and the base model
    would answer under the adapter's name.
    """
    try:
        peft = optional("peft", "train", f"{folder}: an adapter that is not plain LoRA, or not merged,")
    except RuntimeError as error:
        raise LALMError(str(error)) from error
    config = peft.PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    adapted = peft.PeftModel(model, config)
    try:
        found = adapted.load_adapter(str(folder), "default")
    except RuntimeError as error:
        misfits = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        if not misfits:
            raise
        raise misfit(folder, "have another size than the base model's layers", misfits) from error
    if found.unexpected_keys:
        raise misfit(folder, "have no place in the base model", found.unexpected_keys)
    if found.missing_keys:
        raise misfit(folder, "are missing from its file", found.missing_keys)
    return adapted


def without_adapters(model: Any) -> Any:
    """Merge the active LoRA adapters that transformers loaded into `model`, in place.

    For checkpoints that come with an adapter that they need in order to hear. LoRA can then be added as to any other model, and
    removed without losing the checkpoint's adapter.
    """
    if not hasattr(model, "peft_config"):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    del model.peft_config
    model._hf_peft_config_loaded = False
    return model
