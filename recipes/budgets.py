"""The best setting of a system within a latency budget, and whether two settings differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from recipes.experiments.lab import instances_of
from recipes.experiments.markdown import bleu_at_laal, policy_name
from recipes.experiments.records import Record, cell, of_setting
from simulsa.evaluation.instances import chunk_name
from simulsa.evaluation.significance import p_value


def best(records: Sequence[Record], budget_ms: float, policies: Sequence[str] | None = None) -> Record | None:
    """The record with the highest BLEU and a LAAL of at most `budget_ms`, of these policies or any; offline is excluded."""
    affordable = [
        record
        for record in records
        if math.isfinite(record.chunk_ms)
        and record.laal_ms is not None
        and record.laal_ms <= budget_ms
        and (policies is None or record.policy in policies)
    ]
    return max(affordable, key=lambda record: record.bleu, default=None)


def shown(setting: Record | None, records: Sequence[Record]) -> str:
    """BLEU @ LAAL in seconds, as means over the seeds among `records`, and the setting; a dash if there is none."""
    if setting is None:
        return "–"
    own = cell(of_setting(records, setting.system, setting.chunk_ms, setting.policy))
    return f"{bleu_at_laal(own)} ({policy_name(setting.policy)}, k = {chunk_name(setting.chunk_ms)})"


def p_of_difference(folder: Path, setting: Record, other_folder: Path, other: Record) -> float:
    """The p-value of the difference between two settings, from the folders with their translations."""
    return p_value(
        instances_of(folder, setting.chunk_ms, setting.policy), instances_of(other_folder, other.chunk_ms, other.policy)
    )
