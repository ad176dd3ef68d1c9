"""The settings of augmentation; the defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from simulsa.audio import ms_to_samples
from simulsa.augmentation.speculation import Criterion
from simulsa.augmentation.truncation import CutRange, Truncation
from simulsa.loading import BatchSize, OnError, Processes, check_processes, rows_for
from simulsa.settings import check_choices, check_whole_numbers

if TYPE_CHECKING:
    import torch

_GPU_ROWS = 64
MIN_CUT_MS = 40  # shorter clips crash some feature extractors
GRID_MS = 500  # spacing of the cut points of `beta-decay-discrete`, counted from min_ms


@dataclass(frozen=True)
class AugmentConfig:
    """Settings of `augment`, which makes simultaneous rows from offline ones."""

    num: int = 3000
    """M: number of rows to make"""
    truncation: Truncation = "beta-decay"
    """distribution of cut points: Beta(1, 3) or uniform over [min-ms, max-ms], over the full duration, or on a grid of 500 ms"""
    criterion: Criterion = "probability"
    """when a token is plausible: by `probability` (at least tau) or by `rank` (below tau times the vocabulary size)"""
    tau: float | Literal["auto"] = "auto"
    """plausibility threshold for keeping a target token; `auto` is 100 / vocabulary size"""
    whole_words: bool = False
    """never keep part of a word"""
    min_ms: float = 500
    """l: earliest cut; utterances that are not longer are skipped"""
    max_ms: float = 5000
    """r: latest cut"""
    seed: int = 0
    """random seed for choosing rows and cut points"""
    batch_size: BatchSize = "auto"
    """maximum utterances per pass, fewer where they are long; `auto`: 16 on a CPU, 64 on a GPU; does not change the rows"""
    workers: Processes = "auto"
    """processes that load and prepare audio beside the model; `auto`: 0 on a CPU, up to 8 on a GPU; does not change the rows"""
    on_error: OnError = "fail"
    """on a row with broken audio: `fail`, or `skip` it and use another row"""
    preflight: bool = True
    """first check that the model hears and that batches equal single rows (takes seconds)"""
    accept_approximate: bool = False
    """make rows even if the model's scores are approximate, as an engine's may be; the rows record it"""
    overwrite: bool = False
    """start over even if the output, or the journal of another run, exists"""

    def __post_init__(self) -> None:
        check_whole_numbers(self, {"num": 1, "seed": 0})
        if self.batch_size != "auto":
            check_whole_numbers(self, {"batch_size": 1})
        check_processes(self.workers)
        check_choices(self)
        if self.tau != "auto" and (isinstance(self.tau, str) or not 0 < self.tau <= 1):
            raise ValueError(f"tau is {self.tau!r}; it must be above 0 and at most 1, or 'auto' (100 / vocabulary size)")
        if not self.min_ms >= MIN_CUT_MS:  # also refuses NaN
            raise ValueError(f"min_ms is {self.min_ms}; it must be {MIN_CUT_MS} or more")
        if not self.min_ms < self.max_ms < float("inf"):
            raise ValueError(
                f"max_ms is {self.max_ms} and min_ms {self.min_ms}; max_ms must be larger, and a number "
                "(to cut anywhere, use truncation 'beta-decay-full')"
            )

    def rows_per_pass(self, device: torch.device | None) -> int:
        """The batch size for a model on `device`."""
        return rows_for(self.batch_size, device, _GPU_ROWS)

    @property
    def cut_range(self) -> CutRange:
        """l, r and the grid step in samples."""
        return CutRange(ms_to_samples(self.min_ms), ms_to_samples(self.max_ms), ms_to_samples(GRID_MS))
