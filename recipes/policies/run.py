"""Every policy on the embedded models: what they pay in latency for how much quality.

    python -m recipes.policies.run --data ../shared/data/multi30k --work .policies --out docs/results/policies

The base with policies that need no training against the SimulSA model with the same ones, on sentences of test_2016_flickr spoken
by voices that neither has heard. It resumes; a setting that is there already is not measured again.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from recipes.command import run
from recipes.tiny.experiments.corpus import TEST, unseen_rows
from simulsa.evaluation.evaluate import EvaluateConfig, evaluate
from simulsa.lalm.load import load

MODELS = ("tiny-en-de", "tiny-en-de-simul")
POLICIES = (
    *("eos", "rollback:3", "rollback:5", "rollback:8"),
    *("local-agreement:2", "local-agreement:3"),
    *("wait-k:2,1", "wait-k:4,1", "wait-k:2,3", "wait-k:1,5"),
    *("alignatt:2", "alignatt:4", "alignatt:8", "alignatt:16"),
    *("confidence:0.3", "confidence:0.5", "confidence:0.7"),
)
CHUNKS_MS = (500.0, 1000.0, 2000.0, math.inf)


@dataclass(frozen=True)
class PoliciesConfig:
    """On what, and where the results go."""

    data: Path = Path("../shared/data/multi30k")
    """folder with the Multi30k captions"""
    work: Path = Path(".policies")
    """folder for speech and evaluations"""
    out: Path = Path("docs/results/policies")
    """folder for table and figure"""
    limit: int | None = 200
    """how many sentences"""
    batch_size: int = 16
    """utterances that advance together"""


def measure(config: PoliciesConfig) -> list[Path]:
    """Evaluate every model with every policy; returns the folder of each model."""
    rows = unseen_rows(config.data, config.work, TEST, config.limit)
    folders = []
    for model in MODELS:
        folder = config.work / "scores" / model
        settings = EvaluateConfig(
            chunk_ms=CHUNKS_MS,
            policy=POLICIES,
            out=folder,
            batch_size=config.batch_size,
            on_error="skip",
            preflight=False,
        )
        evaluate(load(model, device="cpu", dtype="float32"), rows, settings)
        folders.append(folder)
    return folders


def main(config: PoliciesConfig) -> None:
    """Measure and show."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    measure(config)


if __name__ == "__main__":
    run(main, PoliciesConfig, __doc__)
