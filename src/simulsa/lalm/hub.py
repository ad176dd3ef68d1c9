"""Check whether the Hugging Face Hub answers: once and briefly, before its own client tries five times."""

from __future__ import annotations

import logging
import time
from typing import Any

TIMEOUT_S = 5.0

logger = logging.getLogger("simulsa")


def answer_s() -> float:
    """How many seconds the hub took to give any answer. Raises `ConnectionError`, with the reason, if it gives none.

    The request uses the hub client's own session, which knows about proxies, `HF_ENDPOINT` and certificates.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    started = time.perf_counter()
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception as error:  # the client's HTTP library raises its own errors, and differs between releases
        reason = str(error).strip() or type(error).__name__
        raise ConnectionError(f"the hub at {constants.ENDPOINT} does not answer ({reason})") from error
    return time.perf_counter() - started


def options_for(name: str, source: str, revision: str = "") -> dict[str, Any]:
    """What `from_pretrained` needs to load a hub model without waiting for a hub that does not answer.

    A model in the hub's cache is then loaded from there, with a warning. Raises `ConnectionError` when it is not there; with
    `HF_HUB_OFFLINE` set, the hub is not asked.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    def is_cached() -> bool:
        return isinstance(try_to_load_from_cache(source, "config.json", revision=revision or None), str)

    if constants.HF_HUB_OFFLINE:
        if not is_cached():
            raise ConnectionError("it is not in the hub's cache, and HF_HUB_OFFLINE is set")
        return {}
    try:
        answer_s()
    except ConnectionError as error:
        if not is_cached():
            raise ConnectionError(f"it is not in the cache, and {error}") from error
        logger.warning("%s: loaded from the cache, because %s", name, error)
        return {"local_files_only": True}
    return {}
