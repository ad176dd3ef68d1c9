"""The settings of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DemoConfig:
    """How much of the bundled speech to use, and how long to tune the model."""

    out: Path = Path("demo-out")
    """output folder"""
    test_rows: int = 120
    """number of test sentences, at most 120"""
    train_rows: int = 680
    """number of offline training sentences, at most 680"""
    augmented_rows: int = 340
    """how many of these are also truncated and added as simultaneous rows"""
    epochs: float = 3.0
    """passes over the rows"""
    bundled: bool = False
    """skip augmentation and training: compare with the bundled simultaneous model, in about a minute"""
    overwrite: bool = False
    """start over even if the folder holds a run"""
