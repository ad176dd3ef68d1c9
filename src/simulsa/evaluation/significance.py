"""Significance of a difference between two systems: paired bootstrap resampling, by sacreBLEU."""

from __future__ import annotations

from collections.abc import Sequence

from simulsa.evaluation.instances import Instance

RESAMPLES = 1000
SIGNIFICANT = 0.05


def p_value(system: Sequence[Instance], baseline: Sequence[Instance], tokenizer: str = "13a") -> float:
    """The p-value of the difference in BLEU between two systems' translations of the same utterances.

    Paired bootstrap resampling (Koehn, 2004) as sacreBLEU does it, with its fixed seed and `tokenizer`. Raises `ValueError` when
    the utterances are not the same.
    """
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import PairedTest

    references = [instance.reference for instance in baseline]
    if [instance.reference for instance in system] != references:
        raise ValueError("the two systems translated different utterances; compare translations of the same test set")
    if [instance.prediction for instance in system] == [instance.prediction for instance in baseline]:
        return 1.0  # sacreBLEU would find no resample that differs less, and call it significant
    named = [(name, [i.prediction for i in instances]) for name, instances in (("baseline", baseline), ("system", system))]
    test = PairedTest(named, {"BLEU": BLEU(tokenize=tokenizer)}, [references], test_type="bs", n_samples=RESAMPLES)
    _, scores = test()
    return float(scores["BLEU"][1].p_value)
