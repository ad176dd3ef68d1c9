"""Voice activity: how likely each window of 32 ms is speech, by Silero VAD (https://github.com/snakers4/silero-vad)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from simulsa.extras import optional

if TYPE_CHECKING:
    import torch

WINDOW_SAMPLES = 512  # 32 ms, what Silero VAD hears at a time
_CONTEXT_SAMPLES = 64  # and the end of the window before it


class VAD(Protocol):
    """Listens to one stream, a window after the other."""

    def __call__(self, window: np.ndarray) -> float:
        """The probability that the next window of the stream, float32 `[WINDOW_SAMPLES]`, is speech."""
        ...

    def reset(self) -> None:
        """Forget the stream, ready for another one."""
        ...


class SileroVAD:
    """Silero VAD on one stream. All streams of a process share the network, each keeps its own state.

    Raises `RuntimeError` with the pip extra to install when the package `silero-vad` is missing.
    """

    _context: torch.Tensor
    _state: torch.Tensor

    def __init__(self) -> None:
        self._network = _network()
        self.reset()

    def __call__(self, window: np.ndarray) -> float:
        """The probability that the next window of the stream, float32 `[WINDOW_SAMPLES]`, is speech."""
        import torch

        with torch.inference_mode():
            heard = torch.cat([self._context, torch.from_numpy(np.asarray(window, dtype=np.float32))])
            probability, self._state = self._network(heard[None], self._state)
        self._context = heard[-_CONTEXT_SAMPLES:]
        return float(probability)

    def reset(self) -> None:
        """Forget the stream, ready for another one."""
        import torch

        self._context = torch.zeros(_CONTEXT_SAMPLES)
        self._state = torch.zeros(0)  # the network begins its own


@functools.cache
def _network() -> Any:
    """Silero's network for 16 kHz: audio `[1, context + window]` and state in, probability and state out.

    The package wraps it in a model that holds the state of a single stream.
    """
    import warnings

    import torch

    threads = torch.get_num_threads()
    silero = optional("silero_vad", "longform", "speech without end")
    torch.set_num_threads(threads)  # importing the package sets it to 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.load, which is the package's business
        return silero.load_silero_vad()._model
