"""What goes wrong when no tokens are held back (b = 0, k = 500 ms), before and after training: counts and examples.

python -m recipes.experiments.errors --data ../shared/data/multi30k --assets .assets --work .experiments --out docs/results
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from sacrebleu.metrics import CHRF

from recipes.command import run
from recipes.experiments.corpus import TEST
from recipes.experiments.lab import instances_of
from recipes.experiments.systems import BASE, BEST, SFT, SIMULSA
from recipes.experiments.workers import Job, LabConfig, run_jobs
from simulsa.evaluation.instances import Instance
from simulsa.files import atomic_write
from simulsa.lalm.text import ends_sentence

CHUNK_MS, POLICY = 500.0, "rollback:0"
SYSTEMS = (BASE, SFT, SIMULSA, BEST)
WRONG_BELOW = 40.0  # chrF of a sentence


def premature_stop(instance: Instance) -> bool:
    """A full stop was committed at least a second before the end of the speech."""
    early = zip(instance.prediction.split(), instance.delays_ms, strict=True)
    return any(ends_sentence(word) and delay <= instance.source_length_ms - 1000 for word, delay in early)


def invented(instance: Instance) -> bool:
    """The translation runs ahead of the speaker with words that are not in the reference.

    Before half of the speech was spoken, more words were committed than half of the reference's words plus three, and most of
    these are not in the reference at all.
    """
    half = instance.source_length_ms / 2
    words = [word for word, delay in zip(instance.prediction.split(), instance.delays_ms, strict=True) if delay < half]
    reference = _words(instance.reference)
    missing = sum(word not in reference for word in _words(" ".join(words)))
    return len(words) > len(reference) / 2 + 3 and missing > len(words) / 2


def frozen(instance: Instance) -> bool:
    """Nothing was committed in the last second or more of the speech, and the translation is far too short."""
    last = max(instance.delays_ms, default=0.0)
    too_short = len(instance.prediction.split()) < 0.6 * len(instance.reference.split())
    return too_short and last <= instance.source_length_ms - 1000


def repeated(instance: Instance) -> bool:
    """A word twice in a row, or two words twice, that the reference does not repeat."""
    return bool(_repetitions(_words(instance.prediction)) - _repetitions(_words(instance.reference)))


def misheard(instance: Instance) -> bool:
    """None of the other faults, and still wrong: chrF below 40."""
    wrong = CHRF().sentence_score(instance.prediction, [instance.reference]).score < WRONG_BELOW
    return wrong and not any(check(instance) for check in (premature_stop, invented, frozen, repeated))


FAULTS: dict[str, Callable[[Instance], bool]] = {
    "premature full stop": premature_stop,
    "invented rest": invented,
    "frozen after an early end": frozen,
    "repeated words": repeated,
    "wrong, but consistent": misheard,
}


@dataclass(frozen=True)
class ErrorsConfig:
    """How many sentences to examine, and where the report goes."""

    lab: LabConfig = field(default_factory=LabConfig)
    out: Path = Path("docs/results")
    """folder for errors.md"""
    sentences: int = 50
    """the first so many of test_2016_flickr"""
    seed: int = 0
    """seed of cuts and training"""


def analyse(config: ErrorsConfig) -> str:
    """Count the faults of each system, with one example of each; writes the report and returns it."""
    run_jobs(config.lab, [Job(system, config.seed, (TEST,), (CHUNK_MS,), (POLICY,)) for system in SYSTEMS])
    lab, test = config.lab.open(), config.lab.test(TEST)
    found = {}
    for system in SYSTEMS:
        _, folder = lab.measured(system, config.seed, test, (CHUNK_MS,), (POLICY,))
        found[system.name] = instances_of(folder, CHUNK_MS, POLICY)[: config.sentences]
    report = f"{count_table(found)}\n{examples(found[BASE.name], found[BEST.name])}"
    with atomic_write(config.out / "errors.md") as file:
        file.write(report)
    return report


def count_table(found: Mapping[str, Sequence[Instance]]) -> str:
    """How many sentences of each system have each fault; a sentence may have several."""
    lines = [f"| of {len(next(iter(found.values())))} sentences | {' | '.join(found)} |", "| --- |" + " --- |" * len(found)]
    for name, check in FAULTS.items():
        counts = [sum(check(instance) for instance in instances) for instances in found.values()]
        lines.append(f"| {name} | {' | '.join(map(str, counts))} |")
    fine = [sum(not any(check(i) for check in FAULTS.values()) for i in instances) for instances in found.values()]
    lines.append(f"| none of these | {' | '.join(map(str, fine))} |")
    return "\n".join(lines) + "\n"


def examples(before: Sequence[Instance], after: Sequence[Instance]) -> str:
    """For each fault, the first sentence that has it before, with its translation after; `|` marks the end of a chunk."""
    lines = []
    for name, check in FAULTS.items():
        pair = next(((old, new) for old, new in zip(before, after, strict=True) if check(old)), None)
        if pair:
            old, new = pair
            lines += [f"- **{name}** (*{old.reference}*)", f"  - before: {_chunked(old)}", f"  - after: {_chunked(new)}"]
    return "\n".join(lines) + "\n"


def _chunked(instance: Instance) -> str:
    words = instance.prediction.split()
    if not words:
        return "(nothing)"
    text = words[0]
    for (before, now), word in zip(pairwise(instance.delays_ms), words[1:], strict=True):
        text += f" {'| ' if now > before else ''}{word}"
    return text.replace("|", "\\|")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _repetitions(words: Sequence[str]) -> set[tuple[str, ...]]:
    once = {(one,) for one, other in pairwise(words) if one == other}
    twice = {tuple(words[i : i + 2]) for i in range(len(words) - 3) if words[i : i + 2] == words[i + 2 : i + 4]}
    return once | twice


if __name__ == "__main__":
    run(analyse, ErrorsConfig, __doc__)
