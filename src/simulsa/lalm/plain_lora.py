"""Plain LoRA adapters merged without PEFT: W + (alpha / r) · B A (Hu et al. 2021, arXiv 2106.09685), the same weights as PEFT's.

Using an adapter then needs no training package, and startup takes a second less.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulsa.lalm.interface import LALMError
from simulsa.lalm.parts import ADAPTER_WEIGHTS, read_adapter_config

if TYPE_CHECKING:
    from torch import nn

PEFT_PREFIX = "base_model.model."  # before every module's name in a `PeftModel` and in its files
# fields of any value: they describe the layers or the training, and do not change the merged weights
_INERT = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_alpha", "lora_dropout", "megatron_core", "peft_type",
    "peft_version", "qalora_group_size", "r", "revision", "target_modules", "task_type",
}  # fmt: skip


def is_plain(folder: Path) -> bool:
    """Whether the adapter in `folder` is LoRA with one rank and scale, in modules listed by name, and nothing else.

    DoRA, rsLoRA, initialisations that change the base (PiSSA, OLoRA, LoftQ), layers with their own rank, trained biases, whole
    modules or matrices of experts, and whatever PEFT adds in later releases are not plain: PEFT loads those.
    """
    config = read_adapter_config(folder)
    modules = config.get("target_modules")
    settings = {name: value for name, value in config.items() if name not in _INERT}
    return (
        config.get("peft_type") == "LORA"
        and isinstance(modules, list)
        and settings.pop("bias", "none") == "none"
        and settings.pop("init_lora_weights", True) in (True, False, "gaussian")
        and not any(settings.values())
        and (folder / ADAPTER_WEIGHTS).exists()
    )


def merge_plain(model: nn.Module, folder: Path) -> None:
    """Add the adapter in `folder`, for which `is_plain` holds, to the weights of `model`, in place.

    Raises `LALMError`, leaving `model` unchanged, unless the adapter's weights and the layers that it names match one to one.
    """
    from safetensors.torch import load_file

    config, weights = read_adapter_config(folder), load_file(folder / ADAPTER_WEIGHTS)
    layers: dict[str, Any] = {name: layer for name, layer in model.named_modules() if _is_named(name, config["target_modules"])}
    expected = {f"{PEFT_PREFIX}{name}.lora_{half}.weight": (name, half) for name in layers for half in "AB"}
    if foreign := sorted(weights.keys() - expected.keys()):
        raise misfit(folder, "have no place in the base model", foreign)
    if missing := sorted(expected.keys() - weights.keys()):
        raise misfit(folder, "are missing from its file", missing)
    rank = int(config["r"])
    other = [key for key, (name, half) in expected.items() if weights[key].shape != _shape(layers[name], half, rank)]
    if other:
        raise misfit(folder, "have another size than the base model's layers", other)
    for name, layer in layers.items():
        weight = layer.weight.data
        down, up = (weights[f"{PEFT_PREFIX}{name}.lora_{half}.weight"].to(weight.device).float() for half in "AB")
        weight += (up @ down) * (config["lora_alpha"] / rank)


def has_plain_layers(model: nn.Module, folder: Path) -> bool:
    """Whether all modules that the adapter in `folder` names are linear layers, and no others."""
    from torch import nn

    named = read_adapter_config(folder)["target_modules"]
    return all(type(layer) is nn.Linear for name, layer in model.named_modules() if _is_named(name, named))


def misfit(folder: Path, problem: str, weights: Sequence[str]) -> LALMError:
    """The error for an adapter whose `weights` do not fit its base."""
    named = ", ".join(weights[:3]) + (", …" if len(weights) > 3 else "")
    return LALMError(
        f"{folder}: {len(weights)} of the adapter's weights {problem} ({named}); it belongs to another base, or its file "
        "was changed: restore it, or train it again"
    )


def _is_named(name: str, targets: Sequence[str]) -> bool:
    """PEFT's rule for a list of modules: a whole name, or the end of one."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _shape(layer: Any, half: str, rank: int) -> tuple[int, int]:
    out, width = layer.weight.shape
    return (rank, width) if half == "A" else (out, rank)
