"""Beyond the paper: what each idea adds to SimulSA, with the same rows, model and decoding.

python -m recipes.experiments.beyond --data ../shared/data/multi30k --assets .assets --work .experiments --out docs/results
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recipes.command import run
from recipes.experiments.figures import plot_points
from recipes.experiments.markdown import main_table
from recipes.experiments.records import Record, cell, of_setting, write_records
from recipes.experiments.study import StudyConfig, Subject, study
from recipes.experiments.systems import BASE, PATIENT, SFT, SIMULSA, System, changed
from simulsa.files import atomic_write

TAUS = (0.5, 0.8, 0.9)
ROLLBACKS = (0, 1, 3, 5)  # of the base and + SFT


def ideas() -> list[System]:
    """SimulSA, and the patient recipe with each of its choices taken back or another one made."""
    return [
        SIMULSA,
        PATIENT,
        changed(PATIENT, "… references instead of self-distillation", training={"self_distillation": 0.0}),
        changed(PATIENT, "… nothing held back", hold_back=0),
        changed(PATIENT, "… the paper's criterion", criterion="probability", tau="auto"),
        changed(PATIENT, "… cut rows weigh 1", training={"simultaneous_weight": 1.0}),
        replace(PATIENT, name="… rows by the tuned model", augmented_by=PATIENT),
    ]


def strictness() -> list[System]:
    """The patient recipe with other thresholds."""
    return [changed(PATIENT, f"τ = {tau:g}", tau=tau) for tau in TAUS]


def run_beyond(config: StudyConfig) -> list[Record]:
    """Make and measure every idea, and write tables and figures."""
    subjects = [
        Subject(BASE, ROLLBACKS),
        Subject(SFT, ROLLBACKS),
        *(Subject(system) for system in [*ideas(), *strictness()]),
    ]
    records = study(config, subjects)
    write_records(config.out / "beyond.csv", records)
    for name, systems in {
        "ideas": [SFT.name, *(system.name for system in ideas())],
        "strictness": [SFT.name, *(system.name for system in strictness())],
    }.items():
        with atomic_write(config.out / f"beyond-{name}.md") as file:
            file.write(main_table([r for r in records if r.system in systems and r.rollback in (0, 3)]))
    draw(records, config.out)
    return records


def draw(records: Sequence[Record], out: Path) -> None:
    """At k = 500 ms: what rollback and a stricter τ pay in latency for how much quality."""
    curves = {
        "base, rollback b": [(f"b={b}", *_point(records, BASE.name, b)) for b in ROLLBACKS],
        "+ SFT, rollback b": [(f"b={b}", *_point(records, SFT.name, b)) for b in ROLLBACKS],
        "patient recipe, τ": [(f"{tau:g}", *_point(records, f"τ = {tau:g}", 0)) for tau in TAUS],
    }
    plot_points(curves, out / "beyond-operating-points.png", "Quality for latency at k = 500 ms")


def _point(records: Sequence[Record], system: str, rollback: int) -> tuple[float, float]:
    own = cell(of_setting(records, system, 500.0, rollback))
    return (own.laal_ms or 0.0) / 1000, own.bleu


if __name__ == "__main__":
    run(run_beyond, StudyConfig, __doc__)
