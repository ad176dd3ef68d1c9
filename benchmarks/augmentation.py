"""How fast `augment` scores, compared with walking along each reference, one forward pass per token.

    python -m benchmarks.augmentation [--model tiny-en-de] [--manifest M.jsonl] [--rows 48] [--batch-size 16] [--repeats 3]

Three ways to find out how much of a translation to keep, on the same cuts, including the time to read audio:
- token by token: the audio and y_1 ... y_t go through the model for t = 1, 2, ... until a token is not plausible;
- one pass per row: all target tokens are scored at once, one row at a time;
- one pass per batch: what `augment` does.
The walk stops at the first implausible token, so the more tokens are kept, the more passes it needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.setup import machine, rows_of
from simulsa.augmentation.augment import augment
from simulsa.augmentation.config import AugmentConfig
from simulsa.augmentation.speculation import kept_tokens, resolve_tau
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import load
from simulsa.lalm.text import whole_characters
from simulsa.manifest import Utterance


@dataclass(frozen=True)
class Benchmark:
    """What to measure on."""

    model: str = "tiny-en-de"
    """Hugging Face id, local folder or `tiny-en-de`"""
    manifest: Path | None = None
    """offline rows; by default the demo's bundled test set"""
    rows: int = 48
    """how many rows to augment"""
    batch_size: int = 16
    """rows per forward pass of `augment`"""
    tau: float | None = None
    """plausibility threshold; by default 100 / vocabulary size"""
    device: str = "auto"
    """`cpu`, `cuda`, ...; `auto` takes a GPU when there is one"""
    repeats: int = 3
    """the fastest of so many runs counts"""


def main(settings: Benchmark) -> None:
    """Load the model and measure."""
    lalm = load(settings.model, settings.device)
    print(machine())
    measure(rows_of(settings.manifest, settings.rows), lalm, settings)


def measure(rows: Sequence[Utterance], lalm: LALM, settings: Benchmark) -> None:
    """Print the three rates."""

    def augmented(batch_size: int) -> Callable[[], list[int]]:
        config = AugmentConfig(num=settings.rows, batch_size=batch_size, tau=settings.tau or "auto", preflight=False)
        return lambda: [len(row.target_tokens or ()) for row in augment(rows, lalm, config)]

    cuts = augment(rows, lalm, AugmentConfig(num=settings.rows, tau=settings.tau or "auto", preflight=False))  # also warms up
    parents = {row.id: row for row in rows}
    tau = resolve_tau(settings.tau or "auto", lalm.vocabulary_size)
    ways = {
        "token by token": lambda: [walk(cut, parents[str(cut.parent_id)].target_text, lalm, tau) for cut in cuts],
        "one pass per row": augmented(1),
        f"one pass per batch of {settings.batch_size}": augmented(settings.batch_size),
    }
    total = sum(int((cut.made_by or {})["total_tokens"]) for cut in cuts)
    rates, results = {}, []
    for name, way in ways.items():
        seconds, kept = fastest(way, settings.repeats)
        rates[name] = len(cuts) / seconds
        results.append(kept)
    print(f"{lalm.signature}: {len(cuts)} rows, {sum(results[0])} of {total} target tokens kept at τ = {tau:.3g}")
    slowest = min(rates.values())
    for name, rate in rates.items():
        print(f"{name:<26}{rate:>9.1f} rows/s{rate / slowest:>9.1f}x")
    differing = sum(len(set(row)) > 1 for row in zip(*results, strict=True))
    print(f"rows for which the three ways keep different tokens: {differing}")


def walk(cut: Utterance, reference: str, lalm: LALM, tau: float) -> int:
    """How many reference tokens are kept, found with one forward pass per token."""
    audio, target = cut.load(), lalm.encode(reference)
    direction = cut.direction
    kept = 0
    while kept < len(target):
        scores = lalm.score(lalm.hear([audio], [direction]), [target[: kept + 1]])[0]
        if kept_tokens(scores, "probability", tau, lalm.vocabulary_size) <= kept:
            break
        kept += 1
    return whole_characters(lalm, target[:kept])


def fastest(way: Callable[[], list[int]], repeats: int) -> tuple[float, list[int]]:
    """Seconds of the fastest run, and its result."""
    seconds, kept = float("inf"), []
    for _ in range(repeats):
        started = time.perf_counter()
        kept = way()
        seconds = min(seconds, time.perf_counter() - started)
    return seconds, kept


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
