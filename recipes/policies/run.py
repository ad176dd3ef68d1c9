"""Every policy on the bundled models: how much latency each needs for how much quality.

    python -m recipes.policies.run --data ../shared/data/multi30k --assets .assets --work .policies --out docs/results/policies

Compares the base, with policies that need no training, with the SimulSA model under the same policies, on test_2016_flickr
sentences spoken by natural voices that neither has heard. It resumes; existing settings are not measured again.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.budgets import best, p_of_difference, shown
from recipes.command import run
from recipes.experiments.corpus import TEST, unheard_rows
from recipes.experiments.records import record
from simulsa.commands.parsing import show_log
from simulsa.evaluation.compare import compare
from simulsa.evaluation.config import EvaluateConfig
from simulsa.evaluation.evaluate import evaluate
from simulsa.evaluation.folder import read_scores
from simulsa.evaluation.front import pareto_front, setting_of
from simulsa.evaluation.scores import Score
from simulsa.files import atomic_write
from simulsa.lalm.load import load
from simulsa.streaming.policies import EosOnly, parse_policy

MODELS = ("tiny-en-de", "tiny-en-de-simul")
POLICIES = (
    *("rollback:0", "eos", "rollback:1", "rollback:3", "rollback:5", "rollback:8"),
    *("local-agreement:2", "local-agreement:3"),
    *("wait-k:2,1", "wait-k:2,3"),
    *("alignatt:4", "alignatt:8", "alignatt:16"),
    *("confidence:0.3", "confidence:0.5"),
)
CHUNKS_MS = (500.0, 1000.0, 2000.0, math.inf)
METRICS = ("bleu", "chrf", "laal_ms", "yaal_ms", "simultaneous_share")
BUDGETS_MS = (500, 750, 1000, 1250, 1500, 2000, 2500)


@dataclass(frozen=True)
class PoliciesConfig:
    """Which sentences to use, and where the results go."""

    data: Path = Path("../shared/data/multi30k")
    """folder with the Multi30k captions"""
    assets: Path = Path(".assets")
    """folder that recipes/base/fetch.sh filled"""
    work: Path = Path(".policies")
    """folder for speech and evaluations"""
    out: Path = Path("docs/results/policies")
    """folder for CSV, tables and figure"""
    limit: int | None = 200
    """how many sentences"""
    batch_size: int = 16
    """utterances that advance together"""


def measure(config: PoliciesConfig) -> list[Path]:
    """Evaluate every model with every policy; returns the folder of each model."""
    rows = unheard_rows(config.data, config.assets, config.work, TEST, config.limit)
    folders = []
    for model in MODELS:
        folder = config.work / "scores" / model
        settings = EvaluateConfig(
            chunk_ms=CHUNKS_MS,
            policy=tuple(map(parse_policy, POLICIES)),
            out=folder,
            batch_size=config.batch_size,
            on_error="skip",
            preflight=False,
        )
        evaluate(load(model, device="cpu", dtype="float32"), rows, settings)
        folders.append(folder)
    return folders


def write_results(folders: Sequence[Path], out: Path) -> None:
    """Write what `simulsa compare` shows for the folders, every number as CSV, and the best of each model by latency."""
    base, simultaneous = folders
    evaluations = {folder.name: read_scores(folder) for folder in folders}
    compare(folders, out, baseline=base)
    _write_csv(evaluations, out / "policies.csv")
    with atomic_write(out / "budgets.md") as file:
        file.write(budget_table(base, simultaneous))


def _write_csv(evaluations: Mapping[str, Sequence[Score]], path: Path) -> None:
    """Write one line per setting; the Pareto front is over all settings, by LAAL."""
    front = pareto_front(evaluations)
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "policy", "chunk_ms", *METRICS, "utterances", "front"])
        for name, scores in evaluations.items():
            for score in scores:
                values = [score[metric] if score[metric] is None else round(score[metric], 4) for metric in METRICS]
                setting = setting_of(name, score)
                writer.writerow([name, setting[1], score["chunk_ms"], *values, score["utterances"], int(setting in front)])


def budget_table(base: Path, simultaneous: Path) -> str:
    """For some latency budgets: the best setting of the base, of the SimulSA model when it decides alone (EOS only), and of the
    SimulSA model with any policy; and the p-value of the difference between the first and the last."""
    lines = ["| LAAL at most | " + base.name + f" | {simultaneous.name}, eos | {simultaneous.name} | p |", "|" + " --- |" * 5]
    of_base, of_simultaneous = (
        [record(score, TEST, folder.name, seed=0) for score in read_scores(folder)] for folder in (base, simultaneous)
    )
    for budget_ms in BUDGETS_MS:
        found = [
            best(of_base, budget_ms),
            best(of_simultaneous, budget_ms, [str(EosOnly())]),
            best(of_simultaneous, budget_ms),
        ]
        p = "–" if found[0] is None or found[-1] is None else f"{p_of_difference(base, found[0], simultaneous, found[-1]):.3f}"
        cells = [shown(setting, [*of_base, *of_simultaneous]) for setting in found]
        lines.append(f"| {budget_ms / 1000:.2f} s | " + " | ".join(cells) + f" | {p} |")
    return "\n".join(lines) + "\n"


def main(config: PoliciesConfig) -> None:
    """Measure and write the results."""
    show_log()
    write_results(measure(config), config.out)


if __name__ == "__main__":
    run(main, PoliciesConfig, __doc__)
