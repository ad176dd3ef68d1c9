"""What happens to speech between a mouth and a file: a room, a level, noise, a telephone, a lossy codec."""

from __future__ import annotations

import numpy as np

from recipes.acoustics import CODECS, coloured_noise, in_a_room, through_codec
from simulsa.audio import SAMPLE_RATE, resample

ROOM_SHARE, NOISE_SHARE, TELEPHONE_SHARE, CODEC_SHARE = 0.2, 0.5, 0.1, 0.25
ROOM_DECAY_S, ROOM_BELOW_DB = (0.1, 0.5), (6, 20)
MAX_SILENCE_SAMPLES = SAMPLE_RATE // 4


def record(speech: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Put float32 `speech` through conditions drawn from `rng`.

    Returns float32 samples and the number of samples that were put in front.
    """
    before, after = (int(rng.integers(0, MAX_SILENCE_SAMPLES)) for _ in range(2))
    samples = np.pad(speech, (before, after)) * 10 ** (rng.uniform(-12, 3) / 20)
    if rng.random() < ROOM_SHARE:
        samples = in_a_room(samples, rng, ROOM_DECAY_S, ROOM_BELOW_DB)
    if rng.random() < NOISE_SHARE:
        samples = with_noise(samples, rng)
    if rng.random() < TELEPHONE_SHARE:
        samples = resample(resample(samples.astype(np.float32), SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)[: len(samples)]
    if rng.random() < CODEC_SHARE:
        samples = through_codec(samples, *CODECS[rng.integers(len(CODECS))], float(rng.uniform(0.2, 0.95)))
    return samples.astype(np.float32), before


def with_noise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise 10 to 40 dB below the speech, its spectrum between white and brown."""
    noise = coloured_noise(len(samples), rng)
    level = np.sqrt(np.mean(samples**2) / max(np.mean(noise**2), 1e-12)) * 10 ** (-rng.uniform(10, 40) / 20)
    noisy: np.ndarray = samples + level * noise
    return noisy
