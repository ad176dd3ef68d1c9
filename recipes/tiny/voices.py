"""Which voices speak the training captions, and which are kept for the test."""

from __future__ import annotations

import numpy as np

from recipes.tiny import flite
from simulsa.corpora.synthesis import Voice

ACCENTS = {  # eSpeak NG accent -> share of its training speech
    "en-us": 0.40,
    "en": 0.25,
    "en-us-nyc": 0.10,
    "en-gb-scotland": 0.10,
    "en-gb-x-gbclan": 0.10,
    "en-gb-x-gbcwmd": 0.05,
}
VARIANTS = (
    *("", "m1", "m2", "m3", "m4", "m6", "m7", "m8", "f1", "f2", "f3", "f4"),
    *("Andy", "Annie", "Alex", "Denis", "Gene", "Jacky", "Lee", "Mario", "Michael", "Mike", "adam", "aunty", "benjamin", "caleb"),
    *("david", "ed", "grandma", "iven", "john", "klatt", "klatt3", "linda", "max", "miguel", "pablo", "paul", "quincy", "rob"),
    *("sandro", "shelby", "steph", "steph2", "travis", "victor", "zac"),
)
FLITE_SHARE = 0.2  # of all training speech, where flite is installed
# Neither this accent nor any of these variants occurs in training.
UNSEEN_VOICES = ("en-gb-x-rp+f5", "en-gb-x-rp+m5", "en-gb-x-rp+belinda", "en-gb-x-rp+edward")
RATES_WPM = (135, 200)
PITCHES = (30, 70)


def training_voice(rng: np.random.Generator) -> Voice:
    """A voice of the training mix: synthesiser, accent, variant, rate and pitch drawn independently."""
    rate, pitch = int(rng.integers(*RATES_WPM)), int(rng.integers(*PITCHES))
    if rng.random() < FLITE_SHARE and flite.available():
        return Voice(flite.PREFIX + str(rng.choice(flite.TRAINING_VOICES)), rate, pitch)
    accent = str(rng.choice(list(ACCENTS), p=list(ACCENTS.values())))
    variant = str(rng.choice(VARIANTS))
    name = f"{accent}+{variant}" if variant else accent
    return Voice(name, rate, pitch)
