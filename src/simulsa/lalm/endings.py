"""Where a translation ends: at an end-of-sequence token, or at the token limit."""

from __future__ import annotations

import math
from typing import Any

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.interface import LALMError

# more than any speech needs, even if a letter takes several tokens: a model that exceeds it is repeating itself, and would go
# on to the end of its context
LEAST_TOKENS, TOKENS_PER_S = 256, 32


def token_limit(samples: int, prompt_tokens: int, context: int | None, at_most: int | None = None) -> int:
    """The most tokens that the translation of a clip can have, its prefix included (see `Continuation`).

    The clip has `samples` at `SAMPLE_RATE`; its prompt takes up `prompt_tokens` of the model's `context`, if that is known.
    """
    limits = [LEAST_TOKENS + math.ceil(TOKENS_PER_S * samples / SAMPLE_RATE)]
    limits += [] if context is None else [context - prompt_tokens]
    limits += [] if at_most is None else [at_most]
    return max(1, min(limits))


def eos_ids(generation_config: Any, tokenizer: Any, turn_end: str) -> list[int]:
    """Every token that ends an answer, the one to train on first. Raises `LALMError` for a model without any."""
    configured = generation_config.eos_token_id
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    own = tokenizer.get_vocab().get(turn_end, tokenizer.eos_token_id) if turn_end else tokenizer.eos_token_id
    if own is not None:
        ids = [own, *ids]
    if not ids:
        raise LALMError("neither the tokenizer nor the generation config names an end-of-sequence token; set eos_token")
    return list(dict.fromkeys(map(int, ids)))
