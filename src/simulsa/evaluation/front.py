"""The Pareto front: the best settings for every latency budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from simulsa.evaluation.scores import Score, policy_of_score
from simulsa.streaming.policies import Policy

OperatingPoint = tuple[str, Policy, float]
"""A setting among several evaluations: the evaluation's name, the policy, the chunk size in ms."""


def setting_of(name: str, score: Score) -> OperatingPoint:
    """The setting of a score of the evaluation `name`."""
    return name, policy_of_score(score), float(score["chunk_ms"])


def pareto_front(evaluations: Mapping[str, Sequence[Score]], latency: str = "laal_ms") -> dict[OperatingPoint, Score]:
    """The settings that no other dominates, from the fastest to the slowest.

    A setting is dominated by another that has at least its BLEU at no more `latency`, and is better in one of the two. Offline
    translation and settings without latency are excluded.
    """
    settings = {
        setting_of(name, score): score
        for name, scores in evaluations.items()
        for score in scores
        if math.isfinite(float(score["chunk_ms"])) and score.get(latency) is not None
    }

    def beats(one: Score, other: Score) -> bool:
        gains = (float(one["bleu"] - other["bleu"]), float(other[latency] - one[latency]))
        return min(gains) >= 0 and max(gains) > 0

    unbeaten = [setting for setting, score in settings.items() if not any(beats(other, score) for other in settings.values())]
    return {setting: settings[setting] for setting in sorted(unbeaten, key=lambda setting: float(settings[setting][latency]))}
