"""Test captions spoken by voices that training never hears."""

from __future__ import annotations

from pathlib import Path

from recipes.base.architecture import WINDOW_S
from recipes.base.captions import spoken_rows
from recipes.base.voices import ESPEAK, KOKORO, UNHEARD_ESPEAK, UNHEARD_KOKORO, Speaker
from simulsa.audio import SAMPLE_RATE
from simulsa.corpora.multi30k import read_captions
from simulsa.manifest import Utterance, check_audio

SPEAKERS = {
    KOKORO: [Speaker(KOKORO, voice) for voice in UNHEARD_KOKORO],
    ESPEAK: [Speaker(ESPEAK, voice) for voice in UNHEARD_ESPEAK],
}


def spoken_split(data: Path, split: str, voices: str, limit: int | None, assets: Path, folder: Path) -> list[Utterance]:
    """The first `limit` captions of a split by "kokoro" or "espeak" voices in turn, as rows whose audio lies in `folder`.

    Raises `RuntimeError` for an utterance that the model's window cannot hold.
    """
    sources, targets = (read_captions(data, split, lang)[:limit] for lang in ("en", "de"))
    speakers = SPEAKERS[voices]
    rows = spoken_rows(
        list(zip(sources, targets, strict=True)),
        f"{split}-{voices}",
        lambda number: speakers[number % len(speakers)],
        assets,
        folder,
    )
    for _, problem in check_audio(rows, WINDOW_S * SAMPLE_RATE):
        raise RuntimeError(problem)
    return rows
