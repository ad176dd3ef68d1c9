"""Beyond the paper: what each idea is worth, with a base that already knows the task and few new captions.

    python -m recipes.experiments.ideas --data ../shared/data/multi30k --assets .assets --work .experiments --out docs/results

The corpus is that of the bundled adapter: 1,500 captions that the bundled base knows, and the 1,014 of val, which are new to it
and are each cut once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recipes.command import run
from recipes.experiments.figures import plot_points
from recipes.experiments.markdown import main_table, policy_name
from recipes.experiments.records import Record, cell, of_setting, write_records
from recipes.experiments.study import StudyConfig, Subject, study
from recipes.experiments.systems import BASE, MANY, SFT, SIMULSA, System, changed, varied
from recipes.experiments.workers import LabConfig
from simulsa.files import atomic_write

CHUNKS_MS = (500.0, 1000.0, math.inf)
POLICIES = ("rollback:0", "eos", "rollback:1", "rollback:3", "alignatt:4", "alignatt:8")


@dataclass(frozen=True)
class IdeasConfig(StudyConfig):
    """How large the study is, and where its tables and figures go."""

    lab: LabConfig = field(default_factory=lambda: bundled_lab(test_limit=200))


def bundled_lab(test_limit: int | None = None) -> LabConfig:
    """The bundled base, and the corpus of the bundled adapter."""
    return LabConfig(model="tiny-en-de", known_captions=29_000, familiar_captions=1_500, readings=1, test_limit=test_limit)


def ideas() -> list[System]:
    """SimulSA as in the paper, and the recipe `many` with one choice changed at a time."""
    return [
        SIMULSA,
        MANY,
        changed(MANY, "… references instead of self-distillation", training={"self_distillation": 0.0}),
        changed(MANY, "… τ = 100/v", tau="auto"),
        varied("… a quarter of the rows", 0.1, MANY),
    ]


def run_ideas(config: IdeasConfig) -> list[Record]:
    """Build and measure every idea, and write the table and the figure."""
    systems = [BASE, SFT, *ideas()]
    records = study(config, [Subject(system, POLICIES, CHUNKS_MS) for system in systems])
    write_records(config.out / "ideas.csv", records)
    show(records, config.out)
    return records


def show(records: Sequence[Record], out: Path) -> None:
    """Write the table, and plot BLEU over LAAL at k = 500 ms: one curve per system, one point per policy."""
    with atomic_write(out / "ideas.md") as file:
        file.write(main_table(records))
    curves = {
        system: sorted((_point(records, system, policy) for policy in POLICIES), key=lambda point: point[1])
        for system in dict.fromkeys(record.system for record in records)
    }
    plot_points(curves, out / "ideas.png", "Quality for latency at k = 500 ms")


def _point(records: Sequence[Record], system: str, policy: str) -> tuple[str, float, float]:
    own = cell(of_setting(records, system, 500.0, policy))
    return policy_name(policy), (own.laal_ms or 0.0) / 1000, own.bleu


if __name__ == "__main__":
    run(run_ideas, IdeasConfig, __doc__)
