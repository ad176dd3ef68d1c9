"""`load(name)`: load a LALM by name."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from simulsa.errors import first_line
from simulsa.lalm.adapter_weights import merged, with_adapter, without_adapters
from simulsa.lalm.adapters import Adapter, adapter_at
from simulsa.lalm.families import FAMILIES, UNKNOWN, Family, family_of
from simulsa.lalm.instructions import check_template
from simulsa.lalm.interface import LALM, LALMError
from simulsa.lalm.parts import errors_about, located, read_parts
from simulsa.lalm.precision import bound_plans, warn_of_slow_bfloat16
from simulsa.lalm.quantized import loading_options
from simulsa.settings import address_parts

if TYPE_CHECKING:  # torch is slow to import, and every command's flags need `ModelConfig`
    from simulsa.lalm.engine import EngineLALM
    from simulsa.lalm.model import HuggingFaceLALM

logger = logging.getLogger("simulsa")

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class ModelConfig:
    """Which model to load, and where."""

    model: str = "tiny-en-de"
    """Hugging Face id, local folder, adapter folder written by `simulsa train`, `tiny-en-de` or `tiny-en-de-simul`"""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` uses a GPU if there is one"""
    dtype: Dtype = "auto"
    """number format; `auto` is float32 on a CPU and bfloat16 on a GPU. With an engine: the format vLLM was started with; `auto`
    assumes vLLM's default, the checkpoint's format, or bfloat16 if that is float32"""
    instruction: str = ""
    """prompt for a translation, with {source} and {target} for the languages; empty: the model family's own"""
    four_bit: bool = False
    """keep the decoder layers in 4 bits, a quarter of their memory, for training (QLoRA) or inference; needs
    `simulsa[quantization]`"""
    engine_url: str = ""
    """address of a vLLM server that has the model's weights, such as http://localhost:8000 (docs/engines.md); empty: none"""
    engine_model: str = ""
    """the server's name for the model or adapter; empty: the name given as model"""

    def __post_init__(self) -> None:
        check_template(self.instruction)
        if self.engine_model and not self.engine_url:
            raise ValueError("engine_model names a model on a server; give the server's address as engine_url")
        if self.engine_url:
            address_parts("engine_url", self.engine_url, ["http", "https"])
        if self.engine_url and (self.device != "auto" or self.four_bit):
            given = "four_bit" if self.four_bit else f"device {self.device!r}"
            raise ValueError(
                f"{given} applies to a model in this process, but engine_url puts the model on a server; remove one of them"
            )

    @property
    def on_gpu(self) -> bool:
        """Whether a copy of the model occupies a GPU of this machine."""
        from simulsa.lalm.device import chosen_device

        return not self.engine_url and chosen_device(self.device).startswith("cuda")

    def load(self) -> LALM:
        """The model, ready for use; see the function `load` for the errors."""
        with _without_collections():
            return _load_served(self) if self.engine_url else _load_weights(self)

    def load_weights(self) -> HuggingFaceLALM:
        """The model in this process, for training. Raises `LALMError` for one on an engine, which returns no gradients."""
        if self.engine_url:
            raise LALMError(f"{self.model}: training needs gradients, which an engine does not return; remove --engine-url")
        return _load_weights(self)


@overload
def load(
    model: str = ..., device: str = ..., dtype: Dtype = ..., instruction: str = ..., four_bit: bool = ...
) -> HuggingFaceLALM: ...


@overload
def load(
    model: str,
    device: str = ...,
    dtype: Dtype = ...,
    instruction: str = ...,
    four_bit: bool = ...,
    engine_url: str = ...,
    engine_model: str = ...,
) -> LALM: ...


def load(
    model: str = "tiny-en-de",
    device: str = "auto",
    dtype: Dtype = "auto",
    instruction: str = "",
    four_bit: bool = False,
    engine_url: str = "",
    engine_model: str = "",
) -> LALM:
    """Load a model and its processor; see `ModelConfig` for the arguments. With `engine_url`, the weights stay with the server.

    Raises `LALMError` if the name cannot be resolved, a package is missing, the model does not hear, an unknown family fails its
    checks, an adapter belongs to another base, or a server cannot be used; `ValueError` for an instruction with unknown fields,
    an `engine_url` that is no address, or settings that exclude each other.
    """
    return ModelConfig(model, device, dtype, instruction, four_bit, engine_url, engine_model).load()


def family_of_model(model: str) -> Family:
    """The family of a model without loading it: from the table's examples, or from its configuration in a folder or on the hub.

    `UNKNOWN`, with a warning, if no configuration can be read.
    """
    known = next((family for family in FAMILIES if family.example.partition("@")[0] == model.partition("@")[0]), None)
    if known is not None:
        return known
    try:
        with errors_about(model):
            _, source, version = located(model)
            from transformers import AutoConfig

            return family_of(AutoConfig.from_pretrained(source, **version))
    except LALMError as error:
        logger.warning("%s; its family is unknown, so the default instruction is used", error)
        return UNKNOWN


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Pause garbage collection during imports, in which it finds nothing and takes a tenth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _load_weights(config: ModelConfig) -> HuggingFaceLALM:
    adapter = adapter_at(config.model)
    return _load_model(config) if adapter is None else _load_adapter(config, adapter)


def _resolve(device: str, dtype: Dtype) -> tuple[str, Any]:
    import torch

    from simulsa.lalm.device import chosen_device

    bound_plans()
    device = chosen_device(device)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise LALMError(f"device {device!r} was requested but PyTorch finds no GPU; use --device cpu")
    if dtype == "auto":
        return device, torch.bfloat16 if device.startswith("cuda") else torch.float32
    return device, getattr(torch, dtype)


def _load_model(config: ModelConfig) -> HuggingFaceLALM:
    device, dtype = _resolve(config.device, config.dtype)
    from simulsa.lalm.model import HuggingFaceLALM
    from simulsa.lalm.preflight import check_logits, preflight

    name, four_bit = config.model, config.four_bit
    parts = read_parts(name, config.instruction)
    family, adapter = parts.family, parts.family.speech_adapter
    rounding = loading_options(device, dtype) if four_bit else {}
    if str(dtype) == "torch.bfloat16":
        warn_of_slow_bfloat16(device, "dtype bfloat16")
    with errors_about(name):
        model_class = _model_class(parts.config, family)
        model = model_class.from_pretrained(parts.source, dtype=dtype, **parts.version, **rounding)
        if adapter and (parts.folder is None or (parts.folder / adapter).is_dir()):
            model.load_adapter(parts.source, adapter_kwargs={"subfolder": adapter, **parts.version})
        model = without_adapters(model)
        if not four_bit:  # a 4-bit model is already on the device, and cannot be moved
            model = model.to(device)
    with _trial(name, parts.config.model_type) if family is UNKNOWN else contextlib.nullcontext():
        lalm = HuggingFaceLALM(model, parts.processor, name, parts.content, parts.instruction, parts.directions)
        if family is UNKNOWN:
            check_logits(lalm)
            preflight(lalm)
    return lalm


def _model_class(config: Any, family: Family) -> Any:
    import transformers

    for name in (family.model_class, *(config.architectures or [])[:1]):
        if name and hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoModelForMultimodalLM


@contextlib.contextmanager
def _trial(name: str, model_type: str) -> Iterator[None]:
    """Turn any error of a model whose family is not in the table into an `LALMError` that says what failed."""
    try:
        yield
    except Exception as error:
        raise LALMError(
            f"{name}: the family {model_type!r} is not known and fails a check: "
            f"{first_line(error).removeprefix(f'{name}: ')}; simulsa models lists the known ones"
        ) from error


def _load_adapter(config: ModelConfig, adapter: Adapter) -> HuggingFaceLALM:
    base = _load_weights(dataclasses.replace(config, model=adapter.base, instruction=adapter.instruction))
    content = adapter.content(base.content, config.instruction)
    with errors_about(adapter.name):
        # merging into 4-bit weights would round them again
        merge = with_adapter if config.four_bit else merged
        model = merge(base.model, adapter.folder)
    return base.carrying(model, adapter.name, content, adapter.directions, config.instruction)


def _load_served(config: ModelConfig) -> EngineLALM:
    """A model or adapter whose weights are on a server; everything else is read locally."""
    from simulsa.lalm.engine import on_engine

    name, adapter = config.model, adapter_at(config.model)
    if adapter is None:
        parts = read_parts(name, config.instruction)
    else:
        base = read_parts(adapter.base, adapter.instruction)
        parts = dataclasses.replace(
            base,
            name=name,
            content=adapter.content(base.content, config.instruction),
            directions=tuple(adapter.directions),
            instruction=config.instruction or base.instruction,
        )
    # a server names a model after what it was told to load, unless it was given a name as well
    names = [config.engine_model] if config.engine_model else [name, name.partition("@")[0], str(Path(name).resolve())]
    return on_engine(parts, config.engine_url, names, config.dtype)
