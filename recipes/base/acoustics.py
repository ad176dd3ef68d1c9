"""Acoustic degradations of speech: a room, coloured noise, a codec."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from simulsa.audio import SAMPLE_RATE

CODECS = (("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS"))


def in_a_room(
    samples: np.ndarray, rng: np.random.Generator, decay_s: tuple[float, float], below_db: tuple[float, float]
) -> np.ndarray:
    """Reverberation by an exponentially decaying noise tail (60 dB in `decay_s`), `below_db` weaker than the direct sound."""
    decay = rng.uniform(*decay_s)
    time_s = np.arange(int(decay * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay)
    tail *= 10 ** (-rng.uniform(*below_db) / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    length = len(samples) + len(tail)
    return np.asarray(np.fft.irfft(np.fft.rfft(samples, length) * np.fft.rfft(tail, length), length))[: len(samples)]


def coloured_noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` samples of steady noise, at no particular level, whose spectrum lies between white and brown."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    return np.fft.irfft(spectrum * np.arange(1, len(spectrum) + 1) ** -rng.uniform(0, 1), count)


def through_codec(
    samples: np.ndarray, container: str, codec: str, compression: float | None = None, rate: int = SAMPLE_RATE
) -> np.ndarray:
    """`samples` encoded and decoded by libsndfile, same length; `compression` from 0 (best) to 1 (smallest)."""
    file = io.BytesIO()
    options = {} if compression is None else {"compression_level": compression}
    soundfile.write(file, np.clip(samples, -1, 1), rate, format=container, subtype=codec, **options)
    file.seek(0)
    decoded = soundfile.read(file, dtype="float32")[0]
    return np.pad(decoded, (0, max(0, len(samples) - len(decoded))))[: len(samples)]
