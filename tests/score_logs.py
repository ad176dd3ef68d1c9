"""Logs for the tests of `simulsa score`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Lines = Callable[..., Path]  # what the fixture `written` gives
TEXTS = [
    ("Ein Mann fährt Rad", "Ein Mann fährt mit dem Rad", (1000, 1500, 1500, 2000)),
    ("Zwei Hunde im Schnee", "Zwei Hunde spielen im Schnee", (500, 1500, 2000, 2000)),
    ("Eine Frau singt laut", "Eine Frau singt", (1000, 1000, 1000, 1500)),
]


def record(index: int, **changed: Any) -> dict[str, Any]:
    """A record of SimulEval's log: 100 ms of computing for each word, all of them added up."""
    prediction, reference, delays = TEXTS[index % len(TEXTS)]
    return {
        "index": index,
        "prediction": prediction,
        "delays": list(delays),
        "elapsed": [delay + 100 * (i + 1) for i, delay in enumerate(delays)],
        "prediction_length": len(delays),
        "reference": reference,
        "source": [f"/corpus/clip-{index}.wav", "samplerate: 16000 Hz"],
        "source_length": 2000.0,
        **changed,
    }
