"""What a benchmark ran on, in one line."""

from __future__ import annotations

import os
import platform

import torch


def machine() -> str:
    """Cores, threads, Python, torch, and the accelerator if there is one."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, {device}"
    )
