"""What happens to speech between a mouth and a file: a room, a level, noise, a telephone, a lossy codec."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from simulsa.audio import SAMPLE_RATE, resample

ROOM_SHARE, NOISE_SHARE, TELEPHONE_SHARE, CODEC_SHARE = 0.2, 0.5, 0.1, 0.25
MAX_SILENCE_SAMPLES = SAMPLE_RATE // 4


def record(speech: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Put float32 `speech` through conditions drawn from `rng`.

    Returns float32 samples and the number of samples that were put in front.
    """
    before, after = (int(rng.integers(0, MAX_SILENCE_SAMPLES)) for _ in range(2))
    samples = np.pad(speech, (before, after)) * 10 ** (rng.uniform(-12, 3) / 20)
    if rng.random() < ROOM_SHARE:
        samples = in_a_room(samples, rng)
    if rng.random() < NOISE_SHARE:
        samples = with_noise(samples, rng)
    if rng.random() < TELEPHONE_SHARE:
        samples = resample(resample(samples.astype(np.float32), SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)[: len(samples)]
    if rng.random() < CODEC_SHARE:
        samples = through_codec(samples, rng)
    return samples.astype(np.float32), before


def in_a_room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reverberation by an exponentially decaying noise tail (60 dB in 0.1 to 0.5 s), 6 to 20 dB below the direct sound."""
    decay_s = rng.uniform(0.1, 0.5)
    time_s = np.arange(int(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s)
    tail *= 10 ** (-rng.uniform(6, 20) / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    length = len(samples) + len(tail)
    return np.asarray(np.fft.irfft(np.fft.rfft(samples, length) * np.fft.rfft(tail, length), length))[: len(samples)]


def with_noise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise 10 to 40 dB below the speech, its spectrum between white and brown."""
    spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
    noise = np.fft.irfft(spectrum * np.arange(1, len(spectrum) + 1) ** -rng.uniform(0, 1), len(samples))
    level = np.sqrt(np.mean(samples**2) / max(np.mean(noise**2), 1e-12)) * 10 ** (-rng.uniform(10, 40) / 20)
    noisy: np.ndarray = samples + level * noise
    return noisy


def through_codec(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Encoded and decoded as MP3, Vorbis or Opus at a quality drawn at random."""
    format_, subtype = [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")][rng.integers(3)]
    file = io.BytesIO()
    clipped = np.clip(samples, -1, 1)
    soundfile.write(file, clipped, SAMPLE_RATE, format=format_, subtype=subtype, compression_level=float(rng.uniform(0.2, 0.95)))
    file.seek(0)
    decoded = soundfile.read(file, dtype="float32")[0]
    whole: np.ndarray = np.pad(decoded, (0, max(0, len(samples) - len(decoded))))
    return whole[: len(samples)]
