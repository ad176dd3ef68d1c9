"""The verbs of a LALM on raw audio, for tests that hear every clip anew."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from simulsa.audio import SAMPLE_RATE
from simulsa.demo.speech import DATA
from simulsa.lalm.interface import LALM, Heads, TokenScores, Want
from simulsa.languages import Direction
from simulsa.manifest import read_manifest

Audios = Sequence[np.ndarray]
Tokens = Sequence[Sequence[int]]
Directions = Sequence[Direction]


def sentences(count: int, longest_s: float) -> list[np.ndarray]:
    """Bundled sentences, cut to different lengths: the bundled model has something else to say to each, and nothing to noise."""
    rng = np.random.default_rng(1)
    rows = read_manifest(DATA / "test.jsonl")[:count]
    return [row.load()[: int(rng.uniform(0.06, longest_s) * SAMPLE_RATE)] for row in rows]


def score(lalm: LALM, audios: Audios, targets: Tokens, directions: Directions) -> list[TokenScores]:
    return lalm.score(lalm.hear(audios, directions), targets)


def continue_(
    lalm: LALM, audios: Audios, prefixes: Tokens, directions: Directions, drafts: Tokens | None = None
) -> list[list[int]]:
    return [said.tokens for said in lalm.continue_(lalm.hear(audios, directions), prefixes, drafts)]


def attend(lalm: Any, audios: Audios, targets: Tokens, directions: Directions, heads: Heads | None = None) -> list[np.ndarray]:
    """The attention where each token of any target is predicted, float32 `[tokens, frames]` per row."""
    heard = lalm.hear(audios, directions)
    short = copy.copy(lalm)
    found: list[list[np.ndarray]] = [[] for _ in targets]
    for place in range(max(map(len, targets))):
        rows = [row for row, target in enumerate(targets) if len(target) > place]
        short.max_target_tokens = place + 1
        want = Want(heads=heads or Heads())
        said = short.continue_([heard[row] for row in rows], [targets[row][:place] for row in rows], None, want)
        for row, continuation in zip(rows, said, strict=True):
            found[row] += list(continuation.attention)
    return [
        np.stack(rows) if rows else np.zeros((0, len(clip.frames)), np.float32) for rows, clip in zip(found, heard, strict=True)
    ]
