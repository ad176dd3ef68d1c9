"""The settings of augmentation; the defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from simulsa.audio import ms_to_samples
from simulsa.augmentation.speculation import CRITERIA, Criterion
from simulsa.augmentation.truncation import TRUNCATIONS, CutRange, Truncation
from simulsa.settings import check_whole_numbers

MIN_CUT_MS = 40  # shorter clips crash some feature extractors


@dataclass(frozen=True)
class AugmentConfig:
    """How simultaneous rows are made from offline ones."""

    num: int = 3000
    """M: how many rows to make"""
    truncation: Truncation = "beta-decay"
    """how cuts are drawn: Beta(1, 3) or uniform over [min-ms, max-ms], over the full duration, or on a grid"""
    criterion: Criterion = "probability"
    """a token is plausible by its `probability` (at least tau), its `rank` (below tau times the vocabulary), or in `contrast`
    with the whole audio (at least tau times its probability there)"""
    tau: float | Literal["auto"] = "auto"
    """plausibility that a target token needs to be kept; `auto` is 100 / vocabulary size, for contrast 0.5"""
    whole_words: bool = False
    """keep no part of a word"""
    hold_back: int = 0
    """of the tokens that are plausible, leave off the last so many: the model learns to wait, as rollback would make it"""
    min_ms: float = 500
    """l: the earliest cut; utterances that are not longer are left out"""
    max_ms: float = 5000
    """r: the latest cut"""
    grid_ms: float = 500
    """distance between the cut points of `beta-decay-discrete`, counted from min-ms"""
    seed: int = 0
    """seed of the choice of rows and of the cuts"""
    batch_size: int = 16
    """utterances in one forward pass; does not change the rows"""
    on_error: Literal["fail", "skip"] = "fail"
    """what a row with broken audio does: end the run, or give way to another row"""
    preflight: bool = True
    """check first that the model hears and that batches equal single rows (seconds)"""
    accept_approximate: bool = False
    """make rows although the model's scores are approximate, as those of an engine may be; the rows say so"""
    overwrite: bool = False
    """start again although the output exists or another run's journal lies beside it"""

    def __post_init__(self) -> None:
        check_whole_numbers(self, {"num": 1, "batch_size": 1, "seed": 0, "hold_back": 0})
        _check_name("truncation", self.truncation, TRUNCATIONS)
        _check_name("criterion", self.criterion, CRITERIA)
        _check_name("on_error", self.on_error, ("fail", "skip"))
        if self.tau != "auto" and (isinstance(self.tau, str) or not 0 < self.tau <= 1):
            raise ValueError(f"tau is {self.tau!r}; it must be above 0 and at most 1, or 'auto' (100 / vocabulary size)")
        if not self.min_ms >= MIN_CUT_MS:  # also refuses NaN
            raise ValueError(f"min_ms is {self.min_ms}; it must be {MIN_CUT_MS} or more")
        if not self.min_ms < self.max_ms < float("inf"):
            raise ValueError(
                f"max_ms is {self.max_ms} and min_ms {self.min_ms}; max_ms must be larger, and a number "
                "(to cut anywhere, use truncation 'beta-decay-full')"
            )
        if not 1 <= self.grid_ms < float("inf"):
            raise ValueError(f"grid_ms is {self.grid_ms}; it must be 1 or more")

    @property
    def cut_range(self) -> CutRange:
        """l, r and the grid step in samples."""
        return CutRange(ms_to_samples(self.min_ms), ms_to_samples(self.max_ms), ms_to_samples(self.grid_ms))


def _check_name(setting: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{setting} is {value!r}; it must be one of {', '.join(known)}")
