"""`correct`: let a tuned model translate while the speaker talks, and make a row of each full stop that came too early.

The rows of `augment` follow the reference; at run time the model follows its own words, and there it makes a mistake that no
reference shows: all that was said so far is translated, the sentence could end here, so the model ends it, and is silent from
then on. Here it does so on training speech. Another model, best the base, judges each full stop by the whole audio, and the row
says: stop here, without the full stop. This is one step of imitation learning on the learner's own states (DAgger, Ross et al.
2011) with rows of the same kind as SimulSA's.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from simulsa import strict_json
from simulsa.audio import AudioError, samples_to_ms, samples_to_s
from simulsa.augmentation.config import MIN_CUT_MS
from simulsa.augmentation.journal import Journal
from simulsa.augmentation.output import AugmentError, described, made_once
from simulsa.augmentation.truncation import row_generator
from simulsa.lalm.interface import LALM
from simulsa.lalm.signature import text_signature
from simulsa.lalm.text import ends_sentence, whole_words
from simulsa.manifest import Utterance, too_long, unheard
from simulsa.progress import track
from simulsa.settings import check_whole_numbers
from simulsa.streaming.state import StreamConfig, StreamState
from simulsa.streaming.step import step

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
    hold_back: int = 0
    """of the tokens before such a full stop, leave off the last so many, and what is left of a word"""
    seed: int = 0
    """seed of the order of the rows and of their chunks"""
    batch_size: int = 16
    """utterances that are translated side by side; does not change the rows"""
    on_error: Literal["fail", "skip"] = "fail"
    """what a row with broken audio does: end the run, or be left out"""
    overwrite: bool = False
    """start again although the output exists or another run's journal lies beside it"""

    def __post_init__(self) -> None:
        check_whole_numbers(self, {"num": 1, "batch_size": 1, "seed": 0, "hold_back": 0})
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
    settings = [config.num, config.tau, config.min_chunk_ms, config.max_chunk_ms, config.seed, config.hold_back]
    described_settings = strict_json.dumps(settings, escape=True)
    signature = text_signature(["correct", described_settings, lalm.signature, judge.signature, *described(offline)])
    run = _Run(lalm, judge, config, signature)
    return made_once(out, signature, config.overwrite, lambda journal: run.make(offline, journal))


@dataclass(frozen=True)
class _Mistake:
    """Where the model closed the sentence: samples heard, all tokens it said by then, and how many of them are to stay."""

    samples: int
    tokens: list[int]
    kept: int


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
            done = self._translate([row for row in batch if row.id not in known])
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

    def _translate(self, rows: Sequence[Utterance]) -> dict[str, list[object]]:
        """Each row's mistake, by the row's id, as plain values; an empty list for a row without any."""
        found: dict[str, list[object]] = {row.id: [] for row in rows}
        streams = dict(self._open(rows))
        while streams := {name: state for name, state in streams.items() if not found[name] and _has_more(state)}:
            for name, mistake in zip(streams, self._advance(list(streams.values())), strict=True):
                if mistake:
                    found[name] = [mistake.samples, mistake.tokens, mistake.kept]
        return found

    def _advance(self, streams: Sequence[StreamState]) -> list[_Mistake | None]:
        """Translate one chunk of each stream, and judge the full stops that became final."""
        before = [len(state.committed) for state in streams]
        step(self.lalm, streams)
        said, directions = [state.committed for state in streams], [state.config.direction for state in streams]
        heard = self.judge.score([state.audio[: state.heard_samples] for state in streams], said, directions)
        whole = self.judge.score([state.audio for state in streams], said, directions)
        mistakes: list[_Mistake | None] = []
        for state, start, some, every in zip(streams, before, heard, whole, strict=True):
            implausible = every.log_probs < math.log(self.config.tau) + some.log_probs
            closings = (i for i in range(start, len(state.committed)) if ends_sentence(self.lalm.decode([state.committed[i]])))
            early = next((i for i in closings if implausible[i]), None)
            mistakes.append(None if early is None else _Mistake(state.heard_samples, state.committed, early))
        return mistakes

    def _open(self, rows: Sequence[Utterance]) -> Iterator[tuple[str, StreamState]]:
        """A stream with all of each row's audio, by the row's id."""
        low, high = self.config.min_chunk_ms, self.config.max_chunk_ms
        for row in rows:
            chunk_ms = low + (high - low) * float(row_generator(self.config.seed, row.id).random())
            state = StreamState(StreamConfig(row.target_lang, row.source_lang, chunk_ms, rollback=0), self.lalm.max_samples)
            try:
                audio = row.load()
                if len(audio) > self.lalm.max_samples:
                    raise AudioError(too_long("the row", len(audio), self.lalm.max_samples))
                state.receive(audio)
            except AudioError as error:
                if self.config.on_error == "fail":
                    raise unheard(row, error) from error
                logger.warning("correct: row %r left out: %s", row.id, error)
                continue
            yield row.id, state

    def _held_back(self, row: Utterance, mistake: _Mistake) -> int:
        """How many tokens the row keeps of those before the full stop."""
        if not self.config.hold_back:
            return mistake.kept
        return whole_words(self.lalm, mistake.tokens, max(mistake.kept - self.config.hold_back, 0), row.target_lang)

    def _row(self, row: Utterance, mistake: _Mistake) -> Utterance:
        kept = mistake.tokens[: self._held_back(row, mistake)]
        return dataclasses.replace(
            row,
            id=f"{row.id}@{samples_to_ms(mistake.samples):.0f}ms-corrected",
            parent_id=row.id,
            duration_s=samples_to_s(mistake.samples),
            source_text=None,
            target_text=self.lalm.decode(kept),
            target_tokens=tuple(kept),
            rest_tokens=tuple(mistake.tokens[len(kept) :]),
            made_by={
                "corrected": "full stop too early",
                "tau": self.config.tau,
                "hold_back": self.config.hold_back,
                "cut_samples": mistake.samples,
                "kept_tokens": len(kept),
                "total_tokens": len(mistake.tokens),
                "seed": self.config.seed,
                "model": self.lalm.signature,
                "judge": self.judge.signature,
                "run": self.signature,
            },
        )


def _has_more(state: StreamState) -> bool:
    """Whether a chunk is waiting before the speech ends: where it ends, a full stop is right."""
    following = state.next_samples()
    return following is not None and following < len(state.audio)
