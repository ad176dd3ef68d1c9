"""`export`: offline and simultaneous rows for other trainers, with the paper's settings under their option names.

These trainers read whole audio files, so each slice is written to a file of its own. They also tokenise the target text again,
so a row that ends inside a word may end in different tokens there (`augment --whole-words` makes no such rows). The formats are
those documented by ms-swift (custom dataset: messages and audios, JSON Lines) and LLaMA-Factory (sharegpt formatting,
`dataset_info.json`).
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from simulsa import strict_json
from simulsa.audio import SAMPLE_RATE, AudioError, flac_path, write_flac
from simulsa.extras import optional
from simulsa.files import atomic_write
from simulsa.lalm.instructions import instruction
from simulsa.lalm.load import family_of_model
from simulsa.loading import OnError
from simulsa.manifest import Utterance, check_ids, unheard
from simulsa.progress import track
from simulsa.settings import check_choices
from simulsa.training.config import TrainConfig

Format = Literal["ms-swift", "llamafactory", "hf-dataset"]
DATASET = "simulsa"  # the name of the dataset in LLaMA-Factory
ROWS = "train.jsonl"

logger = logging.getLogger("simulsa")


class ExportError(ValueError):
    """Rows or a folder that cannot be used; the message gives what was found, the rule and the fix."""


@dataclass(frozen=True)
class ExportConfig:
    """Target trainer and its settings."""

    format: Format = "ms-swift"
    """`ms-swift`, `llamafactory`, or a Hugging Face dataset folder (`hf-dataset`)"""
    base_model: str = "Qwen/Qwen2-Audio-7B-Instruct"
    """model to fine-tune; its family determines the wording of the instruction"""
    template: str = "qwen2_audio"
    """LLaMA-Factory's name for the model's chat template"""
    on_error: OnError = "fail"
    """on a row with broken audio: `fail`, or `skip` it"""
    overwrite: bool = False
    """replace files of another export, or edited ones"""

    def __post_init__(self) -> None:
        check_choices(self)


def export(rows: Sequence[Utterance], out: Path, config: ExportConfig | None = None) -> int:
    """Write `rows` and a settings file into the folder `out`; existing audio files are not written again.

    Returns the number of rows written. Raises `ManifestError` for ids that occur twice, `AudioError` for unreadable audio (unless
    skipped), `ExportError` if no row is left and for a folder whose files differ from those of this export (unless overwritten),
    and `RuntimeError` if a package is missing.
    """
    config = config or ExportConfig()
    if not rows:
        raise ExportError("no rows to export; give at least one")
    check_ids(rows, " over all rows of a training")
    given = []
    for row in track(rows, "exporting"):
        try:
            given.append((row, _audio_file(row, out / "audio")))
        except AudioError as error:
            if config.on_error == "fail":
                raise unheard(row, error) from error
            logger.warning("export: row %r skipped: %s", row.id, error)
    if not given:
        raise ExportError(f"none of the {len(rows)} rows can be written; see the warnings above, or give other rows")
    family = family_of_model(config.base_model).name
    if config.format == "ms-swift":
        _write(_ms_swift(given, config, family), out, config.overwrite)
    elif config.format == "llamafactory":
        _write(_llamafactory(given, config, family), out, config.overwrite)
    else:
        _hf_dataset(given, out / "dataset", family, config.overwrite)
    logger.info("export: %d rows for %s are in %s", len(given), config.format, out)
    return len(given)


def _audio_file(row: Utterance, folder: Path) -> Path:
    """The row's own file, or a file in `folder` with its slice (16-bit FLAC), named after the slice and the state of its file."""
    row.length_samples()  # raises if the audio cannot be read
    if row.start_s == 0 and row.duration_s is None:
        return Path(row.audio).resolve()
    state = Path(row.audio).stat()
    cut = f"{row.audio}|{row.start_s}|{row.duration_s}|{state.st_size}|{state.st_mtime_ns}"
    path = flac_path(folder, row.id, cut.encode())
    if not path.exists():
        write_flac(path, row.load())
    return path.resolve()


def _write(files: dict[str, str], out: Path, overwrite: bool) -> None:
    """Write texts by file name; those that are there already stay untouched, so an interrupted export can be run again."""
    missing = {name: text for name, text in files.items() if not (out / name).exists()}
    changed = {name: text for name, text in files.items() if name not in missing and (out / name).read_bytes() != text.encode()}
    if changed and not overwrite:
        raise ExportError(
            f"{out}: holds another export, or an edited one: {', '.join(changed)} would change; choose another --out, or replace "
            "it with --overwrite"
        )
    for name, text in {**missing, **changed}.items():
        with atomic_write(out / name) as file:
            file.write(text)


def _messages(given: Sequence[tuple[Utterance, Path]], family: str) -> str:
    """One conversation per line: the audio and the instruction, then the translation."""
    lines = []
    for row, audio in given:
        messages = [
            {"role": "user", "content": f"<audio>{instruction(row.direction, family)}"},
            {"role": "assistant", "content": row.target_text},
        ]
        lines.append(strict_json.dumps({"messages": messages, "audios": [str(audio)]}) + "\n")
    return "".join(lines)


def _ms_swift(given: Sequence[tuple[Utterance, Path]], config: ExportConfig, family: str) -> dict[str, str]:
    options = {
        "model": config.base_model,
        "dataset": ROWS,
        "target_modules": "all-linear",
        "freeze_vit": "true",
        "freeze_aligner": "true",
        "torch_dtype": "bfloat16",
        **_paper_settings(),
    }
    flags = " \\\n".join(f"    --{name} {shlex.quote(str(value))}" for name, value in options.items())
    title = "# LoRA on offline and simultaneous rows, with the settings of arXiv 2509.15692"
    return {ROWS: _messages(given, family), "train.sh": f"#!/bin/sh\n{title}\nswift sft \\\n{flags}\n"}


def _llamafactory(given: Sequence[tuple[Utterance, Path]], config: ExportConfig, family: str) -> dict[str, str]:
    import yaml

    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "audios": "audios"}
    described = {"file_name": ROWS, "formatting": "sharegpt", "columns": columns, "tags": tags}
    settings = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": config.base_model,
        "template": config.template,
        "dataset": DATASET,
        "dataset_dir": ".",
        "finetuning_type": "lora",
        "lora_target": "all",
        "freeze_vision_tower": True,
        "freeze_multi_modal_projector": True,
        "bf16": True,
        "output_dir": "adapter",
        **_paper_settings(),
    }
    return {
        ROWS: _messages(given, family),
        "dataset_info.json": strict_json.dumps({DATASET: described}, indent=2) + "\n",
        "train.yaml": yaml.safe_dump(settings, sort_keys=False),
    }


def _hf_dataset(given: Sequence[tuple[Utterance, Path]], folder: Path, family: str, overwrite: bool) -> None:
    datasets = optional("datasets", "datasets", "a Hugging Face dataset")
    if (folder / "state.json").exists() and not overwrite:  # the file that is written last
        raise ExportError(f"{folder}: holds a dataset already; choose another --out, or replace it with --overwrite")
    records = [
        {
            "id": row.id,
            "audio": str(audio),
            "instruction": instruction(row.direction, family),
            "target_text": row.target_text,
            "source_lang": row.source_lang,
            "target_lang": row.target_lang,
            "parent_id": row.parent_id,
        }
        for row, audio in given
    ]
    dataset = datasets.Dataset.from_list(records).cast_column("audio", datasets.Audio(sampling_rate=SAMPLE_RATE))
    dataset.save_to_disk(str(folder))


def _paper_settings() -> dict[str, Any]:
    """simulsa's defaults (the paper's values where it gives them), under the names both trainers share with transformers."""
    paper = TrainConfig()
    return {
        "lora_rank": paper.lora_r,
        "lora_alpha": int(paper.lora_alpha),
        "learning_rate": paper.learning_rate,
        "weight_decay": paper.weight_decay,
        "num_train_epochs": paper.epochs,
        "per_device_train_batch_size": paper.micro_batch_size,
        "gradient_accumulation_steps": paper.batch_size // paper.micro_batch_size,
        "lr_scheduler_type": paper.lr_scheduler,
        "warmup_ratio": paper.warmup_share,
        "max_grad_norm": paper.max_grad_norm,
        "seed": paper.seed,
    }
