"""Recording conditions of speech: a room, other sounds, a level, a telephone, a lossy codec."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recipes.base.acoustics import CODECS, coloured_noise, in_a_room, through_codec
from simulsa.audio import SAMPLE_RATE, resample

ROOM_SHARE, NOISE_SHARE, BABBLE_SHARE, MUSIC_SHARE = 0.25, 0.35, 0.15, 0.05
TELEPHONE_SHARE, CODEC_SHARE = 0.15, 0.3
MAX_SILENCE_S = 0.5  # before and after the speech
LEVELS_DB = (-30, 0)  # of the loudest sample
TELEPHONE_RATE, TELEPHONE_BAND_HZ = 8000, (300, 3400)
ROOM_DECAY_S, ROOM_BELOW_DB = (0.1, 0.6), (4, 20)


def record(speech: np.ndarray, others: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Put float32 `speech` through conditions drawn from `rng`; `others` is speech to make babble from.

    Returns float32 samples in [-1, 1].
    """
    margins = [int(margin) for margin in rng.uniform(0, MAX_SILENCE_S, 2) * SAMPLE_RATE]
    samples = np.pad(speech, margins)
    if rng.random() < ROOM_SHARE:
        samples = in_a_room(samples, rng, ROOM_DECAY_S, ROOM_BELOW_DB)
    kind = rng.random()
    if kind < NOISE_SHARE:
        samples = mixed(samples, swelling_noise(len(samples), rng), rng.uniform(8, 40))
    elif kind < NOISE_SHARE + BABBLE_SHARE and others:
        samples = mixed(samples, babble(others, len(samples), rng), rng.uniform(12, 30))
    elif kind < NOISE_SHARE + BABBLE_SHARE + MUSIC_SHARE:
        samples = mixed(samples, music(len(samples), rng), rng.uniform(12, 30))
    samples = samples * (10 ** (rng.uniform(*LEVELS_DB) / 20) / max(1e-4, float(np.abs(samples).max())))
    if rng.random() < TELEPHONE_SHARE:
        samples = over_telephone(samples)
    if rng.random() < CODEC_SHARE:
        samples = through_codec(samples, *CODECS[rng.integers(len(CODECS))], float(rng.uniform(0.2, 0.99)))
    return np.clip(samples, -1, 1).astype(np.float32)


def without_speech(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A clip in which nobody speaks: digital silence, noise or music, at any level."""
    count = int(seconds * SAMPLE_RATE)
    kind = rng.integers(4)
    samples = np.zeros(count) if kind == 0 else music(count, rng) if kind == 1 else swelling_noise(count, rng)
    level = 10 ** (rng.uniform(-60, 0) / 20)
    return (samples * (level / max(1.0, float(np.abs(samples).max())))).astype(np.float32)


def mixed(speech: np.ndarray, sound: np.ndarray, ratio_db: float) -> np.ndarray:
    """`speech` mixed with `sound` at a speech-to-sound ratio of `ratio_db`, by mean power."""
    power = [max(float(np.mean(np.square(part))), 1e-12) for part in (speech, sound)]
    return np.asarray(speech + sound * np.sqrt(power[0] / power[1]) * 10 ** (-ratio_db / 20))


def swelling_noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Coloured noise with peaks of 1, in half the cases swelling and ebbing."""
    noise = coloured_noise(count, rng)
    if rng.random() < 0.5:
        rate_hz, phase = rng.uniform(0.2, 4), rng.uniform(0, 2 * np.pi)
        noise = noise * (0.6 + 0.4 * np.sin(2 * np.pi * rate_hz * np.arange(count) / SAMPLE_RATE + phase))
    return np.asarray(noise / max(1e-9, float(np.abs(noise).max())))


def babble(others: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """Three to eight of the `others` at once, each from somewhere in its middle, repeated as long as needed."""
    voices = rng.integers(len(others), size=rng.integers(3, 9))
    return np.asarray(
        np.sum([np.resize(np.roll(others[voice], rng.integers(len(others[voice]))), count) for voice in voices], axis=0)
    )


def music(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random chords, a melody and a beat: decaying tones with harmonics on a random scale and tempo."""
    samples = np.zeros(count)
    beat = int(SAMPLE_RATE * rng.uniform(0.15, 0.6))
    scale = 55 * 2 ** rng.uniform(0, 1) * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11]) / 12)
    brightness, decay_s, drums = rng.uniform(0.5, 2.5), rng.uniform(0.1, 1.5), rng.random() < 0.5
    for start in range(0, count, beat):
        length = min(count - start, 3 * beat)
        time_s = np.arange(length) / SAMPLE_RATE
        envelope = np.exp(-time_s / decay_s) * np.minimum(1, time_s / 0.01)
        for _ in range(rng.integers(1, 4)):
            pitch_hz = rng.choice(scale) * 2 ** rng.integers(0, 4)
            harmonics = [h for h in range(1, 9) if h * pitch_hz < 7500]
            tone = sum(np.sin(2 * np.pi * h * pitch_hz * time_s + rng.uniform(0, 6.3)) * h**-brightness for h in harmonics)
            samples[start : start + length] += tone * envelope * rng.uniform(0.3, 1)
        if drums:
            samples[start : start + length] += rng.standard_normal(length) * np.exp(-time_s / 0.03) * rng.uniform(0.2, 1)
    return np.asarray(samples / max(1e-9, float(np.abs(samples).max())))


def over_telephone(samples: np.ndarray) -> np.ndarray:
    """`samples` over a telephone: 8 kHz, 300 to 3,400 Hz, μ-law (G.711)."""
    narrow = resample(samples.astype(np.float32), SAMPLE_RATE, TELEPHONE_RATE)
    spectrum, hertz = np.fft.rfft(narrow), np.fft.rfftfreq(len(narrow), 1 / TELEPHONE_RATE)
    lowest, highest = TELEPHONE_BAND_HZ
    band = np.where((hertz >= lowest) & (hertz <= highest), spectrum, 0)
    coded = through_codec(np.fft.irfft(band, len(narrow)), "WAV", "ULAW", rate=TELEPHONE_RATE)
    wide = resample(coded.astype(np.float32), TELEPHONE_RATE, SAMPLE_RATE)
    return np.resize(np.pad(wide, (0, max(0, len(samples) - len(wide)))), len(samples))
