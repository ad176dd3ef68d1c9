"""Which voices speak the training captions, and which are kept for the test."""

from __future__ import annotations

import numpy as np

from simulsa.corpora.synthesis import Voice

ACCENTS = {  # eSpeak NG accent -> share of the training speech
    "en-us": 0.40,
    "en": 0.25,
    "en-us-nyc": 0.10,
    "en-gb-scotland": 0.10,
    "en-gb-x-gbclan": 0.10,
    "en-gb-x-gbcwmd": 0.05,
}
VARIANTS = (
    *("", "m1", "m2", "m3", "m4", "m6", "m7", "f1", "f2", "f3", "f4"),
    *("Andy", "Annie", "Alex", "steph", "linda", "max", "klatt3"),
)
# Neither this accent nor this variant occurs in training.
UNSEEN_VOICE = Voice("en-gb-x-rp+f5", rate_wpm=165, pitch=50)
RATES_WPM = (145, 190)
PITCHES = (35, 65)


def training_voice(rng: np.random.Generator) -> Voice:
    """A voice of the training mix: accent, variant, rate and pitch drawn independently."""
    accent = str(rng.choice(list(ACCENTS), p=list(ACCENTS.values())))
    variant = str(rng.choice(VARIANTS))
    name = f"{accent}+{variant}" if variant else accent
    return Voice(name, int(rng.integers(*RATES_WPM)), int(rng.integers(*PITCHES)))
