"""Hear a clip once: what the audio tower made of it is kept, within a limit, for the next pass over the same audio.

An evaluation hears the same half utterance for every rollback and for several chunk sizes, a training the same rows in every
epoch. The tower is frozen, so its outputs can only be the same (up to the rounding that another batch brings).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

MIB = 2**20


class AudioMemory:
    """The outputs of an audio tower by clip, the least recently used dropped first; `hits` and `misses` count clips."""

    def __init__(self, max_mib: float) -> None:
        self.max_bytes = max_mib * MIB
        self.bytes = 0
        self.hits = self.misses = 0
        self._outputs: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def encode(
        self, tower: Callable[..., Any], features: torch.Tensor, frames: Sequence[int], attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The tower's outputs `[clips, tokens, width]` for mel `features` `[clips, bins, width]`, `frames` of each clip real.

        Outputs behind a clip's end are zero or what the tower made of padding; nobody may read them.
        """
        keys = [_key(clip[:, :count]) for clip, count in zip(features, frames, strict=True)]
        new = [row for row, key in enumerate(keys) if key not in self._outputs]
        new = list({keys[row]: row for row in new}.values())  # equal clips of a batch are heard once
        self.hits += len(keys) - len(new)
        self.misses += len(new)
        fresh: dict[bytes, torch.Tensor] = {}
        if new:
            chosen = torch.tensor(new, device=features.device)
            mask = None if attention_mask is None else attention_mask[chosen]
            heard = tower(features[chosen], attention_mask=mask).last_hidden_state.detach()
            fresh = {keys[row]: output for row, output in zip(new, heard, strict=True)}
        rows = [fresh[key] if key in fresh else self._outputs[key] for key in keys]
        for key in keys:
            if key in self._outputs:
                self._outputs.move_to_end(key)
        for key, output in fresh.items():
            self._keep(key, output)
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def _keep(self, key: bytes, output: torch.Tensor) -> None:
        self._outputs[key] = output.clone()  # not a view, which would hold its whole batch
        self.bytes += output.nbytes
        while self.bytes > self.max_bytes:
            self.bytes -= self._outputs.popitem(last=False)[1].nbytes


_memories: dict[int, AudioMemory] = {}  # by where the tower's weights lie: a base and its adapters share them


def memory_of(tower: torch.nn.Module) -> AudioMemory | None:
    """The memory that `tower` has at the moment."""
    return _memories.get(_place(tower))


def _place(tower: torch.nn.Module) -> int:
    return next(tower.parameters()).data_ptr()


@contextlib.contextmanager
def remembering(lalm: Any, max_mib: float) -> Iterator[AudioMemory | None]:
    """Give the audio tower of `lalm` a memory of at most `max_mib` for this long; an outer one stays in force.

    Models that share a tower's weights, as a base and its adapters do, share it. Nothing happens with a limit of 0, or for a
    model that has no audio tower of its own (a fake, say).
    """
    tower = getattr(lalm, "tower", None)
    if tower is None or not max_mib or memory_of(tower) is not None:
        yield None if tower is None else memory_of(tower)
        return
    place = _place(tower)
    _memories[place] = AudioMemory(max_mib)
    try:
        yield _memories[place]
    finally:
        del _memories[place]


@contextlib.contextmanager
def recalling(tower: Any, frames: Sequence[int]) -> Iterator[None]:
    """Let the tower's next calls, on clips of `frames` real mel frames, use its memory; nothing changes if it has none."""
    memory = memory_of(tower)
    learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in tower.parameters())
    if memory is None or learns:
        yield
        return
    original = tower.forward

    def forward(input_features: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        hearing = lambda features, attention_mask: original(features, attention_mask=attention_mask, **options)  # noqa: E731
        return BaseModelOutput(last_hidden_state=memory.encode(hearing, input_features, frames, attention_mask))

    tower.forward = forward
    try:
        yield
    finally:
        del tower.forward


def _key(mel: torch.Tensor) -> bytes:
    """The clip's content and the precision it is heard in: what autocast made must not stand for the full one."""
    device = mel.device.type
    precision = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else ""
    data = mel.detach().float().contiguous().cpu().numpy().tobytes()
    return hashlib.blake2b(data + precision.encode(), digest_size=16).digest()
