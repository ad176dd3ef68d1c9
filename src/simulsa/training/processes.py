"""The processes of one training run, started by torchrun or `accelerate launch`; a plain run is a single process."""

from __future__ import annotations

import os

import torch

from simulsa.lalm.interface import LALMError
from simulsa.training.config import TrainConfig
from simulsa.training.examples import TrainError


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def count_here() -> int:
    """How many of the training processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes files and logs."""
    return int(os.environ.get("RANK", "0")) == 0


def join(device: torch.device) -> None:
    """Initialise the process group, once. Raises `LALMError` for a model on another process's GPU."""
    own = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda" and device.index not in (None, own):
        raise LALMError(
            f"the model is on {device} and this process trains on GPU {own}; use --device auto, and CUDA_VISIBLE_DEVICES to "
            "choose GPUs"
        )
    if count() > 1:
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu")


def wait() -> None:
    """Wait until all processes have reached this point."""
    if count() > 1:
        torch.distributed.barrier()


def accumulation_steps(config: TrainConfig) -> int:
    """Forward passes per optimiser step in each process. Raises `TrainError` when a step's rows cannot be split evenly."""
    together = config.micro_batch_size * count()
    if config.batch_size % together:
        raise TrainError(
            f"batch_size is {config.batch_size}, micro_batch_size {config.micro_batch_size}, and there are {count()} processes; "
            f"micro_batch_size times the processes, {together}, must divide batch_size"
        )
    return config.batch_size // together
