"""Numbers that the tests measure again: both embedded models on captions by eSpeak NG, which any machine can speak.

python -m recipes.experiments.subset --data ../shared/data/multi30k --work .experiments --out docs/results
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from recipes.base.testsets import spoken_split
from recipes.base.voices import ESPEAK
from recipes.command import run
from recipes.experiments.corpus import TEST
from recipes.experiments.records import Record, record, write_records
from simulsa.evaluation.evaluate import EvaluateConfig, evaluate
from simulsa.lalm.load import load

MODELS = ("tiny-en-de", "tiny-en-de-simul")
CHUNKS_MS = (500.0, math.inf)
SENTENCES = 100


@dataclass(frozen=True)
class SubsetConfig:
    """On what, and where the results go."""

    data: Path = Path("../shared/data/multi30k")
    """folder with Multi30k's captions"""
    work: Path = Path(".experiments")
    """folder of the spoken captions"""
    out: Path = Path("docs/results")
    """folder for subset.csv"""


def measured(model: str, data: Path, work: Path) -> list[Record]:
    """An embedded model on the first captions of the test set, without rollback, in float32 as a user's CPU has it."""
    rows = spoken_split(data, TEST, ESPEAK, SENTENCES, Path(), work / "test")  # without assets: eSpeak NG is a package
    settings = EvaluateConfig(CHUNKS_MS, (0,), batch_size=48, preflight=False)
    scores = evaluate(load(model, device="cpu", dtype="float32"), rows, settings).scores
    return [record(score, TEST, model, seed=0) for score in scores]


def measure(config: SubsetConfig) -> None:
    """Measure both models and write the file."""
    records = [one for model in MODELS for one in measured(model, config.data, config.work)]
    write_records(config.out / "subset.csv", records)


if __name__ == "__main__":
    run(measure, SubsetConfig, __doc__)
