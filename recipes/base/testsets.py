"""Test captions spoken by voices that training never hears."""

from __future__ import annotations

from pathlib import Path

from recipes.base.captions import spoken_rows
from recipes.base.voices import ESPEAK, KOKORO, UNHEARD_ESPEAK, UNHEARD_KOKORO, Speaker
from simulsa.corpora.multi30k import read_captions
from simulsa.manifest import Utterance

SPEAKERS = {
    KOKORO: [Speaker(KOKORO, voice) for voice in UNHEARD_KOKORO],
    ESPEAK: [Speaker(ESPEAK, voice) for voice in UNHEARD_ESPEAK],
}


def spoken_split(data: Path, split: str, voices: str, limit: int | None, assets: Path, folder: Path) -> list[Utterance]:
    """The first `limit` captions of a split by "kokoro" or "espeak" voices in turn, as rows whose audio is in `folder`.

    Some are longer than the model's window.
    """
    sources, targets = (read_captions(data, split, lang)[:limit] for lang in ("en", "de"))
    speakers = SPEAKERS[voices]
    return spoken_rows(
        list(zip(sources, targets, strict=True)),
        f"{split}-{voices}",
        lambda number: speakers[number % len(speakers)],
        assets,
        folder,
    )
