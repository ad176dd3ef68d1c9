"""Voice activity detection: the speech probability of each 32 ms window, by Silero VAD (https://github.com/snakers4/silero-vad)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from simulsa.extras import optional

if TYPE_CHECKING:
    import torch

WINDOW_SAMPLES = 512  # 32 ms, the input of one Silero VAD call
_CONTEXT_SAMPLES = 64  # plus the end of the previous window
_STATE_SHAPE = (2, 1, 128)  # its recurrent state: [layers, streams, width]


class VAD(Protocol):
    """A voice activity detector for one stream, fed window by window; the base class of all."""

    def __call__(self, window: np.ndarray) -> float:
        """The probability that the stream's next window, float32 `[WINDOW_SAMPLES]`, is speech."""
        ...

    def reset(self) -> None:
        """Discard all state, ready for another stream."""
        ...

    @staticmethod
    def together(vads: Sequence[Any], windows: Sequence[np.ndarray]) -> list[float]:
        """Judge one window of each stream, by detectors of this class: one after the other, unless the class can do better."""
        return [vad(window) for vad, window in zip(vads, windows, strict=True)]


class SileroVAD(VAD):
    """Silero VAD on one stream. All streams of a process share the network; each keeps its own state.

    Raises `RuntimeError` with the pip extra to install if the package `silero-vad` is missing.
    """

    _context: torch.Tensor
    _state: torch.Tensor

    def __init__(self) -> None:
        self._network = _network()
        self.reset()

    def __call__(self, window: np.ndarray) -> float:
        """The probability that the stream's next window, float32 `[WINDOW_SAMPLES]`, is speech."""
        return self.together([self], [window])[0]

    @staticmethod
    def together(vads: Sequence[SileroVAD], windows: Sequence[np.ndarray]) -> list[float]:
        """Judge one window of each stream in one network call; the results equal those of separate calls."""
        import torch

        with torch.inference_mode():
            new = torch.from_numpy(np.stack(windows).astype(np.float32))
            heard = torch.cat([torch.stack([vad._context for vad in vads]), new], dim=1)
            probabilities, states = vads[0]._network(heard, torch.cat([vad._state for vad in vads], dim=1))
        for row, vad in enumerate(vads):
            vad._context = heard[row, -_CONTEXT_SAMPLES:]
            vad._state = states[:, row : row + 1]
        return [float(probability) for probability in probabilities.flatten()]

    def reset(self) -> None:
        """Discard all state, ready for another stream."""
        import torch

        self._context = torch.zeros(_CONTEXT_SAMPLES)
        self._state = torch.zeros(_STATE_SHAPE)


def speech_probabilities(vads: Sequence[VAD], windows: Sequence[np.ndarray]) -> list[float]:
    """The speech probability of each stream's next window; all detectors of a class judge together."""
    judged: dict[int, float] = {}
    for kind in dict.fromkeys(type(vad) for vad in vads):
        rows = [row for row, vad in enumerate(vads) if type(vad) is kind]
        judged |= zip(rows, kind.together([vads[row] for row in rows], [windows[row] for row in rows]), strict=True)
    return [judged[row] for row in range(len(vads))]


@functools.cache
def _network() -> Any:
    """Silero's network for 16 kHz: audio `[streams, context + window]` and state in, probabilities `[streams, 1]` and state out.

    The package wraps it in a model that holds the state of a single stream.
    """
    import warnings

    import torch

    threads = torch.get_num_threads()
    silero = optional("silero_vad", "longform", "long-form streaming")
    torch.set_num_threads(threads)  # importing the package sets it to 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from the package's use of torch.jit.load
        return silero.load_silero_vad()._model
