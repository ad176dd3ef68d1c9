"""Which target tokens stay (speech-to-text speculation, arXiv 2509.15692, eq. 4).

The model hears the cut audio and walks along the reference translation; the walk ends at the first token that it does not
find plausible. The paper's threshold τ = 100/v, v the vocabulary size, can be read in two ways, so there are two criteria.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from simulsa.lalm.interface import LALMError, TokenScores

Criterion = Literal["probability", "rank"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
AUTO_CANDIDATES = 100  # τ = 100/v: a hundred times the uniform probability, or the model's top hundred choices


def resolve_tau(tau: float | Literal["auto"], vocabulary_size: int) -> float:
    """τ as a number; `auto` is 100/v, at most 1."""
    return min(1.0, AUTO_CANDIDATES / vocabulary_size) if tau == "auto" else float(tau)


def kept_tokens(scores: TokenScores, criterion: Criterion, tau: float, vocabulary_size: int) -> int:
    """How many leading target tokens are plausible.

    `probability` stops at the first token with P(y_t | cut audio, y_<t) < τ, and `rank` at the first with rank(y_t) ≥
    τ·v, ranks counted from 0. Raises `LALMError` when a score is NaN, which no criterion could judge.
    """
    if np.isnan(scores.log_probs).any():
        raise LALMError("the model gave NaN as a log-probability; load it with --dtype float32 or bfloat16")
    if criterion == "probability":
        implausible = scores.log_probs < math.log(tau)
    else:
        # rounded, because (100 / v) * v may come out just above 100 and let the 101st choice pass
        implausible = scores.ranks >= round(tau * vocabulary_size, 6)
    return int(np.argmax(implausible)) if implausible.any() else len(implausible)
