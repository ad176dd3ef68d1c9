"""What a policy costs: the computing time of a simulation with each, compared with rollback over the same number of steps.

python -m benchmarks.policies --model tiny-en-de

Each policy commits a different number of tokens, which changes how much there is to generate at the next chunk. To compare the
cost of the policies themselves, each is asked as usual, but the tokens that rollback would commit become final. On a CPU,
processor time is measured instead of wall time, so other work on the machine does not count.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro

from benchmarks.setup import machine, rows_of
from simulsa.lalm.interface import LALM, Want
from simulsa.lalm.load import load
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.policies import Hypothesis, Policy, Rollback, parse_policy
from simulsa.streaming.state import StreamState
from simulsa.streaming.step import step


@dataclass(frozen=True)
class Options:
    """Which model, on which rows, with which policies."""

    model: str = "tiny-en-de"
    device: str = "cpu"
    manifest: Path | None = None
    """test rows; by default the demo's bundled test set"""
    utterances: int = 32
    """how many rows"""
    chunk_ms: float = 500
    rollback: int = 3
    policies: tuple[str, ...] = ("local-agreement:2", "wait-k:3", "confidence:0.5", "alignatt:8")
    batch_size: int = 1
    """utterances that advance together"""
    repeats: int = 3
    """of each way, in turns; the fastest counts"""


@dataclass(frozen=True)
class Asked(Policy):
    """Asks one policy, but commits what another one would."""

    policy: Policy = field(default_factory=Rollback)
    decides: Policy = field(default_factory=Rollback)

    @property
    def wants(self) -> Want:
        return self.policy.wants

    @property
    def counts_words(self) -> bool:
        return self.policy.counts_words

    @property
    def remembers(self) -> int:
        return self.policy.remembers

    def commit(self, hypothesis: Hypothesis) -> int:
        self.policy.commit(hypothesis)
        return self.decides.commit(hypothesis)


@dataclass(frozen=True)
class AskedConfig(StreamConfig):
    """Settings of a stream with an explicit policy object."""

    asked: Asked = field(default_factory=Asked)

    @property
    def commit_policy(self) -> Policy:
        return self.asked


def seconds(lalm: LALM, audios: list[np.ndarray], options: Options, policy: Policy) -> float:
    """The time that all steps of all streams take."""
    clock = time.process_time if torch.device(options.device).type == "cpu" else time.perf_counter
    config = AskedConfig(chunk_ms=options.chunk_ms, asked=Asked(policy, Rollback(options.rollback)))
    total = 0.0
    for start in range(0, len(audios), options.batch_size):
        states = [StreamState(lalm, config) for _ in audios[start : start + options.batch_size]]
        for state, audio in zip(states, audios[start:], strict=False):
            state.receive(audio)
            state.close()
        started = clock()
        while waiting := [state for state in states if state.ready() is not None]:
            step(lalm, waiting)
        total += clock() - started
    return total


def main(options: Options) -> None:
    """Print the time of each policy as a multiple of rollback's."""
    print(machine())
    lalm = load(options.model, options.device)
    audios = [row.load() for row in rows_of(options.manifest, options.utterances)]
    policies: list[Policy] = [Rollback(options.rollback), *map(parse_policy, options.policies)]
    seconds(lalm, audios[:2], options, policies[-1])  # warm-up
    rounds = [[seconds(lalm, audios, options, policy) for policy in policies] for _ in range(options.repeats)]
    times = [min(round_[place] for round_ in rounds) for place in range(len(policies))]
    print(f"{len(audios)} utterances, k = {options.chunk_ms:g} ms, batch {options.batch_size}, seconds and times rollback:")
    for policy, taken in zip(policies, times, strict=True):
        print(f"{policy!s:20s} {taken:7.2f} s {taken / times[0]:6.2f} times")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
