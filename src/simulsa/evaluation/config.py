"""The settings of evaluation; the defaults are those of the paper's main table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from simulsa.evaluation.comet import COMMAND, check_comet
from simulsa.lalm.interface import LALM
from simulsa.loading import BatchSize, OnError, Processes, check_processes, rows_for
from simulsa.settings import check_choices, check_number, check_whole_numbers
from simulsa.streaming.config import StreamConfig, check_chunk_ms
from simulsa.streaming.policies import Policy, Rollback

ROLLBACKS = (0, 3, 5)  # the paper's

_GPU_ROWS = 32  # as many as fit the static cache of a 7 B model

Setting = tuple[float, Policy]
"""A chunk size in ms and a policy."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Which settings to measure, and how. The defaults are the grid of the paper's table 1 (arXiv 2509.15692)."""

    chunk_ms: tuple[float, ...] = (500, 1000, 1500, 2000, math.inf)
    """k: milliseconds of new audio between two hypotheses; `inf` is offline translation"""
    rollback: tuple[int, ...] = ()
    """b: number of tokens at the end of each hypothesis that stay tentative; shorthand for the policies `rollback:b`, by default
    0 3 5"""
    out: Path | None = None
    """folder for scores, instance logs, table and plot; an interrupted evaluation resumes there"""
    batch_size: BatchSize = "auto"
    """maximum utterances advanced together, fewer where they are long; `auto`: 16 on a CPU, 32 on a GPU; with 1,
    computation-aware latency is measured as well"""
    drafts: bool = True
    """verify the last hypothesis in one forward pass instead of decoding it again (never changes the output)"""
    encoder_cache_mib: float = 1024
    """size of the encoder cache, which keeps encoder outputs across settings; never changes the output"""
    workers: Processes = "auto"
    """processes that load and prepare audio beside the model; `auto`: 0 on a CPU, up to 8 on a GPU; never changes the output"""
    overwrite: bool = False
    """start over even if the folder holds another evaluation"""
    on_error: OnError = "fail"
    """on a row whose audio is broken or too long: `fail`, or `skip` it with a warning"""
    preflight: bool = True
    """first check that the model hears and that batches equal single rows (takes seconds)"""
    policy: tuple[Policy, ...] = ()
    """commit policies, such as `local-agreement:2` or `wait-k:3,1` (docs/policies.md); excludes `rollback`"""
    comet: str = ""
    """name of a COMET or xCOMET model, such as Unbabel/wmt22-comet-da, which scores every setting in the folder; needs --out and
    rows with source_text"""
    comet_command: str = COMMAND
    """how to run unbabel-comet's comet-score in an environment of its own; options such as --gpus 0 may follow"""

    def __post_init__(self) -> None:
        for name, least in (("chunk_ms", 1), ("rollback", 0), ("policy", 0)):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)) or len(values) < least:
                raise ValueError(f"{name} is {values!r}; it must be a list" + " of at least one value" * least)
        # YAML's infinity is neither JSON nor what people write: "inf" arrives as text
        object.__setattr__(self, "chunk_ms", tuple(float(chunk_ms) for chunk_ms in self.chunk_ms))
        object.__setattr__(self, "out", None if self.out is None else Path(self.out))
        for chunk_ms in self.chunk_ms:
            check_chunk_ms(chunk_ms)
        for rollback in self.rollback:
            Rollback(rollback)
        for policy in self.policy:
            StreamConfig(policy=policy)
        if self.rollback and self.policy:
            raise ValueError(
                f"rollback is {' '.join(map(str, self.rollback))} and policy is {' '.join(map(str, self.policy))}; give one of "
                f"them: a rollback is the policy rollback:{self.rollback[0]}"
            )
        check_number(self, "encoder_cache_mib", lambda value: value >= 0, "0 or more")
        check_processes(self.workers)
        if self.batch_size != "auto":
            check_whole_numbers(self, {"batch_size": 1})
        check_choices(self)
        if self.comet and self.out is None:
            raise ValueError(f"comet is {self.comet!r}, which keeps its scores in the folder: give --out FOLDER")
        if self.comet:
            check_comet(self.comet, self.comet_command)

    def rows_together(self, lalm: LALM) -> int:
        """The batch size for a model, depending on its device."""
        return rows_for(self.batch_size, lalm.device, _GPU_ROWS)

    @property
    def grid(self) -> list[Setting]:
        """Every chunk size with every policy, each once."""
        policies = self.policy or [Rollback(tokens) for tokens in self.rollback or ROLLBACKS]
        return list(dict.fromkeys((chunk_ms, policy) for policy in policies for chunk_ms in self.chunk_ms))
