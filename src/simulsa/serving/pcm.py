"""Conversion between 16-bit PCM at any rate, in pieces, and the audio that models take."""

from __future__ import annotations

import numpy as np

from simulsa.audio import AudioError, StreamResampler

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000  # Hz


class PcmReader:
    """Converts pieces of mono 16-bit little-endian PCM at `rate` Hz to float32 at `SAMPLE_RATE`.

    Any split gives the same audio, even one inside a sample: its first byte is `held_back` until the second arrives. `untouched`
    until it is given any: the resampler keeps what comes first to itself for a while.
    """

    def __init__(self, rate: int) -> None:
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise AudioError(f"the sample rate is {rate} Hz; it must be from {LOWEST_RATE} to {HIGHEST_RATE}")
        self.rate = rate
        self.held_back = b""
        self.untouched = True
        self._resampled = StreamResampler(rate)

    def read(self, data: bytes, last: bool = False) -> np.ndarray:
        """The samples that are ready after a piece; `last` flushes the resampler, but not half a sample."""
        data = self.held_back + data
        self.untouched = self.untouched and not data
        whole = len(data) - len(data) % 2
        data, self.held_back = data[:whole], data[whole:]
        return self._resampled(np.frombuffer(data, dtype="<i2").astype(np.float32) / 32_768, last)


def write_pcm(samples: np.ndarray) -> bytes:
    """Float32 mono audio as 16-bit little-endian PCM at the same rate; the inverse of `PcmReader`."""
    levels: np.ndarray = np.rint(samples * 32_768)
    return levels.clip(-32_768, 32_767).astype("<i2").tobytes()
