"""LoRA adapters: attaching them to a model, and merging them into its weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from simulsa.lalm.interface import LALMError


def with_adapter(model: Any, folder: Path) -> Any:
    """A `PeftModel` of `model`, which is changed, with the adapter in `folder`.

    Raises `LALMError` unless adapter weights and LoRA layers match one to one: PEFT ignores mismatches, and the base would answer
    under the adapter's name.
    """
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    adapted = PeftModel(model, config)
    try:
        found = adapted.load_adapter(str(folder), "default")
    except RuntimeError as error:
        misfits = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        if not misfits:
            raise
        raise _misfit(folder, "have another size than the base model's layers", misfits) from error
    if found.unexpected_keys:
        raise _misfit(folder, "have no place in the base model", found.unexpected_keys)
    if found.missing_keys:
        raise _misfit(folder, "are missing from its file", found.missing_keys)
    return adapted


def _misfit(folder: Path, problem: str, weights: Sequence[str]) -> LALMError:
    named = ", ".join(weights[:3]) + (", …" if len(weights) > 3 else "")
    return LALMError(
        f"{folder}: {len(weights)} of the adapter's weights {problem} ({named}); it belongs to another base, or its file "
        "was changed: restore it, or train it again"
    )


def without_adapters(model: Any) -> Any:
    """Merge the active LoRA adapters that transformers loaded into `model`, in place.

    For checkpoints that bring an adapter without which they do not hear. LoRA can then be added as to any other model, and
    removed without losing the checkpoint's adapter.
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
    """Merge the adapters of a `PeftModel` into its weights, in place, so that inference costs nothing extra."""
    # PEFT puts the layers of experts into each other, and says of the inner one that it is merged already
    warnings.filterwarnings("ignore", "All adapters are already merged", UserWarning)
    # in a thread of its own that ends: where two threads of a process have computed, OpenMP lets the helpers of both sleep
    # between two operations, and a server's thread is slower by a third
    with ThreadPoolExecutor(1) as thread:
        thread.submit(model.merge_adapter).result()
    return model
