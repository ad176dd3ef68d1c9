"""Attention weights of the language model's self-attention, for the duration of a few passes.

Fast attention kernels do not expose their weights, so these passes use the eager implementation. Layers are averaged one by
one, so that only one layer's weights are in memory at a time, unlike with transformers' `output_attentions`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from simulsa.lalm.interface import Heads, LALMError


class Watch:
    """Collects the attention of `heads` over the layers of a pass, for the last `queries` positions."""

    def __init__(self, heads: Heads, name: str) -> None:
        self.heads, self.name = heads, name
        self.queries = 1
        self._sum: Any = 0.0
        self._layers = 0

    def note(self, weights: torch.Tensor | None) -> None:
        """Add a layer's weights `[batch, heads, queries, keys]`. Raises `LALMError` if there are none, or no such head."""
        if weights is None:
            raise LALMError(f"{self.name}: {_UNSEEN}")
        head = self.heads.head
        if head is not None and head >= weights.shape[1]:
            raise LALMError(f"{self.name}: head is {head}; its layers have heads 0 to {weights.shape[1] - 1}")
        last = weights[:, :, -self.queries :]
        self._sum = self._sum + (last.float().mean(1) if head is None else last[:, head].float())
        self._layers += 1

    def take(self) -> torch.Tensor:
        """The mean over the layers of the completed pass, float32 `[batch, queries, keys]`."""
        if not self._layers:
            raise LALMError(f"{self.name}: {_UNSEEN}")
        mean: torch.Tensor = self._sum / self._layers
        self._sum, self._layers = 0.0, 0
        return mean


@contextlib.contextmanager
def watching(decoder: nn.Module, heads: Heads | None, name: str) -> Iterator[Watch | None]:
    """Collect the attention of `decoder`, which runs in eager mode meanwhile; not thread-safe. Does nothing without `heads`.

    Raises `LALMError` if there are no such heads, or if attention is not exposed (now or after a pass).
    """
    if heads is None:
        yield None
        return
    layers = list(getattr(decoder, "layers", []))
    modules = [layer.self_attn for layer in layers if hasattr(layer, "self_attn")]
    if not modules:
        raise LALMError(f"{name}: {_UNSEEN}")
    if heads.layer is not None and heads.layer >= len(modules):
        raise LALMError(f"{name}: layer is {heads.layer}; it has layers 0 to {len(modules) - 1}")
    chosen = modules if heads.layer is None else [modules[heads.layer]]
    watch = Watch(heads, name)
    handles = [module.register_forward_hook(lambda _, __, output: watch.note(_weights(output))) for module in chosen]
    configs = {id(module.config): module.config for module in (decoder, *modules) if hasattr(module, "config")}.values()
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = "eager"
        yield watch
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation
        for handle in handles:
            handle.remove()


_UNSEEN = "its attention is not exposed; choose a policy that does not need it, such as rollback or local-agreement"


def _weights(output: Any) -> torch.Tensor | None:
    """The weights that an attention module returns along with its output."""
    found = output[1] if isinstance(output, tuple) and len(output) > 1 else None
    return found if isinstance(found, torch.Tensor) and found.dim() == 4 else None
