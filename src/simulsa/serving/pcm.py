"""Conversion between 16-bit PCM at any rate, in pieces, and the audio that models hear."""

from __future__ import annotations

import numpy as np

from simulsa.audio import AudioError, StreamResampler

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000  # Hz


class PcmReader:
    """Pieces of mono 16-bit little-endian PCM at `rate` Hz to float32 at `SAMPLE_RATE`.

    Any split gives the same audio, even inside a sample: its first byte, `held_back`, waits for the second.
    """

    def __init__(self, rate: int) -> None:
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise AudioError(f"the sample rate is {rate} Hz; it must be from {LOWEST_RATE} to {HIGHEST_RATE}")
        self.rate = rate
        self.held_back = b""
        self._resampled = StreamResampler(rate)

    def read(self, data: bytes, last: bool = False) -> np.ndarray:
        """The samples of a piece, as far as the resampler has them; `last` flushes it, except for half a sample."""
        data = self.held_back + data
        whole = len(data) - len(data) % 2
        data, self.held_back = data[:whole], data[whole:]
        return self._resampled(np.frombuffer(data, dtype="<i2").astype(np.float32) / 32_768, last)


def write_pcm(samples: np.ndarray) -> bytes:
    """Float32 mono audio as 16-bit little-endian PCM of the same rate; `PcmReader` gives it back."""
    levels: np.ndarray = np.rint(samples * 32_768)
    return levels.clip(-32_768, 32_767).astype("<i2").tobytes()
