"""`augment`: truncate utterances at random points and keep the part of each translation that the model finds supported."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import attrgetter
from pathlib import Path

import numpy as np

from simulsa import strict_json
from simulsa.audio import AudioError
from simulsa.augmentation.config import AugmentConfig
from simulsa.augmentation.journal import Journal
from simulsa.augmentation.output import AugmentError, finished_rows
from simulsa.augmentation.scoring import Cut, Speculation
from simulsa.augmentation.speculation import resolve_tau
from simulsa.augmentation.summary import AugmentSummary
from simulsa.augmentation.truncation import draw_cut, row_generator
from simulsa.extras import require
from simulsa.files import sole_writer
from simulsa.lalm.grouping import PASS_SAMPLES, batches
from simulsa.lalm.interface import LALM
from simulsa.lalm.preflight import preflight
from simulsa.lalm.signature import audio_signature, text_signature
from simulsa.lalm.workers import LocalWorker, Workers, announce
from simulsa.manifest import Utterance, check_ids, unheard, write_manifest
from simulsa.progress import track

logger = logging.getLogger("simulsa")


def augment(
    rows: Sequence[Utterance],
    lalm: LALM,
    config: AugmentConfig | None = None,
    out: Path | None = None,
    workers: Workers | None = None,
) -> list[Utterance]:
    """Make `config.num` simultaneous rows from offline ones; the model scores each batch in one forward pass.

    Rows come in the order of a seeded permutation of their parents, whatever the batch size. Augmented rows among `rows` are
    ignored. A partial translation may be empty: the model should then output nothing yet.

    With `out`, the manifest is written there, with a histogram of the cuts (.png). An interrupted run resumes from its journal
    (.partial.jsonl), and an existing manifest made from the same rows, model and settings is returned as is. `workers` score
    batches instead of `lalm`, with copies of it; the rows are the same.

    Raises `AugmentError` if fewer rows than `num` can be cut, `out` holds something else, another process is making it, or the
    model's scores are approximate (unless that is accepted), `JournalError` for another run's journal, `AudioError` for broken
    audio unless `config.on_error` is `skip`, and `LALMError` if the model fails the preflight.
    """
    config = config or AugmentConfig()
    offline = [row for row in rows if not row.is_augmented]
    run = _Run(lalm, config, _signature(offline, lalm, config), audio_signature(offline), workers or LocalWorker(lalm))
    if out is None:
        return run.make(offline, None)
    require("augmentation", "train")  # for the histogram
    out = Path(out)
    if out.suffix != ".jsonl":
        raise AugmentError(f"{out}: the output must be a .jsonl file, because files beside it are named after it")
    with sole_writer(out, AugmentError(f"{out}: another process is making it; wait for it, or choose another --out")):
        return _finished_or_made(run, offline, out)


def _finished_or_made(run: _Run, offline: Sequence[Utterance], out: Path) -> list[Utterance]:
    journal = Journal(out, run.signature, run.audio)
    made = None if run.config.overwrite else finished_rows(out, run.signature, run.audio)
    if made is None:
        made = run.make(offline, journal)
        summary = AugmentSummary.of(made)
        logger.info("augment: kept tokens by the length of the truncated audio\n%s", summary.table())
        summary.plot(out.with_suffix(".png"))
        write_manifest(out, made)
    journal.remove()
    return made


@dataclass
class _Run:
    """One run: its model and settings, and how many rows were too short to cut or had broken audio."""

    lalm: LALM
    config: AugmentConfig
    signature: str
    audio: str | None
    workers: Workers
    short: int = 0
    broken: int = 0

    @property
    def tau(self) -> float:
        return resolve_tau(self.config.tau, self.lalm.vocabulary_size)

    def make(self, offline: Sequence[Utterance], journal: Journal | None) -> list[Utterance]:
        check_ids(offline, ", because cuts are drawn by id")
        candidates = self._candidates(offline)
        cuts = list(islice(candidates, self.config.num))
        # broken audio is found only when a candidate is loaded; with `skip`, others take its place
        if len(cuts) + self.broken < self.config.num:
            raise AugmentError(self._too_few(len(cuts) + self.broken, len(offline)))
        if self.lalm.approximate and not self.config.accept_approximate:
            raise AugmentError(
                f"{self.lalm.name}: its scores, by which rows are made, are approximate: {self.lalm.approximate}; or take them "
                "as they are with --accept-approximate"
            )
        kept = journal.start(self.config.overwrite) if journal else {}
        if kept:
            logger.info("augment: resuming after %d finished rows", len(kept))
        if self.config.preflight and cuts:
            preflight(self.lalm, cuts[0].row.direction)
        made: list[Utterance] = []
        while cuts:
            self._speculate_all(cuts, kept, journal)
            made += [self._row(cut, kept[cut.id]) for cut in cuts if cut.id in kept]
            cuts = list(islice(candidates, self.config.num - len(made)))  # also replaces broken ones
        if not made:
            raise AugmentError(f"none of the {self.broken} rows that could be cut has readable audio; see the warnings above")
        logger.info("augment: %d rows made; %d too short to cut, %d with broken audio", len(made), self.short, self.broken)
        return made

    def _candidates(self, offline: Sequence[Utterance]) -> Iterator[Cut]:
        """The rows that can be cut, with their cuts, in the order of a seeded permutation."""
        allowed = self.config.cut_range
        for index in np.random.default_rng(self.config.seed).permutation(len(offline)):
            row = offline[index]
            try:
                length = row.length_samples()
            except AudioError as error:
                self._give_up(row, error)
                continue
            if not allowed.can_cut(length):
                self.short += 1
                continue
            samples = draw_cut(self.config.truncation, length, allowed, row_generator(self.config.seed, row.id))
            yield Cut(row, samples)

    def _speculate_all(self, cuts: Sequence[Cut], kept: dict[str, int], journal: Journal | None) -> None:
        """Add the number of kept tokens of each cut to `kept`, batch by batch; cuts already in `kept` are skipped."""
        # rows of a batch have similar lengths, for little padding; the longest come first, so that a batch that does not fit
        # into memory is the first one
        ordered = sorted(cuts, key=lambda cut: (-cut.samples, cut.row.id))
        together = batches(ordered, attrgetter("samples"), self.config.rows_per_pass(self.lalm.device), PASS_SAMPLES)
        waiting = [todo for batch in together if (todo := [cut for cut in batch if cut.id not in kept])]
        announce(self.lalm, (cut.row.direction for cut in cuts))
        work = Speculation(self.config, self.lalm.max_samples)
        with self.workers.map(work, waiting, self.config.workers) as results:
            for done, broken in track(results, "augmenting", len(waiting)):
                for row, problem in broken:
                    self._give_up(row, AudioError(problem))
                if journal and done:
                    journal.append(done)
                kept.update(done)

    def _row(self, cut: Cut, kept: int) -> Utterance:
        tokens = self.lalm.encode(cut.row.target_text)
        return dataclasses.replace(
            cut.heard,
            id=cut.id,
            parent_id=cut.row.id,
            source_text=None,  # the transcript is that of the whole utterance
            target_text=self.lalm.decode(tokens[:kept]),
            target_tokens=tuple(tokens[:kept]),
            made_by={
                "truncation": self.config.truncation,
                "criterion": self.config.criterion,
                "tau": self.tau,
                "whole_words": self.config.whole_words,
                "kept_tokens": kept,
                "total_tokens": len(tokens),
                "cut_samples": cut.samples,
                "seed": self.config.seed,
                "model": self.lalm.signature,
                "run": self.signature,
                "audio": self.audio,
            },
        )

    def _give_up(self, row: Utterance, error: AudioError) -> None:
        if self.config.on_error == "fail":
            raise unheard(row, error) from error
        logger.warning("augment: row %r skipped: %s", row.id, error)
        self.broken += 1

    def _too_few(self, usable: int, offline: int) -> str:
        fix = f"use --num {usable} or fewer, or give more rows" if usable else "give rows that are longer and not augmented"
        return (
            f"num is {self.config.num} and only {usable} of the {offline} offline rows can be cut ({self.short} are not longer "
            f"than min_ms, {self.config.min_ms:g} ms); {fix}"
        )


def _signature(offline: Sequence[Utterance], lalm: LALM, config: AugmentConfig) -> str:
    """Twelve hexadecimal digits of everything that determines the rows: settings, model, offline rows; not file locations."""
    tau = resolve_tau(config.tau, lalm.vocabulary_size)
    cuts = dataclasses.astuple(config.cut_range)
    settings = [config.num, config.truncation, config.criterion, tau, config.whole_words, *cuts, config.seed]
    described = (
        [row.id, Path(row.audio).name, row.start_s, row.duration_s, row.source_lang, row.target_lang, row.target_text]
        for row in offline
    )
    dumps = partial(strict_json.dumps, escape=True)
    return text_signature([dumps(settings), lalm.signature, *map(dumps, described)])
