"""`correct`: let a tuned model translate while the speaker talks, and make a row of each full stop that came too early.

The rows of `augment` follow the reference; at run time the model follows its own words, and there it makes a mistake that no
reference shows: all that was said so far is translated, the sentence could end here, so the model ends it, and is silent from
then on. Here it does so on training speech. Another model, best the base, judges each full stop by the whole audio, and the row
says: stop here, without the full stop. This is one step of imitation learning on the learner's own states (DAgger, Ross et al.
2011) with rows of the same kind as SimulSA's.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from simulsa.audio import AudioError, ms_to_samples, samples_to_ms, samples_to_s
from simulsa.augmentation.config import MIN_CUT_MS
from simulsa.augmentation.journal import Journal
from simulsa.augmentation.output import AugmentError, described, finished_rows
from simulsa.augmentation.truncation import row_generator
from simulsa.lalm.interface import LALM, Direction
from simulsa.lalm.signature import text_signature
from simulsa.lalm.text import ends_sentence
from simulsa.manifest import Utterance, too_long, write_manifest
from simulsa.progress import track

logger = logging.getLogger("simulsa")


@dataclass(frozen=True)
class CorrectConfig:
    """How rows are made of full stops that came too early."""

    num: int = 1500
    """how many rows to make; there are fewer when the model makes fewer mistakes"""
    tau: float = 0.5
    """a full stop is too early when the whole audio makes it less than tau times as plausible as the audio so far"""
    min_chunk_ms: float = 500
    """the shortest chunk (k) in which the model hears; each row draws its own"""
    max_chunk_ms: float = 1200
    """the longest chunk"""
    seed: int = 0
    """seed of the order of the rows and of their chunks"""
    batch_size: int = 16
    """utterances that are translated side by side; does not change the rows"""
    on_error: Literal["fail", "skip"] = "fail"
    """what a row with broken audio does: end the run, or be left out"""
    overwrite: bool = False
    """start again although the output exists or another run's journal lies beside it"""

    def __post_init__(self) -> None:
        for name, lowest in (("num", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise ValueError(f"{name} is {value!r}; it must be a whole number, {lowest} or more")
        if isinstance(self.tau, str) or not 0 < self.tau <= 1:
            raise ValueError(f"tau is {self.tau!r}; it must be above 0 and at most 1")
        if not MIN_CUT_MS <= self.min_chunk_ms <= self.max_chunk_ms < math.inf:
            raise ValueError(
                f"min_chunk_ms is {self.min_chunk_ms} and max_chunk_ms {self.max_chunk_ms}; both must be numbers, min_chunk_ms "
                f"{MIN_CUT_MS} or more, and max_chunk_ms no smaller"
            )
        if self.on_error not in ("fail", "skip"):
            raise ValueError(f"on_error is {self.on_error!r}; it must be one of fail, skip")


def correct(
    rows: Sequence[Utterance], lalm: LALM, judge: LALM, config: CorrectConfig | None = None, out: Path | None = None
) -> list[Utterance]:
    """Make up to `config.num` rows where `lalm`, hearing offline rows chunk by chunk at b = 0, closes a sentence too early.

    `judge` must have the same tokens; it scores the full stop given the audio so far and given all of it. At most one row comes
    from an utterance: the audio up to the chunk, the text before the full stop as the target, what came behind as its rest.
    Rows come in the order of a seeded permutation, the same for any batch size. With `out`, the manifest is written there; a run
    that was stopped goes on where it was, and one that is finished is not done again.

    Raises `AugmentError` when no mistake is found, the two models' vocabularies differ, or `out` holds something else,
    `JournalError` for another run's journal, and `AudioError` for broken audio unless `config.on_error` is `skip`.
    """
    config = config or CorrectConfig()
    if lalm.vocabulary_size != judge.vocabulary_size or lalm.eos_id != judge.eos_id:
        raise AugmentError(f"{judge.name} has other tokens than {lalm.name}; take the base of {lalm.name} as the judge")
    offline = [row for row in rows if not row.is_augmented]
    settings = [config.num, config.tau, config.min_chunk_ms, config.max_chunk_ms, config.seed]
    signature = text_signature(["correct", json.dumps(settings), lalm.signature, judge.signature, *described(offline)])
    run = _Run(lalm, judge, config, signature)
    if out is None:
        return run.make(offline, None)
    out = Path(out)
    if out.suffix != ".jsonl":
        raise AugmentError(f"{out}: the output must be a .jsonl file, because the journal takes its name")
    journal = Journal(out, signature)
    made = None if config.overwrite else finished_rows(out, signature)
    if made is None:
        made = run.make(offline, journal)
        write_manifest(out, made)
    journal.remove()
    return made


@dataclass(frozen=True)
class _Mistake:
    """Where the model closed the sentence: samples heard, all tokens it said by then, and how many of them are to stay."""

    samples: int
    tokens: list[int]
    kept: int


@dataclass
class _Speech:
    """An utterance while it is translated."""

    row: Utterance
    audio: np.ndarray
    chunk: int
    heard: int = 0
    committed: list[int] = field(default_factory=list)

    def listen(self) -> bool:
        """Hear one chunk more; false at the end, where a full stop is right."""
        self.heard += self.chunk
        return self.heard < len(self.audio)

    @property
    def so_far(self) -> np.ndarray:
        return self.audio[: self.heard]

    @property
    def direction(self) -> Direction:
        return Direction(self.row.source_lang, self.row.target_lang)


@dataclass
class _Run:
    lalm: LALM
    judge: LALM
    config: CorrectConfig
    signature: str

    def make(self, offline: Sequence[Utterance], journal: Journal | None) -> list[Utterance]:
        known = journal.start(self.config.overwrite) if journal else {}
        order = np.random.default_rng(self.config.seed).permutation(len(offline))
        size = self.config.batch_size
        made: list[Utterance] = []
        for start in track(range(0, len(order), size), "correcting"):
            batch = [offline[index] for index in order[start : start + size]]
            done = dict(self._translate([row for row in batch if row.id not in known]))
            if journal and done:
                journal.append(done)
            known.update(done)
            made += [self._row(row, _Mistake(*known[row.id])) for row in batch if known.get(row.id)]
            if len(made) >= self.config.num:
                break
        if not made:
            raise AugmentError(f"{self.lalm.name} closed no sentence of the {len(offline)} offline rows too early")
        made = made[: self.config.num]
        logger.info("correct: %d rows made, %d asked for", len(made), self.config.num)
        return made

    def _translate(self, rows: Sequence[Utterance]) -> Iterator[tuple[str, list[object]]]:
        """Each row's mistake, by the row's id, as plain values; an empty list for a row without any."""
        speeches = list(self._load(rows))
        for speech in speeches:
            speech.listen()
        found: dict[str, list[object]] = {row.id: [] for row in rows}
        while speeches := [speech for speech in speeches if speech.heard < len(speech.audio)]:
            for speech, mistake in zip(speeches, self._advance(speeches), strict=True):
                if mistake is None:
                    speech.listen()
                else:
                    found[speech.row.id] = [mistake.samples, mistake.tokens, mistake.kept]
                    speech.heard = len(speech.audio)
        yield from found.items()

    def _advance(self, speeches: Sequence[_Speech]) -> list[_Mistake | None]:
        """Translate one chunk of each speech; what was said is committed, unless it holds a mistake."""
        so_far = [speech.so_far for speech in speeches]
        directions = [speech.direction for speech in speeches]
        new = self.lalm.continue_(so_far, [speech.committed for speech in speeches], directions)
        said = [[*speech.committed, *tokens] for speech, tokens in zip(speeches, new, strict=True)]
        heard = self.judge.score(so_far, said, directions)
        whole = self.judge.score([speech.audio for speech in speeches], said, directions)
        mistakes: list[_Mistake | None] = []
        for speech, tokens, some, every in zip(speeches, said, heard, whole, strict=True):
            implausible = every.log_probs < math.log(self.config.tau) + some.log_probs
            closings = [i for i in range(len(speech.committed), len(tokens)) if self._closes(tokens, i, speech.row.target_lang)]
            early = next((i for i in closings if implausible[i]), None)
            mistakes.append(None if early is None else _Mistake(speech.heard, tokens, early))
            speech.committed = tokens
        return mistakes

    def _closes(self, tokens: Sequence[int], position: int, lang: str) -> bool:
        return ends_sentence(self.lalm.decode(tokens[position : position + 1]))

    def _load(self, rows: Sequence[Utterance]) -> Iterator[_Speech]:
        low, high = self.config.min_chunk_ms, self.config.max_chunk_ms
        for row in rows:
            chunk_ms = low + (high - low) * float(row_generator(self.config.seed, row.id).random())
            try:
                audio = row.load()
                if len(audio) > self.lalm.max_samples:
                    raise AudioError(too_long("the row", len(audio), self.lalm.max_samples))
            except AudioError as error:
                if self.config.on_error == "fail":
                    raise AudioError(f"row {row.id!r}: {error}; or leave such rows out with --on-error skip") from error
                logger.warning("correct: row %r left out: %s", row.id, error)
                continue
            yield _Speech(row, audio, ms_to_samples(chunk_ms))

    def _row(self, row: Utterance, mistake: _Mistake) -> Utterance:
        kept = mistake.tokens[: mistake.kept]
        return dataclasses.replace(
            row,
            id=f"{row.id}@{samples_to_ms(mistake.samples):.0f}ms-corrected",
            parent_id=row.id,
            duration_s=samples_to_s(mistake.samples),
            source_text=None,
            target_text=self.lalm.decode(kept),
            target_tokens=tuple(kept),
            rest_tokens=tuple(mistake.tokens[mistake.kept :]),
            made_by={
                "corrected": "full stop too early",
                "tau": self.config.tau,
                "cut_samples": mistake.samples,
                "kept_tokens": mistake.kept,
                "total_tokens": len(mistake.tokens),
                "seed": self.config.seed,
                "model": self.lalm.signature,
                "judge": self.judge.signature,
                "run": self.signature,
            },
        )
