"""LoRA in the language model's layers only, without modifying the given model."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulsa.lalm import adapter_weights
from simulsa.lalm.interface import LALMError
from simulsa.lalm.plain_lora import PEFT_PREFIX
from simulsa.training.config import TrainConfig

if TYPE_CHECKING:
    from torch import nn

# where the layers are: in models with a separate language_model, and in those that are the language model
LAYERS = ("model.language_model.layers.", "model.layers.")


def target_modules(model: nn.Module) -> list[str]:
    """The full name of every `nn.Linear` in the language model's layers.

    Suffixes such as `q_proj`, or PEFT's `all-linear`, would match the audio tower as well. Raises `LALMError` when there are
    none.
    """
    from torch import nn

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for prefix in LAYERS:
        if names := [name for name in linear if name.startswith(prefix)]:
            return names
    raise LALMError(
        f"a {type(model).__name__} has no linear layers under {' or '.join(LAYERS)}; the place of its language model is not "
        "known, so LoRA cannot be put there"
    )


def target_parameters(model: nn.Module) -> list[str]:
    """The full name of every expert matrix in the language model's layers; empty if the model has no experts.

    A layer's experts share a parameter `[experts, width, width]`, which is not an `nn.Linear`.
    """
    return [name for name, weight in model.named_parameters() if weight.dim() == 3 and name.startswith(LAYERS)]


def shared_copy(model: nn.Module) -> Any:
    """The same weights in other modules: LoRA added to the copy does not affect `model`, and no memory is duplicated."""
    from torch import nn

    # a 4-bit weight holds its quantisation state, which a new parameter would not have
    memo: dict[int, Any] = {
        id(weight): weight if hasattr(weight, "quant_state") else nn.Parameter(weight.detach(), requires_grad=False)
        for weight in model.parameters()
    }
    memo |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, memo)


def add_lora(model: nn.Module, config: TrainConfig, checkpointed: bool = False) -> Any:
    """A `PeftModel` on a copy of `model` that shares its weights; LoRA's random half is drawn from `config.seed`.

    `checkpointed` turns on gradient checkpointing.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)
    experts = target_parameters(model)
    if experts and config.lora_dropout:
        raise LALMError(
            f"lora_dropout is {config.lora_dropout:g}, and LoRA in the experts of a {type(model).__name__} has none: set it to 0"
        )
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=target_modules(model),
        target_parameters=experts or None,
        bias="none",
    )
    copied = shared_copy(model)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # about coming releases of peft and transformers
        if checkpointed:
            # not reentrant: that variant loses gradients if a layer's inputs, such as the first layer's, require none
            # a class without support for it may contain a language model that has it, and only that is trained
            part = copied if copied.supports_gradient_checkpointing else copied.model.language_model
            part.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return get_peft_model(copied, lora)


def with_adapter(model: nn.Module, folder: Path) -> Any:
    """A `PeftModel` on a copy of `model` that shares its weights, with the adapter in `folder`."""
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # about coming releases of peft and transformers
        return adapter_weights.with_adapter(shared_copy(model), folder)


def train_mode(model: nn.Module) -> list[nn.Module]:
    """Put the language model's layers into training mode and the rest into evaluation mode; returns the modules that train.

    The audio tower and the projector are frozen, so their dropout must be off and their batch-norm statistics fixed.
    """
    model.eval()
    for name, module in model.named_modules():
        if f"{name.removeprefix(PEFT_PREFIX)}." in LAYERS:
            module.train()
    return [module for module in model.modules() if module.training]
