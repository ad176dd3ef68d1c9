"""The best setting of an evaluation within a latency budget, and whether two such settings differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from recipes.experiments.markdown import policy_name
from simulsa.evaluation.folder import read_scores
from simulsa.evaluation.instances import Instance, log_name, read_instances
from simulsa.evaluation.scores import Score, policy_of_score
from simulsa.evaluation.significance import p_value
from simulsa.streaming.policies import Policy


def best(folder: Path, budget_ms: float, policies: Sequence[Policy] | None = None) -> Score | None:
    """The setting with the highest BLEU and a LAAL of at most `budget_ms`, of these policies or any; offline is excluded."""
    affordable = [
        score
        for score in read_scores(folder)
        if math.isfinite(float(score["chunk_ms"]))
        and score["laal_ms"] is not None
        and score["laal_ms"] <= budget_ms
        and (policies is None or policy_of_score(score) in policies)
    ]
    return max(affordable, key=lambda score: float(score["bleu"]), default=None)


def difference(folder: Path, score: Score | None, other_folder: Path, other: Score | None) -> str:
    """The p-value of the difference between two settings, as text; a dash if one is missing."""
    if score is None or other is None:
        return "–"
    return f"{p_value(_instances(folder, score), _instances(other_folder, other)):.3f}"


def shown(score: Score | None) -> str:
    """BLEU @ LAAL in seconds, and the setting."""
    if score is None:
        return "–"
    setting = f"{policy_name(str(policy_of_score(score)))}, k = {score['chunk_ms']}"
    return f"{score['bleu']:.1f} @ {score['laal_ms'] / 1000:.2f} ({setting})"


def _instances(folder: Path, score: Score) -> list[Instance]:
    return read_instances(folder / log_name(float(score["chunk_ms"]), policy_of_score(score)))
