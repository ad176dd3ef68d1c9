"""`simulsa train`: fine-tune on offline and simultaneous rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulsa.commands.parsing import parse, show_log
from simulsa.extras import require
from simulsa.lalm.load import ModelConfig
from simulsa.training.config import TrainConfig


@dataclass(frozen=True)
class Train:
    """Fine-tune a LoRA adapter on the mix of offline and simultaneous rows, in one stage."""

    offline: Path
    """offline rows (.jsonl)"""
    augmented: tuple[Path, ...] = ()
    """simultaneous rows written by `simulsa augment` (.jsonl, one or more); without them this is plain fine-tuning"""
    model: ModelConfig = field(default_factory=ModelConfig)
    settings: TrainConfig = field(default_factory=TrainConfig)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Train, arguments, "train")
    require("training", "train")
    from simulsa.manifest import read_manifest
    from simulsa.training import processes
    from simulsa.training.train import train

    if processes.is_main():
        show_log()
    rows = [row for path in (command.offline, *command.augmented) for row in read_manifest(path)]
    lalm = command.model.load_weights()
    train(lalm, rows, command.settings)
