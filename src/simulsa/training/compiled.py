"""Compiled decoder layers: fewer, larger kernels in the part of the model where most of a GPU's training time goes."""

from __future__ import annotations

import logging
from typing import Any

import torch

from simulsa.errors import first_line
from simulsa.lalm.decoder import HeardClip
from simulsa.lalm.device import LEAST_SIZE, on_grid
from simulsa.lalm.model import HuggingFaceLALM

MOST_SHAPES = 64  # that a layer is compiled for: the grid has 40 up to 2,048 tokens

logger = logging.getLogger("simulsa")


def compile_layers(lalm: HuggingFaceLALM, rows: int) -> bool:
    """Compile the decoder layers in place, for batches of `rows` rows with lengths on the grid; returns whether it worked.

    One forward and backward pass tests it, in the current autocast and training mode. If the compiler or a part of it is
    missing, the layers stay as they are, with a warning.
    """
    layers = list(lalm.decoder.language_model.layers)
    round_up, lalm.decoder.round_up = lalm.decoder.round_up, on_grid
    try:
        _expect_shapes(len(layers))
        for layer in layers:
            layer.compile(dynamic=False)
        _try(lalm, rows)
    except Exception as error:  # whatever the compiler raises, training works without it
        for layer in layers:
            layer._compiled_call_impl = None
        lalm.decoder.round_up = round_up
        reason = f"{type(error).__name__}: {first_line(error)}"
        logger.warning("train: the decoder layers are not compiled (%s); training continues, but slower", reason)
        return False
    logger.info("train: the decoder layers are compiled once for each batch length")
    return True


def _expect_shapes(layers: int) -> None:
    """Raise the limits, per layer and in total, beyond which layers of one class would silently run uncompiled."""
    import torch._dynamo

    settings: Any = torch._dynamo.config
    for limit in ("recompile_limit", "cache_size_limit"):  # older releases use the second name
        for name, least in ((limit, MOST_SHAPES), (f"accumulated_{limit}", MOST_SHAPES * layers)):
            if hasattr(settings, name):
                setattr(settings, name, max(getattr(settings, name), least))


def _try(lalm: HuggingFaceLALM, rows: int) -> None:
    devices = [lalm.device] if lalm.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad():  # so that this pass does not change the random numbers of dropout
        with torch.no_grad():
            embedded = lalm.decoder.embed([[lalm.eos_id] * LEAST_SIZE] * rows)
        nothing = torch.zeros(0, dtype=torch.long, device=lalm.device)
        hidden = lalm.forward([HeardClip(row, nothing, 0) for row in embedded], [[] for _ in embedded])
        loss: Any = hidden.float().sum()
        loss.backward()
        lalm.model.zero_grad(set_to_none=True)
