"""Gradient checkpointing chosen by memory: the activations of the largest pass against the GPU's free memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.device import free_bytes
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.training import processes
from simulsa.training.config import TrainConfig
from simulsa.training.examples import Example

# bytes per token and layer, for each unit of the layer's width and of its feed-forward width: what autograd saves in bfloat16
# autocast with LoRA in float32 (python -m benchmarks.activations)
WIDTH_BYTES, FEED_FORWARD_BYTES = 29, 8.2
COMPILED_SHARE = 0.75  # of that in compiled layers: 38 GB instead of 47 on an H200, weights included
LOGIT_BYTES = 12  # float32 logits, their softmax and their gradient
USED_SHARE = 0.9  # of the free memory; the rest is for AdamW, workspaces and gaps

logger = logging.getLogger("simulsa")


@dataclass(frozen=True)
class PassShape:
    """A training pass: number of rows, tokens per row including padding, the layers and their widths, and labels per row."""

    rows: int
    tokens: int
    layers: int
    width: int
    feed_forward: int
    labels: int = 0
    vocabulary: int = 0


def activation_bytes(shape: PassShape, compiled: bool = False) -> int:
    """What a pass without gradient checkpointing keeps for its backward pass."""
    layer = (WIDTH_BYTES * shape.width + FEED_FORWARD_BYTES * shape.feed_forward) * (COMPILED_SHARE if compiled else 1)
    return round(shape.rows * (shape.tokens * shape.layers * layer + LOGIT_BYTES * shape.labels * shape.vocabulary))


def must_checkpoint(free: int, shape: PassShape, compiled: bool) -> bool:
    """Whether a pass does not fit into `free` bytes unless its activations are recomputed."""
    return activation_bytes(shape, compiled) > USED_SHARE * free


def checkpoints(lalm: HuggingFaceLALM, examples: Sequence[Example], config: TrainConfig) -> bool:
    """Whether training `lalm` on `examples` uses gradient checkpointing: as set, or as the GPU's free memory requires."""
    if config.gradient_checkpointing != "auto":
        return config.gradient_checkpointing == "on"
    if lalm.device.type != "cuda":
        return False
    shape, compiled = largest_pass(lalm, examples, config), config.compiles(lalm.device.type)
    free = free_bytes(lalm.device) - round(config.encoder_cache_mib * 2**20)
    chosen = must_checkpoint(free, shape, compiled)
    if processes.is_main():
        logger.info(
            "train: gradient checkpointing is %s: without it the largest pass, %d rows of %d tokens, keeps about %.1f GB, and "
            "%.1f GB are free (--gradient-checkpointing on or off overrides)",
            "on" if chosen else "off", shape.rows, shape.tokens, activation_bytes(shape, compiled) / 1e9, free / 1e9,
        )  # fmt: skip
    return chosen


def largest_pass(lalm: HuggingFaceLALM, examples: Sequence[Example], config: TrainConfig) -> PassShape:
    """The pass with the longest row, as every row of a pass is padded to its longest."""
    longest = max(examples, key=lambda example: example.length_s)
    silence = np.zeros(round(longest.length_s * SAMPLE_RATE), dtype=np.float32)
    prompt = len(lalm.frontend.prepare(silence, longest.row.direction).prompt)
    labels = 1 + max(len(example.target) for example in examples)
    text = lalm.decoder.language_model.config
    widest = np.max(getattr(text, "intermediate_size", 4 * text.hidden_size))  # in some families, there is one per layer
    return PassShape(
        rows=config.micro_batch_size,
        tokens=lalm.decoder.round_up(prompt + labels),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        feed_forward=int(widest),
        labels=labels,
        vocabulary=lalm.vocabulary_size,
    )


def advice(config: TrainConfig, checkpointed: bool) -> str:
    """What to set if a pass did not fit into the GPU's memory."""
    fixes = [] if checkpointed else ["--gradient-checkpointing on"]
    if smaller := config.smaller_micro_batch():
        fixes.append(f"--micro-batch-size {smaller} or less")
    return f"use {' or '.join(fixes or ['--four-bit'])} with the same command, which resumes"
