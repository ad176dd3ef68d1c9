"""The bundled clips for the web page: spoken captions that suit the bundled model."""

from __future__ import annotations

import functools
from importlib.resources import files
from pathlib import Path
from typing import Any

from simulsa.audio import wav_bytes
from simulsa.manifest import Utterance, read_manifest

MANIFEST = Path(str(files("simulsa"))) / "demo" / "data" / "test.jsonl"


@functools.cache
def clips() -> dict[str, Utterance]:
    """The clips by id."""
    return {row.id: row for row in read_manifest(MANIFEST)}


def listing() -> list[dict[str, Any]]:
    """Descriptions of the clips for the web page, with their URLs."""
    return [
        {
            "id": row.id,
            "url": f"samples/{row.id}.wav",
            "duration_s": row.duration_s,
            "source_language": row.source_lang,
            "target_language": row.target_lang,
            "text": row.source_text,
            "reference": row.target_text,
        }
        for row in clips().values()
    ]


def wav(row: Utterance) -> bytes:
    """A clip as a WAV file, 16-bit at `SAMPLE_RATE`."""
    return wav_bytes(row.load(), "PCM_16")
