"""Numbers that the tests measure again: both bundled models on bundled sentences. eSpeak NG never speaks a text twice the same
way, so two runs on captions that it speaks differ by a point of BLEU.

python -m recipes.experiments.subset --out docs/results
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from recipes.command import run
from recipes.experiments.records import Record, record, write_records
from simulsa.demo.speech import DATA
from simulsa.evaluation.config import EvaluateConfig
from simulsa.evaluation.evaluate import evaluate
from simulsa.lalm.load import load
from simulsa.manifest import read_manifest

MODELS = ("tiny-en-de", "tiny-en-de-simul")
CHUNKS_MS = (500.0, math.inf)
SENTENCES = 100


@dataclass(frozen=True)
class SubsetConfig:
    """Where the results go."""

    out: Path = Path("docs/results")
    """folder for subset.csv"""


def measured(model: str) -> list[Record]:
    """A bundled model on the first bundled test sentences, without rollback, in float32 as on a user's CPU."""
    rows = read_manifest(DATA / "test.jsonl")[:SENTENCES]
    settings = EvaluateConfig(CHUNKS_MS, (0,), batch_size=48, preflight=False)
    scores = evaluate(load(model, device="cpu", dtype="float32"), rows, settings).scores
    return [record(score, "bundled", model, seed=0) for score in scores]


def measure(config: SubsetConfig) -> None:
    """Measure both models and write the file."""
    records = [one for model in MODELS for one in measured(model)]
    write_records(config.out / "subset.csv", records)


if __name__ == "__main__":
    run(measure, SubsetConfig, __doc__)
