"""The paper's table 1 in miniature, with latency and significance, alongside the recipe `many`.

python -m recipes.experiments.table --data ../shared/data/multi30k --assets .assets --work .experiments --out docs/results
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recipes.budgets import best, p_of_difference, shown
from recipes.command import run
from recipes.experiments.corpus import CONFIRMATION, TEST
from recipes.experiments.figures import plot_front, plot_table
from recipes.experiments.lab import Lab, instances_of
from recipes.experiments.markdown import details_table, main_table, summary_table
from recipes.experiments.records import Record, of_setting, record, write_records
from recipes.experiments.systems import (
    BASE,
    MANY_SHARES,
    PAPER_SHARE,
    SFT,
    SIMULSA,
    WITH_EVERY_SEED,
    System,
    varied,
    with_references,
)
from recipes.experiments.workers import Job, LabConfig, run_jobs
from simulsa.evaluation.scores import policy_of_score
from simulsa.evaluation.significance import p_value
from simulsa.files import atomic_write

CHUNKS_MS = (500, 1000, 1500, 2000, 3000, 4000, math.inf)
POLICIES = ("rollback:0", "rollback:1", "rollback:3", "rollback:5")
BUDGETS_MS = (300, 500, 750, 1000, 1250, 1500)
# policies that work on the base without training; the tuned models are measured with them too
TRAINING_FREE = ("eos", "alignatt:4", "alignatt:8", "alignatt:16")


@dataclass(frozen=True)
class TableConfig:
    """Which seeds, which test sets, and where the table goes."""

    lab: LabConfig = field(default_factory=LabConfig)
    out: Path = Path("docs/results")
    """folder for table.csv, table-*, front-*, summary-* and budgets-*"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """seeds of cuts and training of + SFT, + SFT & SimulSA and the recipe `many`; the others have the first"""
    splits: tuple[str, ...] = (TEST, CONFIRMATION)
    """test sets"""
    chunks_ms: tuple[float, ...] = CHUNKS_MS
    """k"""
    policies: tuple[str, ...] = (*POLICIES, *TRAINING_FREE)
    """b, and policies that need no training"""
    shares: tuple[float, ...] = (PAPER_SHARE,)
    """M of the paper's recipe, as shares of the offline rows"""
    repeats: tuple[int, ...] = (1,)
    """how often an epoch shows each of the paper's rows"""
    many_shares: tuple[float, ...] = MANY_SHARES
    """M of the recipe `many` with references, as shares of the offline rows"""

    @property
    def systems(self) -> list[System]:
        """The systems to compare."""
        others = [varied(f"{SIMULSA.name}, M = {share:.1%}", share) for share in self.shares if share != PAPER_SHARE]
        others += [varied(f"{SIMULSA.name}, each row {times} times", repeats=times) for times in self.repeats if times != 1]
        others += [with_references(share) for share in self.many_shares]
        return [BASE, SFT, *([SIMULSA] if PAPER_SHARE in self.shares else []), *others]


def make_table(config: TableConfig) -> list[Record]:
    """Build and measure every system and write the table."""
    run_jobs(config.lab, [_job(config, system, seed) for system in config.systems for seed in _seeds(config, system)])
    records = list(_records(config, config.lab.open()))
    write_records(config.out / "table.csv", records)
    show(records, config.out)
    for split in config.splits:
        with atomic_write(config.out / f"budgets-{split}.md") as file:
            file.write(budget_table([r for r in records if r.test == split], _folders(config, split)))
    return records


def show(records: Sequence[Record], out: Path) -> None:
    """Write the tables and the figures of each test set."""
    for split in dict.fromkeys(one.test for one in records):
        own = [one for one in records if one.test == split]
        with atomic_write(out / f"table-{split}.md") as file:
            file.write(f"{main_table(own)}\n{details_table(own)}")
        with atomic_write(out / f"summary-{split}.md") as file:
            file.write(summary_table(own))
        plot_table(own, out / f"table-{split}.png")
        plot_front(own, out / f"front-{split}.png")


def budget_table(records: Sequence[Record], folders: Mapping[str, Mapping[int, Path]]) -> str:
    """The best setting of each system (rows) within some latency budgets (columns), chosen with its first seed.

    Two more tables compare each system fine-tuned on simultaneous rows with the base and with + SFT, seed by seed. `folders` are
    those with the translations, by system and seed.
    """
    found = {
        name: [best([r for r in records if (r.system, r.seed) == (name, min(by_seed))], budget_ms) for budget_ms in BUDGETS_MS]
        for name, by_seed in folders.items()
    }
    tables = [_by_budget({name: [shown(setting, records) for setting in row] for name, row in found.items()})]
    baselines = [name for name in folders if name in (BASE.name, SFT.name)]
    for baseline in baselines:
        compared = {
            name: [_differences(records, folders, *pair) for pair in zip(row, found[baseline], strict=True)]
            for name, row in found.items()
            if name not in baselines
        }
        title = f"Difference in BLEU from {baseline}, each at its best setting, and p in brackets, for each seed"
        tables.append(f"<details><summary>{title}</summary>\n\n{_by_budget(compared)}\n</details>\n")
    return "\n".join(tables)


def _differences(
    records: Sequence[Record], folders: Mapping[str, Mapping[int, Path]], own: Record | None, other: Record | None
) -> str:
    """A setting against one of a baseline, for each seed; the base, which has only one, is the same for every seed."""
    if own is None or other is None:
        return "–"

    def of_seed(setting: Record, seed: int) -> Record:
        measured = of_setting(records, setting.system, setting.chunk_ms, setting.policy)
        return next((record for record in measured if record.seed == seed), setting)

    cells = []
    for seed in folders[own.system]:
        pair = of_seed(own, seed), of_seed(other, seed)
        logs = [folders[one.system][one.seed] for one in pair]
        p = p_of_difference(logs[0], pair[0], logs[1], pair[1])
        cells.append(f"{pair[0].bleu - pair[1].bleu:+.1f} ({p:.3f})")
    return ", ".join(cells)


def _by_budget(rows: Mapping[str, Sequence[str]]) -> str:
    titles = ["LAAL at most", *(f"{budget_ms / 1000:.2f} s" for budget_ms in BUDGETS_MS)]
    lines = [titles, ["---"] * len(titles), *([name, *cells] for name, cells in rows.items())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _folders(config: TableConfig, split: str) -> dict[str, dict[int, Path]]:
    """The folders with the scores of each system and seed."""
    lab, test = config.lab.open(), config.lab.test(split)
    return {
        system.name: {
            seed: lab.measured(system, seed, test, config.chunks_ms, config.policies)[1] for seed in _seeds(config, system)
        }
        for system in config.systems
    }


def _seeds(config: TableConfig, system: System) -> Sequence[int]:
    """All seeds for + SFT, the paper's recipe and `many`, and the first for the others."""
    return config.seeds if system in WITH_EVERY_SEED else config.seeds[:1]


def _job(config: TableConfig, system: System, seed: int) -> Job:
    return Job(system, seed, config.splits, config.chunks_ms, config.policies)


def _records(config: TableConfig, lab: Lab) -> Iterator[Record]:
    """All records; systems fine-tuned on simultaneous rows are tested against + SFT with the same seed."""
    for split in config.splits:
        test = config.lab.test(split)
        for system in config.systems:
            for seed in _seeds(config, system):
                scores, folder = lab.measured(system, seed, test, config.chunks_ms, config.policies)
                _, baseline = lab.measured(SFT, seed, test, config.chunks_ms, config.policies)
                for score in scores:
                    setting = float(score["chunk_ms"]), str(policy_of_score(score))
                    tested = system.augmentation is not None
                    p = p_value(instances_of(folder, *setting), instances_of(baseline, *setting)) if tested else None
                    yield record(score, split, system.name, seed, p)


if __name__ == "__main__":
    run(make_table, TableConfig, __doc__)
