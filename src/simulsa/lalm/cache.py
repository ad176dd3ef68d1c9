"""An encoder cache: encoded clips are kept, up to a size limit, for later calls on the same audio.

An evaluation encodes the same partial utterance for every policy and for several chunk sizes, and a training run encodes the
same rows in every epoch. The encoder is frozen, so its outputs are the same (up to rounding, which depends on the batch).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from simulsa.lalm.interface import LALM, Heard
from simulsa.languages import Direction

MIB = 2**20

ClipKey = tuple[Direction, bytes]


def clip_key(audio: Any, direction: Direction) -> ClipKey:
    """The cache key of a clip, float32 `[samples]`: its content and the direction it is prompted with.

    A prepared clip may have its key already.
    """
    own: ClipKey | None = getattr(audio, "key", None)
    return own or (direction, hashlib.blake2b(np.ascontiguousarray(audio, dtype=np.float32).data, digest_size=16).digest())


class EncoderCache:
    """Encoded clips by key.

    A full cache drops the least recently used clip. With `drop=False` it keeps what it has: an epoch visits each
    row once, in a new order, so after a corpus larger than the cache only the rows encoded last would still be there.
    """

    def __init__(self, max_mib: float, drop: bool = True) -> None:
        self.max_bytes = max_mib * MIB
        self.drop = drop
        self.bytes = 0
        self._heard: OrderedDict[Hashable, Heard] = OrderedDict()

    def fetch(self, keys: Sequence[Hashable], hear: Callable[[list[int]], Sequence[Heard]]) -> list[Any]:
        """The encoded clip of each key; `hear(rows)` encodes the rows of the batch that are not cached, each key once."""
        known = {key: self._heard[key] for key in keys if key in self._heard}
        new = list({key: row for row, key in enumerate(keys) if key not in known}.items())
        for key in known:
            self._heard.move_to_end(key)
        if new:
            fresh = dict(zip([key for key, _ in new], hear([row for _, row in new]), strict=True))
            for key, clip in fresh.items():
                self._keep(key, clip)
            known |= fresh
        return [known[key] for key in keys]

    def _keep(self, key: Hashable, clip: Heard) -> None:
        room = self.max_bytes if self.drop else self.max_bytes - self.bytes
        if clip.nbytes > room:
            return
        self._heard[key] = clip.detached()
        self.bytes += clip.nbytes
        while self.bytes > self.max_bytes:
            self.bytes -= self._heard.popitem(last=False)[1].nbytes


class _Wrapped:
    """A LALM with its own `hear` that otherwise behaves like `lalm`."""

    def __init__(self, lalm: LALM) -> None:
        self.lalm = lalm
        self.name, self.signature, self.max_samples = lalm.name, lalm.signature, lalm.max_samples
        self.vocabulary_size, self.eos_id = lalm.vocabulary_size, lalm.eos_id
        self.directions, self.approximate, self.exact = lalm.directions, lalm.approximate, lalm.exact
        self.frontend, self.device = lalm.frontend, lalm.device
        self.encode, self.decode = lalm.encode, lalm.decode
        self.warm_up, self.score, self.continue_ = lalm.warm_up, lalm.score, lalm.continue_


class CachedLALM(_Wrapped):
    """A LALM that encodes equal audio once: `lalm` with an encoder cache of at most `max_mib` in front of `hear`."""

    def __init__(self, lalm: LALM, max_mib: float) -> None:
        super().__init__(lalm)
        self.cache = EncoderCache(max_mib)

    def hear(self, audios: Sequence[Any], directions: Sequence[Direction]) -> list[Any]:
        """Encode clips with the wrapped model, or take them from the cache."""
        rows = zip(audios, directions, strict=True)
        keys = [clip_key(audio, direction) for audio, direction in rows]
        return self.cache.fetch(keys, lambda rows: self.lalm.hear([audios[r] for r in rows], [directions[r] for r in rows]))


class PreparedLALM(_Wrapped):
    """A LALM for audio prepared in advance: `prepared` maps direction and content to what `lalm.hear` takes."""

    def __init__(self, lalm: LALM, prepared: Mapping[Hashable, Any]) -> None:
        super().__init__(lalm)
        self._prepared = prepared

    def hear(self, audios: Sequence[np.ndarray], directions: Sequence[Direction]) -> list[Any]:
        """Encode clips with the wrapped model; audio that was not prepared is prepared now."""
        rows = zip(audios, directions, strict=True)
        return self.lalm.hear([self._prepared.get(clip_key(audio, asked), audio) for audio, asked in rows], directions)
