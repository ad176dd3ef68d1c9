"""What each choice in the paper's augmentation is worth: how many rows, how often shown, where cut, and which tokens are kept.

python -m recipes.experiments.ablations --data ../shared/data/multi30k --assets .assets --work .experiments --out docs/results
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recipes.command import run
from recipes.experiments.figures import plot_bars, plot_lines
from recipes.experiments.markdown import main_table
from recipes.experiments.records import Record, write_records
from recipes.experiments.study import CHUNKS_MS, NAMES, StudyConfig, Subject, bleu, study
from recipes.experiments.systems import MANY, MANY_SHARES, PAPER_SHARE, SFT, System, changed, varied, with_references
from simulsa.augmentation.truncation import TRUNCATIONS
from simulsa.files import atomic_write

SHARES = (0.004, 0.009, 0.013, 0.04)
SHARE = 0.04  # for the ablations of cuts and criteria: enough rows for a difference to show
# both readings of eq. 4, at several thresholds
TAUS = {"probability": (0.01, 0.025, 0.2), "rank": (0.0025, 0.025)}
REPEATS = 10
STRICT_TAUS = (0.2, 0.5, 0.8)  # the first is that of the recipe `many`
PAPER_TAU = 0.025  # 100 / v of the bundled model


def amounts() -> list[System]:
    """M, as a share of the offline rows."""
    return [varied(f"M = {share:.1%}", share) for share in SHARES]


def repetitions() -> list[System]:
    """The paper's number of rows shown once and several times, by the paper's recipe and by `many`; and several times as many."""
    few, often = f"M = {PAPER_SHARE:.1%}", f"M = {PAPER_SHARE:.1%}, each {REPEATS} times"
    shown = [varied(few), varied(often, repeats=REPEATS), varied(f"many, {few}", system=MANY)]
    for tau in STRICT_TAUS:
        recipe, name = changed(MANY, MANY.name, tau=tau), f"many, τ = {tau:g}"
        shown += [varied(f"{name}, {often}", system=recipe, repeats=REPEATS), varied(f"{name}, M = 10%", 0.1, recipe)]
    shown.append(varied("many, τ = 0.2, M = 40%", 0.4, MANY))
    return shown + [
        replace(with_references(share), name=f"many with references, τ = 0.2, M = {share:.0%}") for share in MANY_SHARES
    ]


def truncations() -> list[System]:
    """Where rows are cut."""
    return [varied(name, SHARE, truncation=name) for name in TRUNCATIONS]


def criteria() -> dict[tuple[str, float], System]:
    """Which tokens are kept."""
    return {
        (criterion, tau): varied(f"{criterion}, τ = {tau:g}", SHARE, criterion=criterion, tau=tau)
        for criterion, taus in TAUS.items()
        for tau in taus
    }


def run_ablations(config: StudyConfig) -> list[Record]:
    """Build and measure every variant at b = 0, where the model alone decides, and write tables and figures."""
    systems = {system.name: system for group in groups().values() for system in group}
    records = study(config, [Subject(system) for system in systems.values()])
    write_records(config.out / "ablations.csv", records)
    show(records, config.out)
    return records


def groups() -> dict[str, list[System]]:
    """The ablations by name, each starting with + SFT."""
    return {
        "amount": [SFT, *amounts()],
        "repetition": [SFT, *repetitions()],
        "truncation": [SFT, *truncations()],
        "criterion": [SFT, *criteria().values()],
    }


def show(records: Sequence[Record], out: Path) -> None:
    """Write a table for each ablation, and its figures."""
    for name, group in groups().items():
        names = [system.name for system in group]
        with atomic_write(out / f"ablation-{name}.md") as file:
            file.write(main_table([record for record in records if record.system in names]))
    draw(records, out)


def draw(records: Sequence[Record], out: Path) -> None:
    """Draw one figure for each ablation."""
    by_amount = {
        NAMES[k]: [(100 * share, bleu(records, system, k)) for share, system in zip(SHARES, amounts(), strict=True)]
        for k in CHUNKS_MS
    }
    plot_lines(by_amount, out / "ablation-amount.png", "How many rows (b = 0)", "M in % of the offline rows", 1.3)
    by_truncation = {NAMES[k]: [bleu(records, system, k) for system in truncations()] for k in CHUNKS_MS}
    plot_bars(by_truncation, list(TRUNCATIONS), out / "ablation-truncation.png", "Where the cuts fall (b = 0)")
    systems = criteria()
    for k, name in ((500.0, "k500"), (math.inf, "offline")):
        lines = {
            criterion: [(tau, bleu(records, systems[criterion, tau], k)) for tau in taus] for criterion, taus in TAUS.items()
        }
        title = f"Which tokens stay ({NAMES[k]}, b = 0)"
        plot_lines(lines, out / f"ablation-criterion-{name}.png", title, "τ (dotted: 100/v)", PAPER_TAU)


if __name__ == "__main__":
    run(run_ablations, StudyConfig, __doc__)
