"""The embedded model offline: BLEU of its translations and word error rate of its transcripts.

python -m recipes.tiny.scores --data ../shared/data/multi30k --work .tiny --out docs/results
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import jiwer

from recipes.command import run
from recipes.tiny.experiments.corpus import CONFIRMATION, TEST, familiar_rows
from recipes.tiny.experiments.lab import Lab, instances_of
from recipes.tiny.experiments.systems import BASE
from recipes.tiny.experiments.workers import LabConfig
from simulsa.files import atomic_write
from simulsa.manifest import Utterance


@dataclass(frozen=True)
class ScoresConfig:
    """Which model, and where its scores go."""

    lab: LabConfig = field(default_factory=lambda: LabConfig(train_captions=0, dtype="float32"))
    out: Path = Path("docs/results")
    """folder for base.md"""


def score_base(config: ScoresConfig) -> str:
    """Measure the base on both test sets, by voices of the training mix and by voices it never heard."""
    settings = config.lab
    lab = settings.open()
    lines = ["| test set | voices | utterances | BLEU | chrF | word error rate |", "| --- | --- | --- | --- | --- | --- |"]
    for split in (TEST, CONFIRMATION):
        for voices, rows in (
            ("of the training mix", familiar_rows(settings.data, settings.work, split, settings.test_limit)),
            ("never heard", settings.test(split)),
        ):
            [score], _ = lab.measured(BASE, 0, rows, (math.inf,), (0,))
            wer = word_error_rate(lab, rows)
            lines.append(
                f"| {split} | {voices} | {score['utterances']} | {score['bleu']:.1f} | {score['chrf']:.1f} | {wer:.1%} |"
            )
    report = "\n".join(lines) + "\n"
    with atomic_write(config.out / "base.md") as file:
        file.write(report)
    return report


def word_error_rate(lab: Lab, rows: Sequence[Utterance]) -> float:
    """Word error rate of the transcripts, without case and punctuation (jiwer)."""
    transcribed = [replace(row, target_lang=row.source_lang, target_text=row.source_text or "") for row in rows]
    _, folder = lab.measured(BASE, 0, transcribed, (math.inf,), (0,))
    instances = instances_of(folder, math.inf, 0)
    return float(jiwer.wer([plain(i.reference) for i in instances], [plain(i.prediction) for i in instances]))


def plain(text: str) -> str:
    """Lower case, words only."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


if __name__ == "__main__":
    run(lambda config: print(score_base(config)), ScoresConfig, __doc__)
