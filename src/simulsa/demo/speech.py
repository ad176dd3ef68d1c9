"""The bundled speech as a corpus: a manifest and WAV files to try the commands on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from simulsa.audio import SAMPLE_RATE, encode_audio
from simulsa.files import atomic_write
from simulsa.manifest import Utterance, read_manifest, write_manifest
from simulsa.progress import track

DATA = Path(__file__).parent / "data"
SPLITS = ("test", "train")


@dataclass(frozen=True)
class DemoSpeechConfig:
    """Which of the bundled sentences to write."""

    split: str = "test"
    """test (120 sentences) or train (680)"""
    limit: int | None = None
    """use only the first sentences"""
    overwrite: bool = False
    """replace an existing manifest"""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}; it must be {' or '.join(SPLITS)}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}; it must be at least 1")


def write_demo_speech(config: DemoSpeechConfig, out: Path) -> list[Utterance]:
    """Write the manifest `out` and a 16-bit WAV file per sentence in `<out without suffix>-audio/`; returns the rows.

    Raises `CorpusError` if `out` is not a .jsonl file or already exists.
    """
    from simulsa.corpora.build import new_output

    new_output(out, config.overwrite)
    folder = out.with_name(out.stem + "-audio")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in track(read_manifest(DATA / f"{config.split}.jsonl")[: config.limit], "writing audio"):
        path = folder / f"{row.id}.wav"
        with atomic_write(path, "wb") as file:
            file.write(encode_audio(row.load(), SAMPLE_RATE, "WAV"))
        rows.append(dataclasses.replace(row, audio=str(path), start_s=0.0))
    write_manifest(out, rows)
    return rows
