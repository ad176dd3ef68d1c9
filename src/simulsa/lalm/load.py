"""`load(name)`: load a LALM by name."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from simulsa import strict_json
from simulsa.lalm.families import FAMILIES, UNKNOWN, Family, family_of
from simulsa.lalm.instructions import check_template
from simulsa.lalm.interface import LALM, LALMError
from simulsa.lalm.merge import merged, with_adapter, without_adapters
from simulsa.lalm.parts import (
    RECORD,
    errors_about,
    first_line,
    hub_version,
    local_folder,
    read_parts,
    read_record,
    trained_directions,
    with_instruction,
)
from simulsa.lalm.precision import bound_plans, warn_of_slow_bfloat16
from simulsa.lalm.quantized import loading_options
from simulsa.lalm.signature import earlier_signature, folder_signature, text_signature, weights_part

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
    """number format; `auto` is float32 on a CPU and bfloat16 on a GPU. With an engine, what that was started with: `auto` is then
    vLLM's default, the format of the model's files, or bfloat16 where that is float32"""
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
        _check_engine(self.engine_url, self.engine_model, self.device, self.four_bit)

    @property
    def on_gpu(self) -> bool:
        """Whether a copy of the model occupies a GPU of this machine."""
        import torch

        if self.engine_url:
            return False
        return self.device.startswith("cuda") or (self.device == "auto" and torch.cuda.is_available())

    def load(self) -> LALM:
        """The model, ready for use; see the function `load` for the errors."""
        with _without_collections():
            return load(self.model, self.device, self.dtype, self.instruction, self.four_bit, self.engine_url, self.engine_model)

    def load_weights(self) -> HuggingFaceLALM:
        """The model in this process, for training. Raises `LALMError` for one on an engine, which returns no gradients."""
        if self.engine_url:
            raise LALMError(f"{self.model}: an engine gives no gradients, and training needs them; leave out --engine-url")
        return load(self.model, self.device, self.dtype, self.instruction, self.four_bit)


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
    or for settings that exclude each other.
    """
    check_template(instruction)
    _check_engine(engine_url, engine_model, device, four_bit)
    folder = local_folder(model)
    if engine_url:
        return _load_served(model, folder, engine_url, engine_model, dtype, instruction)
    place, number_format = _resolve(device, dtype)
    if folder is not None and _is_adapter(folder):
        return _load_adapter(model, folder, place, number_format, instruction, four_bit)
    return _load_model(model, place, number_format, instruction, four_bit)


def _check_engine(engine_url: str, engine_model: str, device: str, four_bit: bool) -> None:
    """Raise `ValueError` for settings of a local model combined with an engine, and the other way round."""
    if engine_model and not engine_url:
        raise ValueError("engine_model names a model on a server; give the server's address as engine_url")
    if engine_url and (device != "auto" or four_bit):
        given = "four_bit" if four_bit else f"device {device!r}"
        raise ValueError(f"{given} is of a model in this process, and engine_url gives it to a server; leave one of them out")


def family_of_model(model: str) -> Family:
    """The family of a model without loading it: from the table's examples, or from its configuration in a folder or on the hub.

    `UNKNOWN`, with a warning, if no configuration can be read.
    """
    source, _, revision = model.partition("@")
    known = next((family for family in FAMILIES if family.example.partition("@")[0] == source), None)
    if known is not None:
        return known
    folder = local_folder(model)
    try:
        with errors_about(model):
            from transformers import AutoConfig

            version = {} if folder is not None else hub_version(model, source, revision)
            return family_of(AutoConfig.from_pretrained(str(folder or source), **version))
    except LALMError as error:
        logger.warning("%s; the instruction is the one of a family that is not known", error)
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


def _is_adapter(folder: Path) -> bool:
    # some models come with an adapter of their own
    return (folder / "adapter_config.json").exists() and not (folder / "config.json").exists()


def _resolve(device: str, dtype: Dtype) -> tuple[str, Any]:
    import torch

    bound_plans()
    if device == "auto":
        # each of the processes that torchrun started on a machine takes its own GPU
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise LALMError(f"device {device!r} was requested but PyTorch finds no GPU; use --device cpu")
    if dtype == "auto":
        return device, torch.bfloat16 if device.startswith("cuda") else torch.float32
    return device, getattr(torch, dtype)


def _load_model(name: str, device: str, dtype: Any, instruction: str, four_bit: bool) -> HuggingFaceLALM:
    from simulsa.lalm.model import HuggingFaceLALM
    from simulsa.lalm.preflight import check_logits, preflight

    parts = read_parts(name, instruction)
    family, adapter = parts.family, parts.family.speech_adapter
    rounding = loading_options(device, dtype) if four_bit else {}
    if _name(dtype) == "bfloat16":
        warn_of_slow_bfloat16(device, "dtype bfloat16")
    with errors_about(name):
        loaded = _model_class(parts.config, family)
        model = loaded.from_pretrained(parts.source, dtype=dtype, **parts.version, **rounding)
        if adapter and (parts.folder is None or (parts.folder / adapter).is_dir()):
            model.load_adapter(parts.source, adapter_kwargs={"subfolder": adapter, **parts.version})
        model = without_adapters(model)
        if not four_bit:  # a 4-bit model is already on the device, and cannot be moved
            model = model.to(device)
    with _trial(name, parts.config.model_type) if family is UNKNOWN else contextlib.nullcontext():
        lalm = HuggingFaceLALM(
            model, parts.processor, name, parts.content, instruction=parts.instruction, directions=parts.directions
        )
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


def _load_adapter(name: str, folder: Path, device: str, dtype: Any, instruction: str, four_bit: bool) -> HuggingFaceLALM:
    record = read_record(folder)
    base_name = _base_name(folder, record)
    base = load(base_name, device, _name(dtype), _trained_with(record), four_bit)
    content = _adapter_content(name, folder, base_name, base.content, instruction)
    with errors_about(name):
        # merging into 4-bit weights would round them again
        model = with_adapter(base.model, folder) if four_bit else merged(base.model, folder)
    return base.carrying(model, name, content, trained_directions(record), instruction)


def _load_served(
    name: str, folder: Path | None, engine_url: str, engine_model: str, number_format: Dtype, instruction: str
) -> EngineLALM:
    """A model or adapter whose weights are on a server; everything else is read locally."""
    from simulsa.lalm.engine import on_engine

    adapter = folder if folder is not None and _is_adapter(folder) else None
    record = read_record(adapter) if adapter is not None else None
    base_name = _base_name(adapter, record) if adapter is not None else name
    parts = read_parts(base_name, _trained_with(record) or (instruction if adapter is None else ""))
    if adapter is not None:
        content = _adapter_content(name, adapter, base_name, parts.content, instruction)
        directions = tuple(trained_directions(record))
        asked = instruction or parts.instruction
        parts = dataclasses.replace(parts, name=name, content=content, directions=directions, instruction=asked)
    # a server names a model after what it was told to load, unless it was given a name as well
    names = [engine_model] if engine_model else [name, name.partition("@")[0], str(Path(name).resolve())]
    return on_engine(parts, engine_url, names, number_format)


def _trained_with(record: dict[str, Any] | None) -> str:
    """The user's own instruction that an adapter was trained with; empty if there was none."""
    return str((record or {}).get("instruction", ""))


def _adapter_content(name: str, folder: Path, base_name: str, base: str, instruction: str) -> str:
    """`name@digits` of an adapter on a base with the content `base`. Raises `LALMError` if it was trained on another base."""
    record = read_record(folder)
    trained_with = _trained_with(record)
    digits = folder_signature(folder)
    if record:
        _check_base(name, record, base_name, base, trained_with)
    else:  # without a record, nothing shows which base it was trained on
        digits = text_signature([digits, weights_part(base)])
    return f"{name}@{with_instruction(digits, instruction) if instruction not in ('', trained_with) else digits}"


def _check_base(name: str, record: dict[str, Any], base_name: str, base: str, instruction: str) -> None:
    """Raise `LALMError` unless the adapter was trained on these weights, in whatever number format or quantisation."""
    trained_on = weights_part(record["base_signature"])
    if trained_on == weights_part(base):
        return
    folder = local_folder(base_name)
    if folder is not None and trained_on == with_instruction(earlier_signature(folder), instruction):
        logger.warning(
            "%s: its record knows its base by the first MiB of each weight file only, which other fine-tunes may share; if %s is "
            'that base, write "base_signature": "%s" into %s. The next release will not take the record as it is',
            name, base_name, base, RECORD,
        )  # fmt: skip
        return
    raise LALMError(
        f"{name}: the adapter was trained on {record['base_signature']} and {base_name!r} is now {base}; "
        "restore that base, or train the adapter again"
    )


def base_of(model: str) -> str:
    """The base model of an adapter folder. Raises `LALMError` for anything else."""
    folder = local_folder(model)
    if folder is None or not _is_adapter(folder):
        raise LALMError(f"{model!r} is not an adapter folder, so it has no base model; give a folder written by simulsa train")
    return _base_name(folder, read_record(folder))


def _base_name(folder: Path, record: dict[str, Any] | None) -> str:
    if record:
        return str(record["base_model"])
    base = strict_json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise LALMError(
            f"{folder}: its adapter_config.json names no base model (base_model_name_or_path is {strict_json.dumps(base)}); "
            "write there the id or the folder of the model that it was trained on"
        )
    return str(base)


def _name(dtype: Any) -> Dtype:
    name: Dtype = str(dtype).removeprefix("torch.")  # type: ignore[assignment]
    return name
