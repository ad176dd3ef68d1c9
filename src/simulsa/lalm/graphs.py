"""Decoding in fixed memory: a KV cache of fixed size, and on a GPU each step replayed as a CUDA graph.

A step of one token consists of 15,000 small kernels, which take four times as long to launch as to run. A CUDA graph launches
all of them at once, but always on the same addresses and shapes. So after the prefill, keys and values are copied into a cache
of one of a few sizes, in memory that all sizes share, and tokens are chosen and kept on the device. Without a graph, the same
step runs directly, which is how it is tested on a CPU.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from simulsa.errors import first_line
from simulsa.lalm.device import free_bytes

if TYPE_CHECKING:
    from simulsa.lalm.decoder import Decoder
    from simulsa.lalm.decoding import Row

LEAST_CAPACITY = 256  # in a cache: its sizes are 256, 384, 512, 768, 1024, ...
ROOM = 64  # minimum capacity for new tokens; a larger cache has more
FETCHED_STEPS = 4  # for a batch, whose rows end at different times; a single row is checked after every step, so none is wasted
MAX_CACHE_BYTES = 16 * 2**30  # over all layers; also at most a quarter of the card's memory and half of what is free
WARM_UPS = 3  # steps before a capture, which load kernels and allocate workspaces

States = list[torch.Tensor]
"""Keys and values of each layer in turn, `[rows, heads, length, width]`."""

logger = logging.getLogger("simulsa")


def capacity(length: int) -> int:
    """The size of a cache for `length` tokens with room for more."""
    size = LEAST_CAPACITY
    while size < length + ROOM:
        size = size * 3 // 2 if size & (size - 1) == 0 else size // 3 * 4
    return size


def rows_on_grid(rows: int) -> int:
    """The batch size of a step for `rows` rows: the next power of two."""
    return 1 << (rows - 1).bit_length()


def sizes(rows: int, length: int) -> list[tuple[int, int]]:
    """All sizes (rows, capacity) that batches of up to `rows` rows and `length` tokens may need."""
    batches = [1 << power for power in range(rows_on_grid(rows).bit_length())]
    lengths = sorted({capacity(some) for some in range(1, length + 1)})
    return [(size, room) for size in batches for room in lengths]


def cache_limit(device: torch.device, held: int = 0) -> int:
    """The most bytes that a cache may take on `device`; it already holds `held` of them."""
    if device.type != "cuda":
        return MAX_CACHE_BYTES
    return min(MAX_CACHE_BYTES, torch.cuda.get_device_properties(device).total_memory // 4, (free_bytes(device) + held) // 2)


class StaticSteps:
    """Decodes the tokens after a prefill for a `Decoder` in fixed memory.

    `graphs` says whether steps are captured. What it does not support is left to the plain path: caches that slide or share
    keys, attention other than PyTorch's own, and batches for which there is no memory. After a failed capture it leaves
    everything to that path.
    """

    def __init__(self, decoder: Decoder, graphs: bool) -> None:
        self._decoder = decoder
        self._graphs = graphs
        self._pool: list[torch.Tensor] = []
        self._slots: dict[tuple[int, int], _Slot] = {}
        self._failed = False
        self._graph_memory: Any = None  # for a step's intermediate results; shared by all graphs, as one is replayed at a time
        self.captures = self.steps = 0

    @property
    def nbytes(self) -> int:
        """The memory of the cache."""
        return sum(tensor.nbytes for tensor in self._pool)

    def decode_rest(
        self, rows: Sequence[Row], mask: torch.Tensor, cache: Any, eos_ids: Sequence[int]
    ) -> tuple[list[Row], torch.Tensor, Any]:
        """Decode `rows` to their ends from a prefill's `mask`, int64 `[rows, length]`, and `cache`.

        Returns what it leaves to the plain path: rows with their mask and cache; no rows if all are done.
        """
        active = list(rows)
        if self._failed or not self._can(cache):
            return active, mask, cache
        states = _states_of(cache)
        while going := [number for number, row in enumerate(active) if row.is_unfinished(eos_ids)]:
            if len(going) < len(active):
                chosen = torch.tensor(going, device=mask.device)
                states = [own[chosen] for own in states]
                mask, active = mask[chosen], [active[number] for number in going]
            slot = self._slot_for((rows_on_grid(len(active)), capacity(mask.shape[1])), states)
            if slot is None:
                for layer, keys, values in zip(cache.layers, states[::2], states[1::2], strict=True):
                    layer.keys, layer.values = keys, values
                return active, mask, cache
            mask, states = self._run(slot, active, mask, states, eos_ids)
        return [], mask, cache

    def _can(self, cache: Any) -> bool:
        text = self._decoder.language_model.config
        plain = all(type(layer) is DynamicLayer and layer.keys is not None for layer in cache.layers)
        return plain and not self._decoder.slides and getattr(text, "_attn_implementation", "") == "sdpa"

    def prepare(self, cache: Any, rows: int, length: int) -> None:
        """Capture in advance the steps that batches of up to `rows` rows and `length` tokens will need.

        `cache` is that of any prefill. The largest size comes first, because growing the memory would invalidate earlier
        graphs.
        """
        if not self._graphs or not self._can(cache):
            return
        began, before = time.perf_counter(), self.captures
        states = _states_of(cache)
        for size in sorted(sizes(rows, length), key=math.prod, reverse=True):
            if not self._failed:
                self._slot_for(size, states)
        logger.info(
            "%d CUDA graphs captured in %.1f s, for up to %d rows and %d tokens; their cache takes %.1f GB",
            self.captures - before, time.perf_counter() - began, rows, length, self.nbytes / 1e9,
        )  # fmt: skip

    def _slot_for(self, size: tuple[int, int], states: States) -> _Slot | None:
        """The slot for `size` (rows, capacity), with a graph if wanted; `None` if it cannot be made."""
        if (slot := self._slots.get(size)) is not None:
            return slot
        try:
            self._reserve(size, states)
            slot = _Slot(self._decoder, size, [_view(pool, own, size) for pool, own in zip(self._pool, states, strict=True)])
            if self._graphs:
                self._graph_memory = self._graph_memory or torch.cuda.graph_pool_handle()
                slot.capture(self._graph_memory)
                self.captures += 1
        except _TooLargeError:
            return None
        except Exception as error:  # out of memory, or an operation that cannot be captured
            self._failed = True
            self._slots.clear()
            self._pool.clear()
            reason = f"{type(error).__name__}: {first_line(error)}"
            logger.warning("decoding continues without CUDA graphs, but slower (%s)", reason)
            return None
        self._slots[size] = slot
        return slot

    def _reserve(self, size: tuple[int, int], states: States) -> None:
        """Make the memory that all sizes share large enough for `size`. Raises `_TooLargeError` beyond the limit."""
        wanted = [_elements(own, size) for own in states]
        if self._pool and all(have.numel() >= count for have, count in zip(self._pool, wanted, strict=True)):
            return
        if sum(wanted) * states[0].element_size() > cache_limit(states[0].device, self.nbytes):
            raise _TooLargeError
        self._slots.clear()  # they point into the memory that is freed
        self._pool.clear()
        self._graph_memory = None  # a pool that no graph uses any more cannot be reused
        self._pool = [own.new_zeros(count) for own, count in zip(states, wanted, strict=True)]

    def _run(
        self, slot: _Slot, rows: Sequence[Row], mask: torch.Tensor, states: States, eos_ids: Sequence[int]
    ) -> tuple[torch.Tensor, States]:
        """Step until all rows have ended, the cache is full or a quarter of its rows would do; return mask and states."""
        slot.load([row.tokens[-1] for row in rows], mask, states)
        length, going = mask.shape[1], len(rows)
        while going and length < slot.capacity and not 4 * rows_on_grid(going) <= slot.rows:
            needed = max(row.limit - len(row.tokens) for row in rows if row.is_unfinished(eos_ids))
            count = min(1 if len(rows) == 1 else FETCHED_STEPS, slot.capacity - length, needed)
            for _ in range(count):
                slot.step()
            self.steps += count
            length += count
            for row, choices in zip(rows, slot.fetch(count), strict=False):  # a slot may have more rows than the batch
                for choice in choices:
                    if row.is_unfinished(eos_ids):
                        row.add([choice])
            going = sum(row.is_unfinished(eos_ids) for row in rows)
        if not going:
            return mask, []
        return slot.kept(len(rows), length)


class _TooLargeError(Exception):
    """A batch whose cache would exceed the limit."""


class _Slot:
    """A cache of one size, the decoding step on it, and the step's graph."""

    def __init__(self, decoder: Decoder, size: tuple[int, int], memory: States) -> None:
        self._decoder = decoder
        self.rows, self.capacity = size
        device = memory[0].device

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._tokens, self._positions = zeros(self.rows, 1), zeros(self.rows, 1)
        self._mask = zeros(self.rows, 1, 1, self.capacity, dtype=torch.bool)
        self._place, self._count = zeros(1), zeros(1)
        self._said = zeros(self.rows, FETCHED_STEPS)
        self._log_probs = zeros(self.rows, FETCHED_STEPS, dtype=torch.float32)
        self._memory = memory
        self._cache = Cache(
            layers=[_StaticLayer(keys, values, self._place) for keys, values in zip(memory[::2], memory[1::2], strict=True)]
        )
        self._graph: Any = None

    @torch.no_grad()
    def load(self, tokens: Sequence[int], mask: torch.Tensor, states: States) -> None:
        """Take over rows: their last tokens, their mask `[rows, length]`, and their keys and values."""
        rows, length = mask.shape
        self._tokens.zero_()
        self._tokens[:rows, 0].copy_(torch.tensor(tokens))
        self._positions.zero_()
        self._positions[:rows, 0].copy_(mask.sum(1))
        self._mask.zero_()
        self._mask[:rows, 0, 0, :length].copy_(mask)
        self._place.fill_(length)
        self._count.zero_()
        for memory, own in zip(self._memory, states, strict=True):
            memory[:rows, :, :length].copy_(own)

    def step(self) -> None:
        """Decode one more token in each row."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._step()

    def fetch(self, count: int) -> list[list[tuple[int, float]]]:
        """The tokens of each row in the last `count` steps, and their log-probabilities."""
        self._count.zero_()
        said, log_probs = self._said[:, :count].tolist(), self._log_probs[:, :count].tolist()
        return [list(zip(tokens, own, strict=True)) for tokens, own in zip(said, log_probs, strict=True)]

    def kept(self, rows: int, length: int) -> tuple[torch.Tensor, States]:
        """The mask `[rows, length]` and the states of the rows, copied to their own memory."""
        mask = self._mask[:rows, 0, 0, :length].long()
        return mask, [memory[:rows, :, :length].clone() for memory in self._memory]

    @torch.no_grad()
    def capture(self, memory: Any) -> None:
        """Capture the step as a CUDA graph; the contents of the slot's memory are lost."""
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._count.zero_()
                self._step()
            self._count.zero_()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=memory, capture_error_mode="thread_local"):
            self._step()
        self._graph = graph

    @torch.no_grad()
    def _step(self) -> None:
        self._mask.index_fill_(3, self._place, True)
        result = self._decoder.language_model(
            input_ids=self._tokens,
            attention_mask=self._mask,
            position_ids=self._positions,
            use_cache=True,
            **{self._decoder.cache_name: self._cache},
        )
        logits = self._decoder.logits(result.last_hidden_state[:, -1])
        best, chosen = logits.max(-1, keepdim=True)
        self._said.index_copy_(1, self._count, chosen)
        self._log_probs.index_copy_(1, self._count, best - logits.logsumexp(-1, keepdim=True))
        self._tokens.copy_(chosen)
        for number in (self._positions, self._place, self._count):
            number.add_(1)


class _StaticLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not followed
    """Keys and values `[rows, heads, capacity, width]` of a layer; `place`, int64 `[1]`, is the next one to be written."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, place: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values, self._place = keys, values, place
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys.index_copy_(2, self._place, keys)
        self.values.index_copy_(2, self._place, values)
        return self.keys, self.values


def _states_of(cache: Any) -> States:
    return [states for layer in cache.layers for states in (layer.keys, layer.values)]


def _elements(own: torch.Tensor, size: tuple[int, int]) -> int:
    return size[0] * own.shape[1] * size[1] * own.shape[3]


def _view(memory: torch.Tensor, own: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The beginning of `memory` viewed as `[rows, heads, capacity, width]`, with the heads and the width of `own`."""
    return memory[: _elements(own, size)].view(size[0], own.shape[1], size[1], own.shape[3])
