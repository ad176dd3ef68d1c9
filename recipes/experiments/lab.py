"""Build and measure systems, each only once: every result is in a folder named by a hash of the inputs that determine it.

A changed seed or setting gives a different folder, so only what depends on it is done again. Interrupted work resumes; broken
results are rebuilt, never read.
"""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from recipes.experiments.corpus import Corpus
from recipes.experiments.systems import System
from simulsa.augmentation.augment import augment
from simulsa.augmentation.config import AugmentConfig
from simulsa.augmentation.journal import JournalError
from simulsa.augmentation.output import AugmentError
from simulsa.evaluation.config import EvaluateConfig
from simulsa.evaluation.evaluate import evaluate
from simulsa.evaluation.instances import EvaluationError, Instance, log_name, read_instances
from simulsa.evaluation.scores import Score
from simulsa.lalm.interface import LALMError
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.lalm.signature import text_signature
from simulsa.manifest import Utterance
from simulsa.settings import to_mapping
from simulsa.streaming.policies import parse_policy
from simulsa.training.config import TrainConfig
from simulsa.training.record import rows_hash
from simulsa.training.train import TrainError, adapted, train_adapter

logger = logging.getLogger("simulsa")

Made = TypeVar("Made")
BROKEN = (AugmentError, EvaluationError, JournalError, LALMError, TrainError)
BATCH_SIZE = 48


@dataclass(frozen=True)
class Lab:
    """A base, its fine-tuning corpus, and a folder for everything made from them."""

    base: HuggingFaceLALM
    """what cuts and is trained, in float32"""
    measurable: HuggingFaceLALM
    """the same base in the number format of the measurements"""
    corpus: Corpus
    work: Path

    def augmented(self, system: System, seed: int) -> list[Utterance]:
        """The system's simultaneous rows, cut from captions that are new to the base."""
        if system.augmentation is None:
            return []
        augmenter = self.tuned(system.augmented_by, seed, self.base) if system.augmented_by else self.base
        number = max(1, round(system.share * len(self.corpus.offline)))
        config = replace(system.augmentation, num=number, seed=seed)
        key = self._key(_choices(config), augmenter.signature.rpartition("@")[2], rows_hash(self.corpus.fresh))
        out = self.work / "augmented" / f"{key}.jsonl"
        return rebuilding(out, lambda overwrite: augment(self.corpus.fresh, augmenter, replace(config, overwrite=overwrite), out))

    def tuned(self, system: System, seed: int, base: HuggingFaceLALM) -> HuggingFaceLALM:
        """The system's model: `base`, with the system's adapter unless it is the base itself."""
        if system.training is None:
            return base
        rows, config = self.training(system, system.training, seed)
        return rebuilding(
            config.out, lambda overwrite: adapted(base, train_adapter(self.base, rows, replace(config, overwrite=overwrite)))
        )

    def training(self, system: System, config: TrainConfig, seed: int) -> tuple[list[Utterance], TrainConfig]:
        """The rows that `system` is trained on, and the settings `config` with the seed and the adapter's folder."""
        augmented = self.augmented(system, seed)
        copies = [replace(row, id=f"{row.id}#{number}") for row in augmented for number in range(1, system.repeats)]
        rows = [*self.corpus.offline, *augmented, *copies]
        config = replace(config, seed=seed)
        key = self._key(_choices(config), self.base.signature, rows_hash(rows))
        return rows, replace(config, out=self.work / "adapters" / key)

    def measured(
        self,
        system: System,
        seed: int,
        test: Sequence[Utterance],
        chunks_ms: Sequence[float],
        policies: Sequence[str],
    ) -> tuple[list[Score], Path]:
        """The system's scores on `test`, and the folder with the scores and instance logs."""
        lalm = self.tuned(system, seed, self.measurable)
        key = self._key(lalm.signature.rpartition("@")[2], str(lalm.dtype), rows_hash(test))
        out = self.work / "scores" / key
        config = EvaluateConfig(
            chunk_ms=tuple(chunks_ms),
            policy=tuple(map(parse_policy, policies)),
            out=out,
            batch_size=BATCH_SIZE,
            on_error="skip",
            preflight=False,
        )
        result = rebuilding(out, lambda overwrite: evaluate(lalm, test, replace(config, overwrite=overwrite)))
        return result.scores, out

    def _key(self, *parts: object) -> str:
        return text_signature(json.dumps(part, default=str, sort_keys=True) for part in parts)


def _choices(settings: AugmentConfig | TrainConfig) -> dict[str, Any]:
    """The settings that differ from the defaults, so that existing results stay valid when simulsa gains a setting."""
    defaults = to_mapping(type(settings)())
    return {name: value for name, value in to_mapping(settings).items() if value != defaults[name]}


def rebuilding(out: Path, make: Callable[[bool], Made]) -> Made:
    """Call `make(False)`, which resumes from what is in `out`; if that is broken, call `make(True)`, which starts again.

    Only one process at a time works on a given `out`; any other waits and then finds the work done.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        existed = out.exists()
        try:
            return make(False)
        except BROKEN as error:
            if not existed:
                raise
            logger.warning("building %s again, because what was there cannot be used: %s", out.name, error)
            return make(True)


def instances_of(folder: Path, chunk_ms: float, policy: str) -> list[Instance]:
    """The translations of one setting."""
    return read_instances(folder / log_name(chunk_ms, parse_policy(policy)))
