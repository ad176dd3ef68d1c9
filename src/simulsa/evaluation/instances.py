"""The result of one utterance, and its file: SimulEval's instance log, which OmniSTEval's command line reads as well."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulsa import strict_json
from simulsa.files import atomic_write
from simulsa.languages import unit_ends
from simulsa.streaming.policies import Policy


class EvaluationError(ValueError):
    """A test set, a setting or a folder that cannot be evaluated; the message gives what was found and the fix."""


@dataclass(frozen=True)
class Instance:
    """One translated utterance.

    A unit is a word of `prediction`, or a character in languages without spaces (`simulsa.languages.latency_unit`). For each
    unit, `delays_ms` is the amount of audio heard when the whole unit became final, and `elapsed_ms` the time at which that
    happened, in ms since the start of the speech, for a model that receives each chunk when it is spoken and starts on it once
    the previous one is done: `max(chunk spoken, previous chunk done) + compute`. It is `None` if the utterance was translated in
    a batch, because its computing time is then unknown. `steps` counts model passes; `truncated` says that the translation
    reached the model's token limit and may be incomplete.
    """

    id: str
    index: int
    prediction: str
    reference: str
    source: str
    source_length_ms: float
    delays_ms: tuple[float, ...]
    elapsed_ms: tuple[float, ...] | None
    steps: int
    truncated: bool = False


def single_spaced(text: str) -> str:
    """`text` with single spaces between words and none at the ends, so that every scorer counts the same words."""
    return " ".join(text.split())


def chunk_name(chunk_ms: float) -> str:
    """A chunk size as names and tables write it: `500`, `62.5`, `inf`."""
    return f"{chunk_ms:.10g}"


def log_name(chunk_ms: float, policy: Policy) -> str:
    """The file of a setting: `instances-k500-b3.log`, `instances-k500-wait-k-3-1.log`; offline only `instances-inf-b0.log`."""
    return "instances-inf-b0.log" if math.isinf(chunk_ms) else f"instances-k{chunk_name(chunk_ms)}-{policy.slug}.log"


def write_instances(path: str | Path, instances: Iterable[Instance]) -> None:
    """Write an instance log atomically.

    `elapsed` differs from SimulEval's, which adds the computing time of all earlier words to each word's delay, even if the model
    was idle in between. Here it is the time at which the word became final (see `Instance`), which OmniSTEval reads without
    `--fix_simuleval_emission_ca`.
    """
    with atomic_write(path) as file:
        for instance in instances:
            file.write(strict_json.dumps(_to_json(instance)) + "\n")


def read_instances(path: str | Path) -> list[Instance]:
    """Read an instance log written by `write_instances`. Raises `EvaluationError` for an invalid line."""
    instances = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                instances.append(_from_json(strict_json.loads(line)))
            except (KeyError, TypeError, ValueError) as error:
                raise EvaluationError(f"{path}:{number}: not a line of an instance log of simulsa ({error!r})") from error
    return instances


def _to_json(instance: Instance) -> dict[str, Any]:
    values: dict[str, Any] = {
        "index": instance.index,
        "id": instance.id,
        "prediction": instance.prediction,
        "delays": list(instance.delays_ms),
        "prediction_length": len(instance.delays_ms),
        "reference": instance.reference,
        "source": [instance.source],
        "source_length": instance.source_length_ms,
        "steps": instance.steps,
        **({"truncated": True} if instance.truncated else {}),
    }
    return values if instance.elapsed_ms is None else {**values, "elapsed": list(instance.elapsed_ms)}


def _from_json(values: dict[str, Any]) -> Instance:
    return Instance(
        id=values["id"],
        index=values["index"],
        prediction=values["prediction"],
        reference=values["reference"],
        source=values["source"][0],
        source_length_ms=values["source_length"],
        delays_ms=tuple(values["delays"]),
        elapsed_ms=tuple(values["elapsed"]) if "elapsed" in values else None,
        steps=values["steps"],
        truncated=values.get("truncated", False),
    )


def missing_delays(instances: Sequence[Instance], unit: str) -> Instance | None:
    """The first instance that does not have exactly one delay per unit of its prediction."""
    return next((item for item in instances if len(item.delays_ms) != len(unit_ends(item.prediction, unit))), None)
