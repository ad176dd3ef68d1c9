"""The demo run: evaluate, augment, train, evaluate again, report."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simulsa.augmentation.augment import augment
from simulsa.augmentation.config import AugmentConfig
from simulsa.augmentation.speculation import resolve_tau
from simulsa.demo.config import DemoConfig
from simulsa.demo.report import write_report
from simulsa.demo.speech import DATA
from simulsa.demo.timeline import committed_lane, plot_timeline, spoken_lane
from simulsa.evaluation.compare import compare
from simulsa.evaluation.config import EvaluateConfig
from simulsa.evaluation.evaluate import evaluate
from simulsa.evaluation.instances import log_name, read_instances
from simulsa.evaluation.report import Evaluations
from simulsa.lalm.load import load
from simulsa.lalm.preflight import preflight
from simulsa.manifest import Utterance, read_manifest
from simulsa.streaming.policies import Rollback
from simulsa.training.config import TrainConfig
from simulsa.training.train import train

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

BASE, SIMULTANEOUS = "tiny-en-de", "tiny-en-de-simul"
CHUNKS_MS = (500.0, 1000.0, 2000.0, math.inf)
ROLLBACKS = (0, 3)
LEARNING_RATE = 5e-4  # a model this small takes larger steps than the paper's of 7 B
BATCH_SIZE = 16  # rows per optimiser step
TIMELINE_CHUNK_MS, TIMELINE_POLICY = 500.0, Rollback(0)  # a setting of the grid

logger = logging.getLogger("simulsa")


@dataclass(frozen=True)
class DemoResult:
    """What the demo produced."""

    table: str
    """both models' scores in Markdown, as `compare` writes them"""
    tuned: HuggingFaceLALM
    example: Utterance
    seconds: float


def run_demo(config: DemoConfig) -> DemoResult:
    """Run the whole method; an interrupted run continues where it stopped. Writes `report.html` at the end."""
    started = time.monotonic()
    test = read_manifest(DATA / "test.jsonl")[: config.test_rows]
    offline = read_manifest(DATA / "train.jsonl")[: config.train_rows]
    base = load(BASE, device="cpu")
    logger.info("1/5 preflight: does the model hear, and is its decoding exact?")
    preflight(base)
    logger.info("2/5 measuring the model as it is on %d sentences", len(test))
    before = evaluate(base, test, _evaluate_config(config, "before"))
    tuned = load(SIMULTANEOUS, device="cpu") if config.bundled else _tuned(base, offline, config)
    logger.info("5/5 measuring again")
    after_name = "bundled" if config.bundled else "after"
    after = evaluate(tuned, test, _evaluate_config(config, after_name))
    table = compare([config.out / "before", config.out / after_name], config.out / "comparison")
    example = _example(test, config.out / "before")
    seconds = time.monotonic() - started
    _report(config, {"before": before.scores, after_name: after.scores}, base, tuned, example, seconds)
    return DemoResult(table, tuned, example, seconds)


def _tuned(base: HuggingFaceLALM, offline: Sequence[Utterance], config: DemoConfig) -> HuggingFaceLALM:
    logger.info("3/5 making %d simultaneous rows from %d offline ones", config.augmented_rows, len(offline))
    augmented = augment(offline, base, _augment_config(config), config.out / "augmented.jsonl")
    logger.info("4/5 fine-tuning on %d offline and %d simultaneous rows", len(offline), len(augmented))
    settings = TrainConfig(
        out=config.out / "adapter",
        learning_rate=LEARNING_RATE,
        batch_size=BATCH_SIZE,
        micro_batch_size=BATCH_SIZE,
        epochs=config.epochs,
        preflight=False,
        overwrite=config.overwrite,
    )
    return train(base, [*offline, *augmented], settings)


def _evaluate_config(config: DemoConfig, name: str) -> EvaluateConfig:
    return EvaluateConfig(
        chunk_ms=CHUNKS_MS, rollback=ROLLBACKS, out=config.out / name, batch_size=40, preflight=False, overwrite=config.overwrite
    )


def _augment_config(config: DemoConfig) -> AugmentConfig:
    return AugmentConfig(num=config.augmented_rows, preflight=False, overwrite=config.overwrite)


def _example(test: Sequence[Utterance], before: Path) -> Utterance:
    """Of the longer half of the sentences, the one that the base model translates best offline (by chrF).

    The figure shows when words appear, which a misrecognised sentence would obscure.
    """
    from sacrebleu.metrics import CHRF

    chrf = CHRF()
    longer = {row.id: row for row in sorted(test, key=lambda row: row.duration_s or 0.0)[len(test) // 2 :]}
    offline = [item for item in read_instances(before / log_name(math.inf, Rollback(0))) if item.id in longer]
    best = max(offline, key=lambda item: chrf.sentence_score(item.prediction, [item.reference]).score)
    return longer[best.id]


def _report(
    config: DemoConfig,
    evaluations: Evaluations,
    base: HuggingFaceLALM,
    tuned: HuggingFaceLALM,
    example: Utterance,
    seconds: float,
) -> None:
    timeline = config.out / "timeline.png"
    lanes = [spoken_lane(example)]
    for name in evaluations:
        instances = read_instances(config.out / name / log_name(TIMELINE_CHUNK_MS, TIMELINE_POLICY))
        lanes.append(committed_lane(name, next(instance for instance in instances if instance.id == example.id)))
    plot_timeline(lanes, example.duration_s or 0.0, timeline)
    facts = {
        "base model": base.signature,
        "tuned model": tuned.signature,
        **({} if config.bundled else _training_facts(config, base)),
        "timeline": f"k = {TIMELINE_CHUNK_MS:g} ms, {TIMELINE_POLICY.label}",
        "time": f"{seconds / 60:.1f} minutes",
    }
    pictures = {"quality_latency": config.out / "comparison" / "quality-latency.png", "timeline": timeline}
    write_report(config.out / "report.html", evaluations, pictures, facts)


def _training_facts(config: DemoConfig, base: HuggingFaceLALM) -> dict[str, str]:
    cuts = _augment_config(config)
    return {
        "offline rows": str(config.train_rows),
        "simultaneous rows": str(config.augmented_rows),
        "τ": f"{resolve_tau(cuts.tau, base.vocabulary_size):.3g} (probability)",
        "seed": str(cuts.seed),
    }
