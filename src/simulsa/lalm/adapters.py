"""Adapter folders: what their records say of base and training, and whether a base is the right one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulsa import strict_json
from simulsa.lalm.interface import LALMError
from simulsa.lalm.parts import (
    ADAPTER_CONFIG,
    RECORD,
    local_folder,
    read_adapter_config,
    read_record,
    trained_directions,
    with_instruction,
)
from simulsa.lalm.signature import earlier_signature, folder_signature, text_signature, weights_part
from simulsa.languages import Direction

logger = logging.getLogger("simulsa")


@dataclass(frozen=True)
class Adapter:
    """An adapter folder, under the `name` it was asked for; `record` is empty if other tools made it."""

    name: str
    folder: Path
    base: str
    """name of the base model"""
    record: dict[str, Any]

    @property
    def instruction(self) -> str:
        """The user's own instruction that the adapter was trained with; empty if there was none."""
        return str(self.record.get("instruction", ""))

    @property
    def directions(self) -> list[Direction]:
        """What the adapter was trained to translate, the most frequent first; empty if that is unknown."""
        return trained_directions(self.record)

    def content(self, base: str, instruction: str) -> str:
        """`name@digits` of the adapter on a base with the content `base`, prompted with `instruction` (empty: its own).

        Raises `LALMError` if the adapter was trained on another base.
        """
        digits = folder_signature(self.folder)
        if self.record:
            self._check_base(base)
        else:  # without a record, nothing shows which base it was trained on
            digits = text_signature([digits, weights_part(base)])
        if instruction not in ("", self.instruction):
            digits = with_instruction(digits, instruction)
        return f"{self.name}@{digits}"

    def _check_base(self, base: str) -> None:
        """Raise `LALMError` unless the adapter was trained on these weights, in whatever number format or quantisation."""
        trained_on = weights_part(self.record["base_signature"])
        if trained_on == weights_part(base):
            return
        folder = local_folder(self.base)
        if folder is not None and trained_on == with_instruction(earlier_signature(folder), self.instruction):
            logger.warning(
                "%s: its record identifies its base by the first MiB of each weight file, which other fine-tunes may share; if "
                '%s is that base, write "base_signature": "%s" into %s. The next release will not accept the record as it is',
                self.name, self.base, base, RECORD,
            )  # fmt: skip
            return
        raise LALMError(
            f"{self.name}: the adapter was trained on {self.record['base_signature']} and {self.base!r} is now {base}; "
            "restore that base, or train the adapter again"
        )


def adapter_at(model: str) -> Adapter | None:
    """The adapter that a name stands for; `None` for a whole model. Raises `LALMError` if nothing names its base."""
    folder = local_folder(model)
    # some models come with an adapter of their own
    if folder is None or not (folder / ADAPTER_CONFIG).exists() or (folder / "config.json").exists():
        return None
    record = read_record(folder)
    return Adapter(model, folder, str(record["base_model"]) if record else _configured_base(folder), record)


def _configured_base(folder: Path) -> str:
    """The base that PEFT's configuration names."""
    base = read_adapter_config(folder).get("base_model_name_or_path")
    if not base:
        raise LALMError(
            f"{folder}: its {ADAPTER_CONFIG} names no base model (base_model_name_or_path is {strict_json.dumps(base)}); "
            "write there the id or the folder of the model that it was trained on"
        )
    return str(base)
