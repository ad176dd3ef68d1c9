"""Quality by sacreBLEU and latency by OmniSTEval, of the instances of one setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from simulsa.evaluation.instances import EvaluationError, Instance, missing_delays
from simulsa.languages import base_language, bleu_tokenizer, latency_unit
from simulsa.streaming.policies import Policy, Rollback, parse_policy

Score = dict[str, Any]
"""The values of one setting as they stand in `scores.json`; what cannot be computed is `None`."""


def score_instances(instances: Sequence[Instance], target_lang: str) -> Score:
    """BLEU, chrF and latency of the translations into `target_lang`.

    `al_ms`, `laal_ms`, `dal_ms` and `yaal_ms` in milliseconds, `ap` as a ratio, the same with `ca_` before their name if
    every instance has its computing time, and `simultaneous_share`, the share of words (characters in languages without
    spaces) that were final before the speech ended; `truncated` counts the translations that reached the model's token limit.
    Empty translations count for quality; there is no latency to measure in them.
    Raises `EvaluationError` without instances, or if a tokenizer is not installed.
    """
    if not instances:
        raise EvaluationError("nothing to score: no utterance was translated; check the skipped rows")
    wrong = missing_delays(instances, latency_unit(target_lang))
    if wrong is not None:
        raise EvaluationError(
            f"row {wrong.id!r}: {len(wrong.delays_ms)} delays for {wrong.prediction!r}; "
            f"one for each {latency_unit(target_lang)} is needed"
        )
    timed = all(instance.elapsed_ms is not None for instance in instances)
    omni = [counted(instance, latency_unit(target_lang)) for instance in instances]
    return {
        **quality([instance.prediction for instance in instances], [instance.reference for instance in instances], target_lang),
        **latency(omni, timed),
        "simultaneous_share": _simultaneous_share(instances),
        "utterances": len(instances),
        "empty": sum(not instance.prediction for instance in instances),
        "truncated": sum(instance.truncated for instance in instances),
    }


def policy_of_score(score: Score) -> Policy:
    """The policy of a setting. Raises `ValueError` for an unknown one."""
    return Rollback(score["rollback"]) if score["rollback"] is not None else parse_policy(score["policy"])


def quality_metrics(target_lang: str) -> tuple[Any, Any]:
    """SacreBLEU's BLEU, with the language's tokenizer, and chrF. Raises `EvaluationError` if MeCab is missing."""
    from sacrebleu.metrics import BLEU, CHRF

    tokenizer = bleu_tokenizer(target_lang)
    try:
        return BLEU(tokenize=tokenizer), CHRF()
    except (ImportError, RuntimeError) as error:
        if "mecab" not in tokenizer:
            raise
        raise EvaluationError(
            f"BLEU into {target_lang!r} needs sacreBLEU's tokenizer {tokenizer!r}, which is not installed: "
            f"pip install 'simulsa[{base_language(target_lang)}]'"
        ) from error


def quality(predictions: Sequence[str], references: Sequence[str], target_lang: str) -> Score:
    """BLEU and chrF of translations into `target_lang`, with the signatures that say how they were computed."""
    bleu, chrf = quality_metrics(target_lang)
    return {
        "bleu": float(bleu.corpus_score(predictions, [references]).score),
        "chrf": float(chrf.corpus_score(predictions, [references]).score),
        # only known after scoring: they count the references
        "bleu_signature": str(bleu.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
    }


def latency(instances: Sequence[Any], timed: bool) -> Score:
    """OmniSTEval's AL, LAAL, AP, DAL and YAAL of its instances, if `timed` the computation-aware ones too.

    For `longform` instances, YAAL also counts output after the end.
    """
    from omnisteval import scoring

    scorers = {
        "al_ms": scoring.ALScorer,
        "laal_ms": scoring.LAALScorer,
        "ap": scoring.APScorer,
        "dal_ms": scoring.DALScorer,
        "yaal_ms": scoring.YAALScorer,
    }
    scores = {name: finite(scorer(computation_aware=False)(instances)) for name, scorer in scorers.items()}
    if timed:
        scores |= {f"ca_{name}": finite(scorer(computation_aware=True)(instances)) for name, scorer in scorers.items()}
    return scores


def counted(instance: Instance, unit: str) -> Any:
    """An instance in OmniSTEval's format."""
    from omnisteval import data

    return data.Instance(
        prediction=instance.prediction,
        reference=instance.reference,
        latency_unit=unit,
        index=instance.index,
        source_length=instance.source_length_ms,
        emission_cu=list(instance.delays_ms),
        emission_ca=list(instance.elapsed_ms or ()),
    )


def _simultaneous_share(instances: Sequence[Instance]) -> float | None:
    early = sum(delay < instance.source_length_ms for instance in instances for delay in instance.delays_ms)
    units = sum(len(instance.delays_ms) for instance in instances)
    return early / units if units else None


def finite(value: float) -> float | None:
    """`None` instead of OmniSTEval's NaN, which means that no instance counts; JSON has no NaN."""
    return float(value) if math.isfinite(value) else None
