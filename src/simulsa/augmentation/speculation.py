"""Which target tokens stay (speech-to-text speculation, arXiv 2509.15692, eq. 4).

The model hears the cut audio and walks along the reference translation; the walk ends at the first token that it does not
find plausible. The paper's threshold τ = 100/v, v the vocabulary size, can be read in two ways, so there are two criteria;
a third, this project's own, compares with what the model finds when it hears everything.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from simulsa.lalm.interface import LALMError, TokenScores

Criterion = Literal["probability", "rank", "contrast"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
AUTO_CANDIDATES = 100  # τ = 100/v: a hundred times the uniform probability, or the model's hundred first choices
AUTO_CONTRAST = 0.5  # the share of a token's probability that it must have before the rest is heard


def resolve_tau(tau: float | Literal["auto"], criterion: Criterion, vocabulary_size: int) -> float:
    """τ as a number; `auto` is 100/v (at most 1), and 0.5 for `contrast`, which does not depend on the vocabulary."""
    if tau != "auto":
        return float(tau)
    return AUTO_CONTRAST if criterion == "contrast" else min(1.0, AUTO_CANDIDATES / vocabulary_size)


def kept_tokens(
    scores: TokenScores, criterion: Criterion, tau: float, vocabulary_size: int, whole: TokenScores | None = None
) -> int:
    """How many leading target tokens are plausible.

    `probability` stops at the first token with P(y_t | cut audio, y_<t) < τ, `rank` at the first with rank(y_t) ≥ τ·v,
    ranks counted from 0, and `contrast` at the first with P(y_t | cut audio, y_<t) < τ·P(y_t | whole audio, y_<t): a rare word
    that was heard stays, a likely one that was only guessed does not. `whole` are the scores given the whole audio.
    Raises `LALMError` when a score is NaN, which no criterion could judge.
    """
    if np.isnan(scores.log_probs).any() or (whole is not None and np.isnan(whole.log_probs).any()):
        raise LALMError("the model gave NaN as a log-probability; load it with --dtype float32 or bfloat16")
    if criterion == "contrast":
        if whole is None:
            raise ValueError("criterion 'contrast' compares with the scores given the whole audio, which are missing")
        implausible = scores.log_probs < math.log(tau) + whole.log_probs
    elif criterion == "probability":
        implausible = scores.log_probs < math.log(tau)
    else:
        # rounded, because (100 / v) * v may come out just above 100 and let the 101st choice pass
        implausible = scores.ranks >= round(tau * vocabulary_size, 6)
    return int(np.argmax(implausible)) if implausible.any() else len(implausible)
