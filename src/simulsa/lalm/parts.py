"""What a model's name stands for, and everything but its weights: configuration, processor, signature."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from simulsa import strict_json
from simulsa.errors import first_line
from simulsa.lalm import hub
from simulsa.lalm.families import EXTRA, Family, extractor_of, family_of, hears
from simulsa.lalm.interface import LALMError
from simulsa.lalm.signature import folder_signature, text_signature
from simulsa.languages import Direction

EMBEDDED_MODELS = Path(str(files("simulsa"))) / "models"
NAME_RULE = "give a Hugging Face id, a model folder, an adapter folder, 'tiny-en-de' or 'tiny-en-de-simul'"
# in an adapter's folder: the base and data it was trained on, and how; in a merged model's: what it was made from
RECORD = "simulsa.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's files


@dataclass(frozen=True)
class Parts:
    """A model without its weights.

    `source` and `version` tell transformers what to load. `content` is `name@digits`, for the weights and the `instruction`,
    which is the user's own template or the one that a merged adapter was trained with.
    """

    name: str
    folder: Path | None
    source: str
    version: dict[str, Any]
    config: Any
    family: Family
    processor: Any
    instruction: str
    directions: tuple[Direction, ...]
    content: str


def read_parts(name: str, instruction: str = "") -> Parts:
    """Read the parts of a whole model, from its folder or the hub.

    Raises `LALMError` if the name cannot be resolved, a package is missing, or the model does not hear.
    """
    with errors_about(name):
        folder, source, version = located(name)
        from transformers import AutoConfig, AutoProcessor

        config = AutoConfig.from_pretrained(source, **version)
        family = family_of(config)
        if not hears(config):
            raise LALMError(
                f"{name}: a {config.model_type!r} model has no audio tower; an audio-language model such as Qwen2-Audio is needed"
            )
        if missing := family.missing_packages:
            raise LALMError(f"{name}: {family.name} needs {' and '.join(missing)}; pip install '{EXTRA}'")
        processor = AutoProcessor.from_pretrained(source, **version)
        record = read_record(folder) if folder is not None else {}
    if extractor_of(processor) is None:
        raise LALMError(f"{name}: its processor has no feature extractor, so audio would be ignored; add preprocessor files")
    if family.chat_template and not processor.chat_template:
        processor.chat_template = family.chat_template
    digits = folder_signature(folder) if folder is not None else text_signature([name, str(config._commit_hash)])
    asked = instruction or str(record.get("instruction", ""))
    directions = tuple(trained_directions(record.get("training", {})))
    return Parts(
        name, folder, source, version, config, family, processor, asked, directions, f"{name}@{with_instruction(digits, asked)}"
    )


def located(name: str) -> tuple[Path | None, str, dict[str, Any]]:
    """A model's folder, if it is not on the hub, and what `from_pretrained` takes: the source and, for the hub, more options.

    Raises `LALMError` for a path to no folder, and `ConnectionError` as `hub.options_for` does.
    """
    folder = local_folder(name)
    if folder is not None:
        return folder, str(folder), {}
    source, _, revision = name.partition("@")
    if name.startswith((".", "/", "~")) or source.count("/") > 1:  # not a hub id
        raise LALMError(f"{name}: no such folder; {NAME_RULE}")
    return None, source, {**({"revision": revision} if revision else {}), **hub.options_for(name, source, revision)}


def local_folder(model: str) -> Path | None:
    """The folder that a name stands for: a bundled model or one of the user's folders; `None` for a hub id."""
    embedded = EMBEDDED_MODELS / model
    if "/" not in model and embedded.is_dir():
        return embedded
    return Path(model) if Path(model).is_dir() else None


def read_record(folder: Path) -> dict[str, Any]:
    """What `simulsa train` wrote about an adapter, or `simulsa merge` about a whole model; empty if made by other tools."""
    path = folder / RECORD
    return dict(strict_json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """PEFT's configuration of the adapter in a folder."""
    return dict(strict_json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")))


def trained_directions(record: dict[str, Any]) -> list[Direction]:
    """What an adapter was trained to translate, the most frequent first; empty if its record is absent or too old to say."""
    return [Direction(source, target) for source, target in record.get("directions", [])]


def with_instruction(digits: str, instruction: str) -> str:
    """The digits of a model that is prompted with the user's own instruction."""
    return text_signature([digits, instruction]) if instruction else digits


@contextlib.contextmanager
def errors_about(name: str) -> Iterator[None]:
    """Turn what transformers and peft raise into one clear line; silence their progress bars and warnings."""
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # about coming releases of peft and transformers
            yield
    except LALMError:
        raise
    except ImportError as error:
        raise LALMError(f"{name}: a package is missing or broken ({first_line(error)}); pip install '{EXTRA}'") from error
    except Exception as error:  # safetensors and tokenizers raise bare subclasses of Exception for damaged files
        if _is_gated(error):
            page = f"https://huggingface.co/{name.partition('@')[0]}"
            raise LALMError(f"{name}: is gated; accept its terms on {page} and log in with: hf auth login") from error
        raise LALMError(f"{name}: cannot be loaded ({first_line(error)}); {NAME_RULE}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)


def _is_gated(error: BaseException | None) -> bool:
    """Whether the hub refused because the user has not accepted a model's terms, or was not logged in."""
    from huggingface_hub.errors import GatedRepoError

    return error is not None and (isinstance(error, GatedRepoError) or _is_gated(error.__cause__))
