"""Test captions spoken by voices that training never hears, as FLAC files and a manifest; a killed run goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from recipes.base.synthesis import Synthesisers
from recipes.base.voices import ESPEAK, KOKORO, UNHEARD_ESPEAK, UNHEARD_KOKORO, Speaker
from simulsa.audio import SAMPLE_RATE
from simulsa.corpora.multi30k import read_captions
from simulsa.files import atomic_write
from simulsa.manifest import Utterance, write_manifest

SPEAKERS = {
    "kokoro": [Speaker(KOKORO, voice) for voice in UNHEARD_KOKORO],
    "espeak": [Speaker(ESPEAK, voice) for voice in UNHEARD_ESPEAK],
}
MARGIN_SAMPLES = SAMPLE_RATE // 5  # of silence around an utterance
LONGEST_SAMPLES = 10 * SAMPLE_RATE - 2 * MARGIN_SAMPLES


def spoken_split(data: Path, split: str, voices: str, limit: int | None, assets: Path, folder: Path) -> list[Utterance]:
    """The first `limit` captions of a split by "kokoro" or "espeak" voices in turn, as rows whose audio lies in `folder`.

    Raises `RuntimeError` for an utterance that the model's window cannot hold.
    """
    sources, targets = (read_captions(data, split, lang)[:limit] for lang in ("en", "de"))
    speakers, synthesisers = SPEAKERS[voices], Synthesisers(assets)
    rows = []
    for number, (source, target) in enumerate(zip(tqdm(sources, f"{split} by {voices}", mininterval=10), targets, strict=True)):
        speaker = speakers[number % len(speakers)]
        path = folder / f"{split}-{voices}" / f"{number:05d}.flac"
        if not path.exists():
            speech = synthesisers.speak(source, speaker, np.random.default_rng(number))
            if len(speech) > LONGEST_SAMPLES:
                raise RuntimeError(f"{split} {number} lasts {len(speech) / SAMPLE_RATE:.1f} s, more than the model hears")
            with atomic_write(path, "wb") as file:
                soundfile.write(file, np.pad(0.5 * speech, MARGIN_SAMPLES), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        rows.append(
            Utterance(
                f"{split}-{voices}-{number:05d}",
                str(path),
                "en",
                "de",
                target,
                source_text=source,
                extra={"voice": speaker.voice},
            )
        )
    write_manifest(folder / f"{split}-{voices}.jsonl", rows)
    return rows
