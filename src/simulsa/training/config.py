"""Settings of training; defaults are the paper's where it gives any."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simulsa.loading import OnError, Processes, check_processes
from simulsa.settings import check_choices, check_number, check_whole_numbers

Scheduler = Literal["cosine", "linear", "constant_with_warmup"]
Switch = Literal["auto", "on", "off"]

# given in arXiv 2509.15692; the other defaults are this project's
PAPER_SETTINGS = ("lora_r", "lora_alpha", "learning_rate", "weight_decay", "batch_size", "epochs")
# the settings that determine the weights; a run may be resumed with the others changed
DECISIVE_SETTINGS = (
    *PAPER_SETTINGS,
    *("lora_dropout", "self_distillation", "warmup_share", "lr_scheduler", "max_grad_norm", "length_grouping"),
    *("mixed_precision", "seed"),
)


@dataclass(frozen=True)
class TrainConfig:
    """How to train an adapter on offline and simultaneous rows."""

    out: Path = Path("adapter")
    """folder for the adapter, its log and its checkpoints; an interrupted training resumes there"""
    lora_r: int = 8
    """rank of the LoRA matrices"""
    lora_alpha: float = 32
    """scale of the LoRA update, which is alpha / r times the product of the matrices"""
    lora_dropout: float = 0.0
    """dropout probability of the inputs of LoRA layers"""
    self_distillation: float = 0.0
    """share of the offline rows' loss that targets the base model's probabilities instead of the reference; 1 uses no
    reference"""
    learning_rate: float = 1e-4
    """AdamW's peak learning rate"""
    weight_decay: float = 0.1
    """AdamW's weight decay"""
    batch_size: int = 128
    """rows per optimiser step"""
    micro_batch_size: int = 8
    """rows per forward pass and process, a divisor of batch-size; changes memory and speed, not the result"""
    epochs: float = 2
    """passes over the rows; the paper uses the second epoch's checkpoint"""
    warmup_share: float = 0.05
    """share of the optimiser steps spent on learning-rate warm-up"""
    lr_scheduler: Scheduler = "cosine"
    """decay of the learning rate after the warm-up"""
    max_grad_norm: float = 1.0
    """gradient norm to clip to; 0 turns clipping off"""
    length_grouping: bool = False
    """length bucketing: put offline rows of similar length into each batch, for less padding and time"""
    seed: int = 0
    """random seed for LoRA weights, row order and dropout"""
    save_every_steps: int = 50
    """optimiser steps between checkpoints"""
    logging_every_steps: int = 10
    """optimiser steps per value of the loss curve, each the mean over its steps"""
    encoder_cache_mib: float = 1024
    """size of the encoder cache, which keeps encoder outputs of as many rows as it holds across epochs; never changes the
    result"""
    mixed_precision: bool = False
    """compute a float32 model's matrix products in bfloat16 (PyTorch's autocast): faster on processors that support it, many
    times slower on others (with a warning); a bfloat16 model on a GPU is always trained so"""
    workers: Processes = "auto"
    """processes that load and prepare audio beside the model; `auto`: 0 on a CPU, up to 8 on a GPU; never changes the result"""
    compile: Switch = "auto"
    """compile the decoder layers, which takes up to a minute at the start; `auto`: on a GPU"""
    gradient_checkpointing: Switch = "auto"
    """recompute activations instead of storing them: less memory, about a third more time; `auto`: on a GPU whose free memory
    the largest pass would not fit into"""
    on_error: OnError = "fail"
    """on a row with broken or too long audio: `fail`, or `skip` it"""
    preflight: bool = True
    """first check that the model hears and that batches equal single rows (takes seconds)"""
    overwrite: bool = False
    """start over even if the folder holds another training run"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", Path(self.out))  # YAML and scripts pass strings
        counted = ("lora_r", "batch_size", "micro_batch_size", "save_every_steps", "logging_every_steps")
        check_whole_numbers(self, {**dict.fromkeys(counted, 1), "seed": 0})
        for name in ("lora_alpha", "learning_rate", "epochs"):
            check_number(self, name, lambda value: value > 0, "above 0")
        for name in ("weight_decay", "max_grad_norm", "encoder_cache_mib"):
            check_number(self, name, lambda value: value >= 0, "0 or more")
        check_number(self, "self_distillation", lambda value: 0 <= value <= 1, "from 0 to 1")
        for name in ("lora_dropout", "warmup_share"):
            check_number(self, name, lambda value: 0 <= value < 1, "0 or more and below 1")
        check_processes(self.workers)
        check_choices(self)
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size is {self.micro_batch_size} and batch_size {self.batch_size}; micro_batch_size must divide "
                f"batch_size: use {self.smaller_micro_batch()}, for example"
            )

    def smaller_micro_batch(self) -> int:
        """The largest divisor of `batch_size` below `micro_batch_size`; 0 if there is none."""
        return max((size for size in range(1, self.micro_batch_size) if self.batch_size % size == 0), default=0)

    def compiles(self, device: str) -> bool:
        """Whether the decoder layers are compiled for a model on a device of this type."""
        return self.compile == "on" or (self.compile == "auto" and device == "cuda")

    def passed_rows(self, rows: int) -> int:
        """How many rows a `grouped_order` of `rows` rows has over all epochs."""
        return math.ceil(self.epochs * rows)

    def optimiser_steps(self, rows: int) -> int:
        """How many optimiser steps a training on `rows` rows takes; an epoch's last step may have fewer rows."""
        if self.length_grouping:  # epochs follow each other without a smaller last step
            return math.ceil(self.passed_rows(rows) / self.batch_size)
        return math.ceil(self.epochs * math.ceil(rows / self.batch_size))

    def origins(self) -> dict[str, str]:
        """Where each setting comes from, by name: `paper`, `default`, or `changed` with the original value."""
        return {field.name: self._origin(field.name, field.default) for field in dataclasses.fields(self)}

    def _origin(self, name: str, default: object) -> str:
        source = "paper" if name in PAPER_SETTINGS else "default"
        return source if getattr(self, name) == default else f"changed, {source}: {default}"
