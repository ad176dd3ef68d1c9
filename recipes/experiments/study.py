"""A study: several systems, measured on the same sentences, as records and as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recipes.experiments.corpus import TEST
from recipes.experiments.records import Record, cell, of_setting, record
from recipes.experiments.systems import System
from recipes.experiments.workers import Job, LabConfig, run_jobs

CHUNKS_MS = (500.0, 1000.0, 2000.0, math.inf)
NAMES = {500.0: "k = 500", 1000.0: "k = 1000", 2000.0: "k = 2000", math.inf: "offline"}
POLICIES = ("rollback:0",)  # the model alone decides


@dataclass(frozen=True)
class StudyConfig:
    """How large a study is, and where its tables and figures go."""

    lab: LabConfig = field(default_factory=lambda: LabConfig(test_limit=300))
    out: Path = Path("docs/results")
    """folder for the results"""
    seeds: tuple[int, ...] = (0,)
    """seeds of cuts and training"""


@dataclass(frozen=True)
class Subject:
    """A system and how it is measured."""

    system: System
    policies: tuple[str, ...] = POLICIES
    chunks_ms: tuple[float, ...] = CHUNKS_MS


def study(config: StudyConfig, subjects: Sequence[Subject]) -> list[Record]:
    """Build and measure all subjects."""
    jobs = [
        Job(subject.system, seed, (TEST,), subject.chunks_ms, subject.policies) for subject in subjects for seed in config.seeds
    ]
    run_jobs(config.lab, jobs)
    return list(_records(config, jobs))


def bleu(records: Sequence[Record], system: System, chunk_ms: float, policy: str = POLICIES[0]) -> float:
    """The mean BLEU of one setting of a system."""
    return cell(of_setting(records, system.name, chunk_ms, policy)).bleu


def _records(config: StudyConfig, jobs: Sequence[Job]) -> Iterator[Record]:
    lab, test = config.lab.open(), config.lab.test(TEST)
    for job in jobs:
        scores, _ = lab.measured(job.system, job.seed, test, job.chunks_ms, job.policies)
        yield from (record(score, TEST, job.system.name, job.seed) for score in scores)
