"""Uploaded files to audio."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO

import numpy as np

from simulsa.audio import load_audio_within


def decode_upload(file: IO[bytes], name: str, max_s: float) -> np.ndarray:
    """Decode an uploaded file to float32 mono `[samples]` at `SAMPLE_RATE`; its format is detected from its content.

    Raises `AudioTooLongError` beyond `max_s` seconds, and `AudioError` like `load_audio`; messages call the file `name`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        with open(path, "wb") as copy:
            shutil.copyfileobj(file, copy)
        return load_audio_within(path, max_s, name)
