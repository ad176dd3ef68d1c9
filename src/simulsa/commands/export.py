"""`simulsa export`: rows for other trainers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulsa.commands.parsing import parse, show_log
from simulsa.integrations.export import ExportConfig


@dataclass(frozen=True)
class Export:
    """Export offline and simultaneous rows for ms-swift, LLaMA-Factory or Hugging Face datasets."""

    offline: Path
    """offline rows (.jsonl)"""
    out: Path
    """output folder for rows, audio and trainer settings"""
    augmented: tuple[Path, ...] = ()
    """simultaneous rows written by `simulsa augment` (.jsonl, one or more)"""
    settings: ExportConfig = field(default_factory=ExportConfig)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Export, arguments, "export")
    show_log()
    from simulsa.integrations.export import export
    from simulsa.manifest import read_manifest

    rows = [row for path in (command.offline, *command.augmented) for row in read_manifest(path)]
    export(rows, command.out, command.settings)
