"""Which attention heads of a bundled model align text with speech: the choice behind AlignAtt's default.

    python -m recipes.policies.alignment --out docs/results/policies

Speech and translation progress together, so in each sentence of the demo's test set, translated as a whole, the position of a
token should correlate with that of the frame it attends to most. The table shows Spearman's rank correlation of the two, as a
mean over the sentences, for single heads and for averages of heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from recipes.command import run
from simulsa.demo.speech import DATA
from simulsa.files import atomic_write
from simulsa.lalm.decoder import HeardClip
from simulsa.lalm.interface import Heads, Want
from simulsa.lalm.load import load
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.languages import Direction
from simulsa.manifest import read_manifest

BATCH_SIZE = 16

T = TypeVar("T")


@dataclass(frozen=True)
class AlignmentConfig:
    """Which models to analyse, and where the table goes."""

    models: tuple[str, ...] = ("tiny-en-de", "tiny-en-de-simul")
    out: Path = Path("docs/results/policies")
    """folder for alignment.md"""
    sentences: int = 60
    """how many of the demo's test sentences, from the first"""


def monotonicity(attention: np.ndarray) -> float:
    """Spearman's correlation between the tokens and the frames they attend to most; 0 if they all attend to the same frame."""
    frames = attention.argmax(1)
    if len(set(frames.tolist())) < 2:
        return 0.0
    # equal frames share their mean rank
    ranks = [(np.sum(frames < frame) + np.sum(frames <= frame)) / 2 for frame in frames]
    return float(np.corrcoef(ranks, np.arange(len(frames)))[0, 1])


def alignment_table(model: str, sentences: int) -> list[str]:
    """The table lines of a model: all layers, then each layer with its heads."""
    lalm = load(model, device="cpu", dtype="float32")
    rows = read_manifest(DATA / "test.jsonl")[:sentences]
    heard = [clip for row in rows for clip in lalm.hear([row.load()], [Direction("en", "de")])]
    targets = [said.tokens for batch in _batches(heard) for said in lalm.continue_(batch, [[]] * len(batch))]
    text = lalm.model.config.get_text_config()

    def mean(heads: Heads) -> str:
        return f"{np.mean([monotonicity(weights) for weights in _attentions(lalm, heard, targets, heads)]):.2f}"

    lines = [f"| {model} | all | {mean(Heads())} |" + " |" * text.num_attention_heads]
    for layer in range(text.num_hidden_layers):
        single = " | ".join(mean(Heads(layer, head)) for head in range(text.num_attention_heads))
        lines.append(f"| {model} | {layer} | {mean(Heads(layer))} | {single} |")
    return lines


def _attentions(lalm: HuggingFaceLALM, heard: list[HeardClip], targets: list[list[int]], heads: Heads) -> list[np.ndarray]:
    """Attention for every sentence of more than one token; each is given as a draft that the model accepts in one pass."""
    found: list[np.ndarray] = []
    for batch, drafts in zip(_batches(heard), _batches(targets), strict=True):
        said = lalm.continue_(batch, [[]] * len(batch), drafts, Want(heads=heads))
        found += [continuation.attention for continuation in said if continuation.attention is not None]
    return [weights for weights in found if len(weights) > 1]


def _batches(rows: list[T]) -> list[list[T]]:
    return [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]


def main(config: AlignmentConfig) -> None:
    """Write the table."""
    lines = [line for model in config.models for line in alignment_table(model, config.sentences)]
    heads = lines[0].count("|") - 4
    titles = "| model | layer | all heads |" + "".join(f" head {head} |" for head in range(heads))
    with atomic_write(config.out / "alignment.md") as file:
        file.write("\n".join([titles, "|" + " --- |" * (3 + heads), *lines]) + "\n")


if __name__ == "__main__":
    run(main, AlignmentConfig, __doc__)
