"""What a benchmark runs on: a one-line description of the machine, and the rows."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from simulsa.demo.speech import DATA
from simulsa.manifest import Utterance, read_manifest


def machine() -> str:
    """Cores, threads, Python, torch, and the accelerator if there is one."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, {device}"
    )


def rows_of(manifest: Path | None, count: int) -> list[Utterance]:
    """The first rows of a manifest, by default the demo's bundled test set."""
    return read_manifest(manifest or DATA / "test.jsonl")[:count]
