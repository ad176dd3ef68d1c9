"""`load(name)`: load a LALM by name."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from simulsa import strict_json
from simulsa.lalm.families import EXTRA, FAMILIES, UNKNOWN, Family, extractor_of, family_of, hears
from simulsa.lalm.instructions import check_template
from simulsa.lalm.interface import Direction, LALMError
from simulsa.lalm.merge import with_adapter, with_adapters_merged, without_adapters
from simulsa.lalm.precision import warn_of_slow_bfloat16
from simulsa.lalm.quantized import loading_options
from simulsa.lalm.signature import earlier_signature, folder_signature, text_signature, weights_part

if TYPE_CHECKING:  # torch is slow to import, and every command's flags need `ModelConfig`
    from simulsa.lalm.model import HuggingFaceLALM

EMBEDDED_MODELS = Path(str(files("simulsa"))) / "models"
NAME_RULE = "give a Hugging Face id, a model folder, an adapter folder, 'tiny-en-de' or 'tiny-en-de-simul'"
RECORD = "simulsa.json"  # in an adapter folder: which base it was trained on, on what, and how

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
    """number format; `auto` is float32 on a CPU and bfloat16 on a GPU"""
    instruction: str = ""
    """prompt for a translation, with {source} and {target} for the languages; empty: the model family's own"""
    four_bit: bool = False
    """keep the decoder layers in 4 bits, a quarter of their memory, for training (QLoRA) or inference; needs
    `simulsa[quantization]`"""

    def __post_init__(self) -> None:
        check_template(self.instruction)

    def load(self) -> HuggingFaceLALM:
        """The model, ready for use; see the function `load` for the errors."""
        return load(self.model, self.device, self.dtype, self.instruction, self.four_bit)


def load(
    model: str = "tiny-en-de", device: str = "auto", dtype: Dtype = "auto", instruction: str = "", four_bit: bool = False
) -> HuggingFaceLALM:
    """Load a model and its processor; see `ModelConfig` for the arguments.

    Raises `LALMError` if the name cannot be resolved, a package is missing, the model does not hear, an unknown family fails its
    checks, or an adapter belongs to another base; `ValueError` for an instruction with unknown fields.
    """
    check_template(instruction)
    place, number_format = _resolve(device, dtype)
    folder = local_folder(model)
    if folder is None and (model.startswith((".", "/", "~")) or model.partition("@")[0].count("/") > 1):  # no hub id looks so
        raise LALMError(f"{model}: no such folder; {NAME_RULE}")
    if folder is not None and _is_adapter(folder):
        return _load_adapter(model, folder, place, number_format, instruction, four_bit)
    return _load_model(model, folder, place, number_format, instruction, four_bit)


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
        with _errors_about(model):
            from transformers import AutoConfig

            version = {"revision": revision} if revision and folder is None else {}
            return family_of(AutoConfig.from_pretrained(str(folder or source), **version))
    except LALMError as error:
        logger.warning("%s; the instruction is the one of a family that is not known", error)
        return UNKNOWN


def local_folder(model: str) -> Path | None:
    """The folder of an embedded model or a user's folder; `None` for a hub id."""
    embedded = EMBEDDED_MODELS / model
    if "/" not in model and embedded.is_dir():
        return embedded
    return Path(model) if Path(model).is_dir() else None


def _is_adapter(folder: Path) -> bool:
    # some models bring an adapter of their own along
    return (folder / "adapter_config.json").exists() and not (folder / "config.json").exists()


def _resolve(device: str, dtype: Dtype) -> tuple[str, Any]:
    import torch

    if device == "auto":
        # of several processes that torchrun started on a machine, each takes its own
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise LALMError(f"device {device!r} was requested but PyTorch finds no GPU; use --device cpu")
    if dtype == "auto":
        return device, torch.bfloat16 if device.startswith("cuda") else torch.float32
    return device, getattr(torch, dtype)


def _load_model(name: str, folder: Path | None, device: str, dtype: Any, instruction: str, four_bit: bool) -> HuggingFaceLALM:
    from simulsa.lalm.model import HuggingFaceLALM
    from simulsa.lalm.preflight import check_logits, preflight

    source, _, revision = (str(folder), "", "") if folder is not None else name.partition("@")
    version = {"revision": revision} if revision else {}
    rounding = loading_options(device, dtype) if four_bit else {}
    if _name(dtype) == "bfloat16":
        warn_of_slow_bfloat16(device, "dtype bfloat16")
    with _errors_about(name):
        from transformers import AutoConfig, AutoProcessor

        config = AutoConfig.from_pretrained(source, **version)
        family = family_of(config)
        if not hears(config):
            raise LALMError(
                f"{name}: a {config.model_type!r} model has no audio tower; an audio-language model such as Qwen2-Audio is needed"
            )
        if missing := family.missing_packages:
            raise LALMError(f"{name}: {family.name} needs {' and '.join(missing)}; pip install '{EXTRA}'")
        model = _model_class(config, family).from_pretrained(source, dtype=dtype, **version, **rounding)
        if family.speech_adapter and (folder is None or (folder / family.speech_adapter).is_dir()):
            model.load_adapter(source, adapter_kwargs={"subfolder": family.speech_adapter, **version})
        model = without_adapters(model)
        if not four_bit:  # which lies there already, and cannot be moved
            model = model.to(device)
        processor = AutoProcessor.from_pretrained(source, **version)
    if extractor_of(processor) is None:
        raise LALMError(f"{name}: its processor has no feature extractor, so audio would be ignored; add preprocessor files")
    if family.chat_template and not processor.chat_template:
        processor.chat_template = family.chat_template
    digits = folder_signature(folder) if folder is not None else text_signature([name, str(config._commit_hash)])
    with _trial(name, config.model_type) if family is UNKNOWN else contextlib.nullcontext():
        lalm = HuggingFaceLALM(model, processor, name, f"{name}@{_asking(digits, instruction)}", instruction=instruction)
        if family is UNKNOWN:
            check_logits(lalm)
            preflight(lalm)
    return lalm


def _asking(digits: str, instruction: str) -> str:
    """The digits of a model that is asked in words of the user's own."""
    return text_signature([digits, instruction]) if instruction else digits


def _model_class(config: Any, family: Family) -> Any:
    import transformers

    for name in (family.model_class, *(config.architectures or [])[:1]):
        if name and hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoModelForMultimodalLM


@contextlib.contextmanager
def _trial(name: str, model_type: str) -> Iterator[None]:
    """For a model whose family is not in the table: any error becomes an `LALMError` that says what failed."""
    try:
        yield
    except Exception as error:
        raise LALMError(
            f"{name}: the family {model_type!r} is not known and fails a check: "
            f"{_first_line(error).removeprefix(f'{name}: ')}; simulsa models lists the known ones"
        ) from error


def _load_adapter(name: str, folder: Path, device: str, dtype: Any, instruction: str, four_bit: bool) -> HuggingFaceLALM:
    record = read_record(folder)
    base_name = _base_name(folder, record)
    trained_with = str(record.get("instruction", "")) if record else ""
    base = load(base_name, device, "float32" if str(dtype) == "torch.float32" else _name(dtype), trained_with, four_bit)
    if record:
        _check_base(name, record, base_name, base.content, trained_with)
    with _errors_about(name):
        model = with_adapter(base.model, folder)
        if not four_bit:  # whose weights would have to be rounded again
            model = with_adapters_merged(model.to(device))
    digits = folder_signature(folder)
    if not record:  # which alone says that the base is the one that it was trained on
        digits = text_signature([digits, weights_part(base.content)])
    if instruction and instruction != trained_with:
        digits = _asking(digits, instruction)
    return base.carrying(model, name, f"{name}@{digits}", trained_directions(record), instruction)


def _check_base(name: str, record: dict[str, Any], base_name: str, base: str, instruction: str) -> None:
    """Raise `LALMError` unless the adapter was trained on these weights, in whatever number format or quantisation."""
    trained_on = weights_part(record["base_signature"])
    if trained_on == weights_part(base):
        return
    folder = local_folder(base_name)
    if folder is not None and trained_on == _asking(earlier_signature(folder), instruction):
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


def trained_directions(record: dict[str, Any] | None) -> list[Direction]:
    """The directions an adapter was trained on, most frequent first; empty if its record is older than that or absent."""
    return [Direction(source, target) for source, target in (record or {}).get("directions", [])]


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


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `simulsa train` wrote about an adapter, or `None` for one from another trainer."""
    path = folder / RECORD
    return dict(strict_json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


@contextlib.contextmanager
def _errors_about(name: str) -> Iterator[None]:
    """Turn what transformers and peft raise into one clear line; silence their progress bars and warnings."""
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what peft and transformers tell each other of coming releases
            yield
    except LALMError:
        raise
    except ImportError as error:
        raise LALMError(f"{name}: a package is missing or broken ({_first_line(error)}); pip install '{EXTRA}'") from error
    except Exception as error:  # safetensors and tokenizers raise bare subclasses of Exception for damaged files
        if _is_gated(error):
            page = f"https://huggingface.co/{name.partition('@')[0]}"
            raise LALMError(f"{name}: is gated; accept its terms on {page} and log in with: hf auth login") from error
        raise LALMError(f"{name}: cannot be loaded ({_first_line(error)}); {NAME_RULE}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _is_gated(error: BaseException | None) -> bool:
    """Whether the hub refused because the user has not accepted a model's terms, or was not logged in."""
    from huggingface_hub.errors import GatedRepoError

    return error is not None and (isinstance(error, GatedRepoError) or _is_gated(error.__cause__))
