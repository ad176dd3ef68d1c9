"""What neither quality nor latency metrics show: degenerate text, flicker, bursts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from statistics import mean
from typing import Any

from simulsa.evaluation.recording import Recording, units
from simulsa.evaluation.scores import Score, finite

COPIED = 0.8  # share of a translation's words that occur in its source
LENGTHS = (0.5, 2.0)  # of a translation relative to its reference: outside this range, much is lost or made up


def degeneracy(predictions: Sequence[str], references: Sequence[str], unit: str, sources: Sequence[str] | None = None) -> Score:
    """Signs that translations are broken, whatever BLEU says.

    `empty` translations; `repeated_4grams`, the share of 4-grams of units that occurred earlier in the same translation
    (seq-rep-4 of Welleck et al., arXiv 1908.04319), and the same for the references; `length_ratio` of all units, and how many
    translations are under half or over twice as long as their reference; `same_output`, translations that another recording
    with a different reference has too; with `sources`, `copies`: translations with at least 80 % of their words in the source.
    """
    said = [units(text, unit) for text in predictions]
    wanted = [units(text, unit) for text in references]
    ratios = [len(a) / len(b) for a, b in zip(said, wanted, strict=True) if a]
    distinct: dict[str, set[str]] = {}
    for prediction, reference in zip(predictions, references, strict=True):
        distinct.setdefault(prediction, set()).add(reference)
    scores: Score = {
        "empty": sum(not parts for parts in said),
        "repeated_4grams": _repeated(said),
        "repeated_4grams_references": _repeated(wanted),
        "length_ratio": sum(map(len, said)) / sum(map(len, wanted)),
        "too_short": sum(ratio < LENGTHS[0] for ratio in ratios),
        "too_long": sum(ratio > LENGTHS[1] for ratio in ratios),
        "same_output": sum(len(distinct[text]) > 1 for text in predictions if text),
    }
    if sources is not None:
        scores["copies"] = sum(_copied(text, source, unit) for text, source in zip(predictions, sources, strict=True))
    return scores


def simultaneity(instances: Sequence[Any]) -> Score:
    """OmniSTEval's test of a degenerate policy: does the share of early words fit the latency? (arXiv 2509.17349)"""
    from omnisteval.scoring import ShortformDegeneracyScorer

    found = ShortformDegeneracyScorer()(instances)
    expected = finite(found["efsw"])
    return {
        "expected_simultaneous_share": None if expected is None else expected / 100,
        "degenerate_policy": None if finite(found["dsptv"]) is None else bool(found["degenerate_policy"]),
    }


def flicker(recordings: Sequence[Recording]) -> Score:
    """Normalised erasure (Arivazhagan et al., IWSLT 2020): retracted units per final unit; 0 for append-only output."""
    final = sum(len(recording.delays_ms) for recording in recordings)
    return {"normalised_erasure": sum(recording.erased for recording in recordings) / final if final else None}


def burstiness(recordings: Sequence[Recording]) -> Score:
    """How unevenly units arrive, in audio time: number of units at once, and the gaps between two outputs."""
    bursts = [[(delay, len(list(group))) for delay, group in groupby(recording.delays_ms)] for recording in recordings]
    sizes = [size for burst in bursts for _, size in burst]
    gaps = [later - sooner for burst in bursts for (sooner, _), (later, _) in pairwise(burst)]
    first = [burst[0][0] for burst in bursts if burst]
    return {
        "units_at_once": mean(sizes) if sizes else None,
        "most_units_at_once": max(sizes, default=None),
        "gap_ms": mean(gaps) if gaps else None,
        "longest_gap_ms": max(gaps, default=None),
        "first_output_ms": mean(first) if first else None,
    }


def _repeated(texts: Sequence[Sequence[str]]) -> float | None:
    grams = [Counter(zip(*(text[i:] for i in range(4)), strict=False)) for text in texts]
    total = sum(sum(counts.values()) for counts in grams)
    return 1 - sum(map(len, grams)) / total if total else None


def _copied(text: str, source: str, unit: str) -> bool:
    words, spoken = units(text.lower(), unit), set(units(source.lower(), unit))
    return bool(words) and sum(word in spoken for word in words) >= COPIED * len(words)
