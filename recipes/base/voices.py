"""The voices of three synthesisers: those that speak the training captions, and those held out for testing.

eSpeak NG is a formant synthesiser with many variants. hibari has one natural voice, which takes almost no computing time.
Kokoro has 28 natural voices, which take about as long to compute as the speech lasts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ESPEAK_ACCENTS = {  # accent -> share of eSpeak's training speech
    "en-us": 0.40,
    "en": 0.25,
    "en-us-nyc": 0.10,
    "en-gb-scotland": 0.10,
    "en-gb-x-gbclan": 0.10,
    "en-gb-x-gbcwmd": 0.05,
}
ESPEAK_VARIANTS = (
    *("", "m1", "m2", "m3", "m4", "m6", "m7", "m8", "f1", "f2", "f3", "f4"),
    *("Andy", "Annie", "Alex", "Denis", "Gene", "Jacky", "Lee", "Mario", "Michael", "Mike", "adam", "aunty", "benjamin", "caleb"),
    *("david", "ed", "grandma", "iven", "john", "klatt", "klatt3", "linda", "max", "miguel", "pablo", "paul", "quincy", "rob"),
    *("sandro", "shelby", "steph", "steph2", "travis", "victor", "zac"),
)
KOKORO_VOICES = (
    *("af_alloy", "af_aoede", "af_heart", "af_jessica", "af_kore", "af_nicole", "af_nova", "af_river", "af_sky"),
    *("am_adam", "am_echo", "am_eric", "am_liam", "am_onyx", "am_puck", "am_santa"),
    *("bf_alice", "bf_lily", "bm_daniel", "bm_lewis"),
)

# Never heard in training: neither this eSpeak accent nor any of its variants, and two Kokoro voices of each accent and sex.
UNHEARD_ESPEAK = ("en-gb-x-rp+f5", "en-gb-x-rp+m5", "en-gb-x-rp+belinda", "en-gb-x-rp+edward")
UNHEARD_KOKORO = (
    *("af_bella", "am_michael", "bf_emma", "bm_george"),
    *("af_sarah", "am_fenrir", "bf_isabella", "bm_fable"),
)

ENGINES = ESPEAK, HIBARI, KOKORO = "espeak", "hibari", "kokoro"
SHARES = {HIBARI: 0.55, ESPEAK: 0.45}  # of a bulk reading; the slow Kokoro has a reading of its own


@dataclass(frozen=True)
class Speaker:
    """A synthesiser's voice and its changes: `pitch` and `tract` multiply the pitch and the formants, `speed` the tempo.

    A short vocal tract has high formants, so `tract` < 1 lowers them as a tall speaker's does. eSpeak's own scale of pitch
    (0 to 99) is `pitch` × 50.
    """

    engine: str
    voice: str
    speed: float = 1.0
    pitch: float = 1.0
    tract: float = 1.0


def training_speaker(rng: np.random.Generator, engine: str | None = None) -> Speaker:
    """A speaker of the training mix, or of one engine: voice, speed, pitch and formants drawn independently."""
    engine = engine or str(rng.choice(list(SHARES), p=list(SHARES.values())))
    if engine == ESPEAK:
        accent = str(rng.choice(list(ESPEAK_ACCENTS), p=list(ESPEAK_ACCENTS.values())))
        variant = str(rng.choice(ESPEAK_VARIANTS))
        name = f"{accent}+{variant}" if variant else accent
        return Speaker(ESPEAK, name, speed=rng.uniform(0.82, 1.21), pitch=rng.uniform(0.6, 1.4))
    if engine == KOKORO:
        return Speaker(KOKORO, str(rng.choice(KOKORO_VOICES)), speed=rng.uniform(0.85, 1.25), tract=rng.uniform(0.94, 1.06))
    man = rng.random() < 0.5  # the voice is a woman's; a lower pitch with a longer vocal tract makes it a man's
    pitch, tract = (
        (rng.uniform(0.45, 0.75), rng.uniform(0.80, 0.95)) if man else (rng.uniform(0.75, 1.25), rng.uniform(0.90, 1.15))
    )
    british = rng.random() < 0.3
    return Speaker(HIBARI, "british" if british else "american", rng.uniform(0.8, 1.3), float(pitch), float(tract))
