"""Measurements as CSV, one record per model, seed and setting; all tables and figures are made from them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean, stdev

from simulsa.evaluation.scores import Score, policy_of_score
from simulsa.files import atomic_write


@dataclass(frozen=True)
class Record:
    """One setting of one model; `policy` as in "rollback:3". Latencies are in milliseconds, `None` if there is none;
    `early_share` is the share of words that were final before the speech ended; `p_value` is that of a paired bootstrap test
    against + SFT, if there was one."""

    test: str
    system: str
    seed: int
    chunk_ms: float
    policy: str
    bleu: float
    chrf: float
    laal_ms: float | None
    yaal_ms: float | None
    early_share: float | None
    utterances: int
    empty: int
    p_value: float | None = None


def record(score: Score, test: str, system: str, seed: int, p_value: float | None = None) -> Record:
    """The record of a score."""
    return Record(
        test=test,
        system=system,
        seed=seed,
        chunk_ms=float(score["chunk_ms"]),
        policy=str(policy_of_score(score)),
        bleu=round(score["bleu"], 3),
        chrf=round(score["chrf"], 3),
        laal_ms=_rounded(score["laal_ms"]),
        yaal_ms=_rounded(score["yaal_ms"]),
        early_share=None if score["simultaneous_share"] is None else round(score["simultaneous_share"], 4),
        utterances=score["utterances"],
        empty=score["empty"],
        p_value=p_value,
    )


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as CSV, atomically."""
    names = [field.name for field in fields(Record)]
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([getattr(record, name) for name in names] for record in records)


def read_records(path: Path) -> list[Record]:
    """Read what `write_records` wrote."""
    with open(path, encoding="utf-8", newline="") as file:
        return [_from_csv(row) for row in csv.DictReader(file)]


@dataclass(frozen=True)
class Cell:
    """A setting's mean over the seeds, and the spread of BLEU (standard deviation, 0 for one seed)."""

    bleu: float
    spread: float
    chrf: float
    laal_ms: float | None
    yaal_ms: float | None
    early_share: float | None
    p_values: tuple[float, ...]


def of_setting(records: Iterable[Record], system: str, chunk_ms: float, policy: str) -> list[Record]:
    """The records of one setting of a system, over all seeds."""
    return [r for r in records if (r.system, r.chunk_ms, r.policy) == (system, chunk_ms, policy)]


def cell(records: Sequence[Record]) -> Cell:
    """Combine the records of one setting over all seeds."""
    bleus = [record.bleu for record in records]
    return Cell(
        bleu=mean(bleus),
        spread=stdev(bleus) if len(bleus) > 1 else 0.0,
        chrf=mean(record.chrf for record in records),
        laal_ms=_mean([record.laal_ms for record in records]),
        yaal_ms=_mean([record.yaal_ms for record in records]),
        early_share=_mean([record.early_share for record in records]),
        p_values=tuple(record.p_value for record in records if record.p_value is not None),
    )


def _from_csv(row: dict[str, str]) -> Record:
    kinds = {"test": str, "system": str, "seed": int, "policy": str, "utterances": int, "empty": int}
    values = {name: kinds.get(name, float)(text) if text else None for name, text in row.items()}
    return Record(**values)  # type: ignore[arg-type]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return mean(known) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
