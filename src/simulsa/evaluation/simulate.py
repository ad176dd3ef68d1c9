"""Lock-step simulation: many utterances of a test set go through `step` together, as if all were being spoken at once."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simulsa.audio import AudioError, samples_to_ms
from simulsa.evaluation.instances import EvaluationError, Instance, single_spaced
from simulsa.lalm.cache import PreparedLALM
from simulsa.lalm.grouping import PASS_SAMPLES, batches
from simulsa.lalm.interface import LALM
from simulsa.lalm.workers import Workers
from simulsa.languages import latency_unit, unit_ends
from simulsa.loading import OnError, Processes
from simulsa.manifest import Utterance, too_long
from simulsa.progress import track
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.state import StreamState, Update
from simulsa.streaming.step import step

if TYPE_CHECKING:
    from simulsa.lalm.frontend import Frontend

logger = logging.getLogger("simulsa")


@dataclass(frozen=True)
class Clip:
    """A row that fits the model's window, its place in the manifest, and its length in samples at `SAMPLE_RATE`."""

    row: Utterance
    index: int
    samples: int


def admit(rows: Sequence[Utterance], max_samples: int, on_error: OnError = "fail") -> list[Clip]:
    """The rows whose audio exists and fits `max_samples`, judging by the file headers, in order.

    Raises `EvaluationError` at the first row of any other kind, or leaves it out with a warning when `on_error` is `skip`.
    """
    clips = []
    for index, row in enumerate(rows):
        try:
            samples = row.length_samples()
            if samples > max_samples:
                raise AudioError(too_long(row.id, samples, max_samples))
        except AudioError as error:
            _refuse(row, str(error), on_error)
        else:
            clips.append(Clip(row, index, samples))
    return clips


@dataclass(frozen=True)
class Lockstep:
    """The work on a group of clips of about the same length: translate them simultaneously, a chunk of each at a time.

    The same amount of each has been heard, so there is no padding. A clip that took the place of a finished one would have to
    catch up, and would be padded to the others meanwhile: that took 1.1 to 1.7 times as long.
    """

    config: StreamConfig
    """the setting; languages are the rows'"""
    timed: bool = False

    def load(self, clips: Sequence[Clip], frontend: Frontend | None, ahead: bool) -> LoadedClips:
        """Read the audio of a group and, if the model does not wait for it and is not timed, prepare the input of each step."""
        loaded = LoadedClips([], {}, [])
        for clip in clips:
            try:
                audio = clip.row.load()
            except AudioError as error:
                loaded.broken.append((clip.row, str(error)))
                continue
            loaded.audios.append((clip, audio))
            if frontend is not None and ahead and not self.timed:
                steps = [frontend.keyed(audio[:end], clip.row.direction) for end in self._ends(len(audio))]
                loaded.prepared.update((step.key, step) for step in steps)
        return loaded

    def run(self, lalm: LALM, loaded: LoadedClips) -> tuple[list[Instance], list[tuple[Utterance, str]]]:
        """The instances of the clips, and the rows whose audio turned out to be broken, with the problem."""
        runs = [_Run(clip, self._start(clip.row, audio, lalm)) for clip, audio in loaded.audios]
        prepared_lalm = PreparedLALM(lalm, loaded.prepared) if loaded.prepared else lalm
        active = runs
        while active:
            for run, update in zip(active, step(prepared_lalm, [run.state for run in active]), strict=True):
                run.updates.append(update)
            active = [run for run in active if not run.state.finished]
        return [run.instance(self.timed) for run in runs], loaded.broken

    @property
    def label(self) -> str:
        """The setting in a few words."""
        return f"k = {self.config.chunk_ms:g}, {self.config.commit_policy.label}"

    def _ends(self, samples: int) -> list[int]:
        """The sample at which each step's share of a clip ends."""
        chunk = self.config.chunk_samples
        return [*(range(chunk, samples, chunk) if chunk is not None else ()), samples]

    def _start(self, row: Utterance, audio: np.ndarray, lalm: LALM) -> StreamState:
        """A stream that has received all of a row's audio."""
        state = StreamState(lalm, replace(self.config, target_lang=row.target_lang, source_lang=row.source_lang))
        state.receive(audio)
        state.close()
        return state


@dataclass(frozen=True)
class LoadedClips:
    """A group of clips with their audio, and what was prepared from it, by direction and content."""

    audios: list[tuple[Clip, np.ndarray]]
    prepared: dict[Hashable, Any]
    broken: list[tuple[Utterance, str]]


def simulate(
    workers: Workers,
    clips: Sequence[Clip],
    work: Lockstep,
    batch_size: int = 16,
    on_error: OnError = "fail",
    processes: Processes = 0,
) -> list[Instance]:
    """Translate every clip simultaneously with one setting; returns instances in the order of the manifest.

    At most `batch_size` clips of about the same length advance together, a chunk each. The batch changes neither translations nor
    delays; computing time is only recorded when clips run one at a time. Audio that turns out to be broken
    raises `EvaluationError`, or is left out with a warning when `on_error` is `skip`. `processes` load alongside the model.
    """
    # the longest first: what does not fit in memory fails immediately
    groups = batches(sorted(clips, key=lambda clip: -clip.samples), lambda clip: clip.samples, batch_size, PASS_SAMPLES)
    instances: list[Instance] = []
    with workers.map(work, groups, processes) as results:
        for done, broken in track(results, work.label, len(groups)):
            for row, problem in broken:
                _refuse(row, problem, on_error)
            instances += done
    return sorted(instances, key=lambda instance: instance.index)


@dataclass
class _Run:
    """A clip being translated."""

    clip: Clip
    state: StreamState
    updates: list[Update] = field(default_factory=list)

    def instance(self, timed: bool) -> Instance:
        row, unit = self.clip.row, latency_unit(self.clip.row.target_lang)
        return Instance(
            id=row.id,
            index=self.clip.index,
            prediction=single_spaced(self.updates[-1].committed),
            reference=single_spaced(row.target_text),
            source=row.audio,
            source_length_ms=samples_to_ms(self.updates[-1].audio_samples),  # an MP3's header may promise a little more
            delays_ms=emissions(self.updates, [samples_to_ms(update.audio_samples) for update in self.updates], unit),
            elapsed_ms=emissions(self.updates, done_ms(self.updates), unit) if timed else None,
            steps=len(self.updates),
            truncated=self.updates[-1].truncated,
        )


def emissions(updates: Sequence[Update], times_ms: Sequence[float], unit: str) -> tuple[float, ...]:
    """For each unit of the final text, the time of the first update whose committed text contains the whole unit."""
    lengths = [len(single_spaced(update.committed)) for update in updates]  # never shrinks: committed text only grows
    ends = unit_ends(single_spaced(updates[-1].committed), unit)
    return tuple(times_ms[bisect_left(lengths, end)] for end in ends)


def done_ms(updates: Sequence[Update]) -> list[float]:
    """When the model was done with each chunk, in ms since the speech began: chunks wait for their audio and for each other."""
    times: list[float] = []
    for update in updates:
        started = max(samples_to_ms(update.audio_samples), times[-1] if times else 0.0)
        times.append(started + 1000 * update.compute_s)
    return times


def _refuse(row: Utterance, problem: str, on_error: OnError) -> None:
    if on_error == "fail":
        raise EvaluationError(f"row {row.id!r}: {problem} (on_error 'skip' leaves such rows out)")
    logger.warning("row %r is skipped: %s", row.id, problem)
