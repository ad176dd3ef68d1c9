"""`simulsa augment`: simultaneous training rows from offline ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulsa.augmentation.config import AugmentConfig
from simulsa.commands.parsing import parse, show_log, with_default
from simulsa.extras import require
from simulsa.integrations.ray import LOCAL_CLUSTER, RayConfig, workers_of
from simulsa.lalm.load import ModelConfig


@dataclass(frozen=True)
class Augment:
    """Truncate utterances at random points and keep the part of the translation that the model finds supported."""

    manifest: Path
    """offline rows (.jsonl)"""
    out: Path
    """output manifest of simultaneous rows (.jsonl); a histogram is written beside it (.png)"""
    model: ModelConfig = field(default_factory=ModelConfig)
    settings: AugmentConfig = field(default_factory=AugmentConfig)
    cluster: RayConfig = field(default_factory=RayConfig)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Augment, with_default(arguments, "--ray", LOCAL_CLUSTER), "augment")
    require("augmentation", "train")
    show_log()
    from simulsa.augmentation.augment import augment
    from simulsa.manifest import read_manifest

    rows = read_manifest(command.manifest)
    lalm = command.model.load()
    augment(rows, lalm, command.settings, command.out, workers_of(command.cluster, command.model))
