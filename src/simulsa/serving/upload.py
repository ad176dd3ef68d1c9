"""Uploaded files to audio, decoded a piece at a time: a few kilobytes of FLAC may hold hours."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO

import numpy as np

from simulsa.audio import AudioError, StreamResampler, audio_length, check_samples

_PIECE = 2**18  # samples of all channels that are decoded at a time: 1 MiB
_NO_LENGTH = 2**40  # frames: no file has so many; it is what libsndfile says of a FLAC that was written to a pipe


class TooLongError(ValueError):
    """An upload of more seconds than the server takes."""


def decode_upload(file: IO[bytes], name: str, max_s: float) -> np.ndarray:
    """The audio of an uploaded file as float32 mono `[samples]` at `SAMPLE_RATE`; its format is told by its content.

    Memory follows the length of the result, whatever the rate and the number of channels. Raises `TooLongError` beyond `max_s`
    seconds, with both numbers, and `AudioError` for what `load_audio` refuses; messages call the file `name`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        with open(path, "wb") as copy:
            shutil.copyfileobj(file, copy)
        try:
            audio_length(path)
            return check_samples(_decode(path, name, max_s), name)
        except AudioError as error:
            raise AudioError(str(error).replace(str(path), name)) from error


def _decode(path: Path, name: str, max_s: float) -> np.ndarray:
    import soundfile

    with soundfile.SoundFile(str(path)) as sound:
        sound.seekable = lambda: False  # soundfile would seek after each piece, and fail in a file whose end is not known
        rate, decoded = sound.samplerate, 0
        resampled = StreamResampler(rate)
        pieces: list[np.ndarray] = []
        try:
            while len(piece := sound.read(_PIECE // sound.channels, dtype="float32", always_2d=True)):
                decoded += len(piece)
                if decoded > max_s * rate:
                    length_s = (sound.frames if decoded <= sound.frames < _NO_LENGTH else decoded) / rate
                    raise TooLongError(
                        f"{name} lasts {length_s:.1f} s or more; this server takes uploads of up to {max_s:g} s: send it in parts"
                    )
                pieces.append(resampled(piece.mean(axis=1)))
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{name}: cannot be decoded ({error}); re-encode it, e.g. as 16 kHz WAV") from error
        if sound.frames < _NO_LENGTH and sound.frames - decoded > rate // 10:
            raise AudioError(f"{name}: the header promises {sound.frames} samples, {decoded} are there; the file is cut off")
        pieces.append(resampled(np.zeros(0, dtype=np.float32), last=True))
    return np.concatenate(pieces)
