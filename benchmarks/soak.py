"""Long-form streaming: an hour of speech, pauses, music, noise and silence through one stream; does its cost stay flat?

python -m benchmarks.soak --minutes 60

The last sixth of the recording repeats its first sixth, and a second, fresh session processes it in turns with the long one:
the same audio at the same time, so that neither the content nor other work on the machine affects the comparison.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import tyro

from benchmarks.recording import Recording, joined, record
from benchmarks.setup import machine
from simulsa.audio import SAMPLE_RATE
from simulsa.files import atomic_write
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import load
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.state import Segment, StreamState, Update
from simulsa.streaming.step import step
from simulsa.streaming.stream import Stream

MAX_DIFFERENCE = 0.10  # in compute per chunk
MAX_GROWTH_MIB = 50
MIN_SAME = 0.5  # share of borders equal to the sample: clock drift would leave none; the VAD's memory moves some by a window
PUSH_SAMPLES = SAMPLE_RATE // 2
BLOCK_S = 4  # whole pushes and whole VAD windows, so that a part is cut the same way wherever it begins
MIB = 2**20


@dataclass(frozen=True)
class Options:
    """How long, with which model."""

    minutes: float = 60
    """audio to stream"""
    model: str = "tiny-en-de-simul"
    chunk_ms: float = 500
    rollback: int = 3
    seed: int = 0
    out: Path | None = None
    """folder for the figure and its numbers"""

    @property
    def stream(self) -> StreamConfig:
        """The stream's settings."""
        return StreamConfig(chunk_ms=self.chunk_ms, rollback=self.rollback)


@dataclass
class Session:
    """A stream and what it cost."""

    stream: Stream
    segments: list[Segment] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    """processor time of each push"""
    last: Update | None = None

    def push(self, samples: np.ndarray) -> None:
        """Push samples and measure the time."""
        started = time.process_time()
        updates = self.stream.push(samples)
        self.cpu_s.append(time.process_time() - started)
        self._note(updates)

    def finish(self) -> None:
        """End the session."""
        self._note(self.stream.finish())

    def _note(self, updates: Sequence[Update]) -> None:
        self.segments += [update.segment for update in updates if update.segment is not None and update.segment.complete]
        self.last = updates[-1] if updates else self.last


@dataclass
class Soak:
    """The audio and the sessions that processed it."""

    recording: Recording
    edge_samples: int
    """length of the first and of the last part, which are equal"""
    long: Session
    fresh: Session
    memory_mib: list[float]
    """the process's own (see `own_memory_mib`), after each push"""
    references: list[str]
    """for each segment of the long session, the translation of its audio alone"""

    @property
    def parts(self) -> dict[str, float]:
        """Mean processor time of a push, in ms: in the first and the last part, and of the fresh session in the last one."""
        edge = self.edge_samples // PUSH_SAMPLES
        pushes = {"first": self.long.cpu_s[:edge], "last": self.long.cpu_s[-edge:], "fresh": self.fresh.cpu_s}
        return {name: 1000 * sum(times) / len(times) for name, times in pushes.items()}

    @property
    def difference(self) -> float:
        """The relative difference in compute between the last part and the fresh session; 0 if there is none."""
        return self.parts["last"] / self.parts["fresh"] - 1

    @property
    def growth_mib(self) -> float:
        """The growth of peak memory over that after the first tenth of the time."""
        return max(self.memory_mib) - self.memory_mib[len(self.memory_mib) // 10]

    def checks(self) -> dict[str, tuple[bool, str]]:
        """The conditions to meet, other than on compute: whether each holds, and its figures."""
        segments, sentences = self.long.segments, self.recording.sentences
        texts = [segment.text for segment in segments]
        wrong = sum(one != two for one, two in zip(texts, self.references, strict=True))
        alarms = sum(not any(spoken.overlaps(s.start_samples, s.end_samples) for spoken in sentences) for s in segments)
        missed = sum(not any(spoken.overlaps(s.start_samples, s.end_samples) for s in segments) for spoken in sentences)
        shift = len(self.recording.samples) - self.edge_samples
        borders = {position for s in segments for position in (s.start_samples, s.end_samples)}
        again = [position + shift for s in self.fresh.segments for position in (s.start_samples, s.end_samples)]
        same = sum(position in borders for position in again)
        committed, heard = (self.long.last.committed, self.long.last.audio_samples) if self.long.last else ("", 0)
        return {
            "text": (wrong == 0, f"{wrong} of {len(texts)} segments differ from the translation of their audio alone"),
            "whole": (committed == " ".join(filter(None, texts)), f"the session's text, {len(committed)} characters, is theirs"),
            "silence": (alarms == 0, f"{alarms} segments in music, noise or silence"),
            "speech": (missed == 0, f"{missed} of {len(sentences)} sentences unheard"),
            "clock": (heard == len(self.recording.samples), f"{heard - len(self.recording.samples)} samples off at the end"),
            "times": (same >= MIN_SAME * len(again), f"{same} of {len(again)} borders in the last part are the fresh session's"),
            "memory": (self.growth_mib <= MAX_GROWTH_MIB, f"{self.growth_mib:+.1f} MiB after warming up"),
        }


def soak(lalm: LALM, options: Options) -> Soak:
    """Run the soak test."""
    sixth, whole = BLOCK_S * round(10 * options.minutes / BLOCK_S), BLOCK_S * round(60 * options.minutes / BLOCK_S)
    edge = record(sixth, options.seed)
    recording = joined([edge, record(whole - 2 * sixth, options.seed + 1), edge])
    pushes = range(0, len(recording.samples), PUSH_SAMPLES)
    last_part = len(recording.samples) - len(edge.samples)
    long, fresh = (Session(Stream(lalm, options.stream, SegmentationConfig())) for _ in range(2))
    memory_mib = []
    for start in pushes:
        samples = recording.audio(start, start + PUSH_SAMPLES)
        long.push(samples)
        if start >= last_part:
            fresh.push(samples)
        memory_mib.append(own_memory_mib())
    long.finish()
    fresh.finish()
    audios = [recording.audio(segment.start_samples, segment.end_samples) for segment in long.segments]
    return Soak(recording, len(edge.samples), long, fresh, memory_mib, translations(lalm, audios, options.stream))


def own_memory_mib() -> float:
    """Resident memory without mapped files, whose pages come and go with what else the machine does."""
    memory = psutil.Process().memory_info()
    return float(memory.rss - getattr(memory, "shared", 0)) / MIB


def translations(lalm: LALM, audios: Sequence[np.ndarray], config: StreamConfig, batch_size: int = 16) -> list[str]:
    """Translate each clip on its own, simultaneously."""
    texts: dict[int, str] = {}
    queue = sorted(range(len(audios)), key=lambda i: len(audios[i]))
    for first in range(0, len(queue), batch_size):
        states = {i: StreamState(lalm, config) for i in queue[first : first + batch_size]}
        for i, state in states.items():
            state.receive(audios[i])
            state.close()
        while active := [state for state in states.values() if not state.finished]:
            step(lalm, active)
        texts |= {i: state.committed for i, state in states.items()}
    return [texts[i] for i in range(len(audios))]


def minutes_of(result: Soak) -> list[tuple[int, float, float]]:
    """For each minute: its number, the mean processor time of its pushes in ms, its memory at the end in MiB."""
    minute = 60 * SAMPLE_RATE // PUSH_SAMPLES
    starts = range(0, len(result.long.cpu_s) - minute + 1, minute)
    return [
        (number, 1000 * float(np.mean(result.long.cpu_s[start : start + minute])), result.memory_mib[start + minute - 1])
        for number, start in enumerate(starts, start=1)
    ]


def write(result: Soak, folder: Path) -> None:
    """Write `soak.csv`, one line per minute, and `soak.png`, the same data as a figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    rows = minutes_of(result)
    with atomic_write(folder / "soak.csv") as table:
        table.write("minute,cpu_ms_per_500_ms,memory_mib\n")
        table.writelines(f"{minute},{cpu_ms:.2f},{memory_mib:.1f}\n" for minute, cpu_ms, memory_mib in rows)
    minutes, cpu_ms, memory_mib = zip(*rows, strict=True)
    figure, left = pyplot.subplots(figsize=(7, 3.2))
    left.plot(minutes, cpu_ms, color="tab:blue")
    left.set_xlabel("minutes since the session began")
    left.set_ylabel("CPU ms per 500 ms of audio", color="tab:blue")
    left.set_ylim(0, 1.2 * max(cpu_ms))
    right = left.twinx()
    right.plot(minutes, memory_mib, color="tab:orange")
    right.set_ylabel("memory, MiB", color="tab:orange")
    right.set_ylim(0, 1.2 * max(memory_mib))
    figure.tight_layout()
    with atomic_write(folder / "soak.png", "wb") as file:
        figure.savefig(file, dpi=120, format="png")
    pyplot.close(figure)


def main(options: Options) -> int:
    """Print the figures and PASS or FAIL; returns the exit code."""
    print(machine())
    result = soak(load(options.model, device="cpu"), options)
    speech_s = sum(s.end_samples - s.start_samples for s in result.long.segments) / SAMPLE_RATE
    print(f"{options.minutes:g} min of audio, {len(result.long.segments)} segments, {speech_s / 60:.1f} min; seed {options.seed}")
    print("CPU ms per 500 ms of audio: " + ", ".join(f"{value:.1f} {name}" for name, value in result.parts.items()))
    flat = abs(result.difference) <= MAX_DIFFERENCE
    checks = {"compute": (flat, f"{result.difference:+.1%} in the last part against a fresh session"), **result.checks()}
    for name, (passed, figures) in checks.items():
        print(f"{'PASS' if passed else 'FAIL'} {name}: {figures}")
    if options.out:
        write(result, options.out)
    return 0 if all(passed for passed, _ in checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
