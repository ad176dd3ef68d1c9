"""Number of tokens to keep for a batch of cuts: the part of augmentation that needs the model and that any worker can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulsa.audio import SAMPLES_PER_MS, AudioError, samples_to_s
from simulsa.augmentation.config import AugmentConfig
from simulsa.augmentation.speculation import kept_tokens, resolve_tau
from simulsa.lalm.interface import LALM, TokenScores
from simulsa.lalm.text import whole_characters, whole_words
from simulsa.manifest import Utterance, too_long

if TYPE_CHECKING:
    from simulsa.lalm.frontend import Frontend


@dataclass(frozen=True)
class Cut:
    """An offline row and the number of samples to keep."""

    row: Utterance
    samples: int

    @property
    def id(self) -> str:
        """The id of the simultaneous row."""
        return f"{self.row.id}@{self.samples // SAMPLES_PER_MS}ms"

    @property
    def heard(self) -> Utterance:
        """The row with its audio truncated at the cut."""
        return dataclasses.replace(self.row, duration_s=samples_to_s(self.samples))


@dataclass(frozen=True)
class LoadedCuts:
    """A batch of cuts, each with the audio before the cut as the model takes it."""

    cuts: list[Cut]
    heard: list[Any]
    broken: list[tuple[Utterance, str]]
    """rows whose audio cannot be read, with the problem"""


@dataclass(frozen=True)
class Speculation:
    """The work on a batch of cuts: one forward pass."""

    config: AugmentConfig
    max_samples: int
    """of the model's window, which every cut must fit"""

    def load(self, cuts: Sequence[Cut], frontend: Frontend | None, ahead: bool) -> LoadedCuts:
        """Read the audio of a batch and prepare it; always, because features made elsewhere may differ by rounding."""
        batch = LoadedCuts([], [], [])
        for cut in cuts:
            try:
                if cut.samples > self.max_samples:
                    problem = too_long("the cut", cut.samples, self.max_samples)
                    raise AudioError(f"{problem}, or use truncation 'beta-decay' with a smaller --max-ms")
                audio = cut.heard.load()
            except AudioError as error:
                batch.broken.append((cut.row, str(error)))
                continue
            batch.cuts.append(cut)
            batch.heard.append(audio if frontend is None else frontend.keyed(audio, cut.row.direction))
        return batch

    def run(self, lalm: LALM, loaded: LoadedCuts) -> tuple[dict[str, int], list[tuple[Utterance, str]]]:
        """How many target tokens each cut of a batch keeps, by id, and the rows whose audio cannot be read, with the problem."""
        if not loaded.cuts:
            return {}, loaded.broken
        targets = [lalm.encode(cut.row.target_text) for cut in loaded.cuts]
        directions = [cut.row.direction for cut in loaded.cuts]
        scores = lalm.score(lalm.hear(loaded.heard, directions), targets)
        rows = zip(loaded.cuts, targets, scores, strict=True)
        return {cut.id: self._kept(lalm, cut, target, own) for cut, target, own in rows}, loaded.broken

    def _kept(self, lalm: LALM, cut: Cut, target: Sequence[int], scores: TokenScores) -> int:
        tau = resolve_tau(self.config.tau, lalm.vocabulary_size)
        count = kept_tokens(scores, self.config.criterion, tau, lalm.vocabulary_size)
        if self.config.whole_words:
            count = whole_words(lalm, target, count, cut.row.target_lang)
        return whole_characters(lalm, target[:count])
