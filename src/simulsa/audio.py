"""Audio in and out: one rate, one layout, time in integer samples.

Everywhere in simulsa, audio is float32 mono PCM in [-1, 1] at `SAMPLE_RATE`. Files of any rate, channel count and format that
libsndfile reads (WAV, FLAC, OGG/Opus, MP3, ...) are converted here, and only here.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from simulsa.files import atomic_write

SAMPLE_RATE = 16_000  # Hz, what every supported audio-language model hears
SAMPLES_PER_MS = SAMPLE_RATE // 1000  # 16
_MP3_RUN_IN_S = 1  # an MP3 frame borrows bits from earlier ones, so a decoder that has sought needs some frames to run in


class AudioError(ValueError):
    """An audio file or array that cannot be used; the message names it, the value found, the rule and the fix."""


def s_to_samples(seconds: float, rate: int = SAMPLE_RATE) -> int:
    """Seconds to the nearest whole sample."""
    return round(seconds * rate)


def ms_to_samples(milliseconds: float) -> int:
    """Milliseconds to the nearest whole sample."""
    return round(milliseconds * SAMPLES_PER_MS)


def samples_to_s(samples: int) -> float:
    """Samples to seconds."""
    return samples / SAMPLE_RATE


def samples_to_ms(samples: int) -> float:
    """Samples to milliseconds."""
    return samples / SAMPLES_PER_MS


def resample(samples: np.ndarray, rate: int, target_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Resample float32 `[samples]` or `[samples, channels]` from `rate` to `target_rate` Hz with soxr (high quality)."""
    if rate == target_rate:
        return np.ascontiguousarray(samples, dtype=np.float32)
    import soxr

    return np.asarray(soxr.resample(np.asarray(samples, dtype=np.float32), rate, target_rate), dtype=np.float32)


class StreamResampler:
    """Resamples mono audio that arrives in pieces from `rate` Hz to `SAMPLE_RATE`; all pieces together equal `resample`."""

    def __init__(self, rate: float) -> None:
        import soxr

        self._stream = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def __call__(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """What of the output is ready after float32 `samples`; with `last`, all of it."""
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(np.ascontiguousarray(samples), last=last), dtype=np.float32)


def audio_length(path: str | Path, start_s: float = 0.0, duration_s: float | None = None) -> int:
    """The length in samples (at `SAMPLE_RATE`) of a file or a slice of it, from its header alone.

    Raises `AudioError` when the file is missing, unreadable or empty, or the slice lies outside it.
    """
    with _open(path) as file:
        first, last = slice_frames(path, file.frames, file.samplerate, start_s, duration_s)
        return round((last - first) * SAMPLE_RATE / int(file.samplerate))


def load_audio(path: str | Path, start_s: float = 0.0, duration_s: float | None = None) -> np.ndarray:
    """Read a file, or `duration_s` seconds of it from `start_s`, as float32 mono `[samples]` at `SAMPLE_RATE`.

    Only the slice is decoded. Channels are averaged. Raises `AudioError` when the file is missing, unreadable, empty or holds
    NaN or infinite samples, or the slice lies outside it.
    """
    import soundfile

    with _open(path) as file:
        first, last = slice_frames(path, file.frames, file.samplerate, start_s, duration_s)
        try:
            run_in = min(first, _MP3_RUN_IN_S * file.samplerate) if file.format == "MP3" else 0
            file.seek(first - run_in)
            samples = file.read(run_in + last - first, dtype="float32", always_2d=True)[run_in:]
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{path}: cannot be decoded ({error}); re-encode it, e.g. as 16 kHz WAV") from error
        rate = file.samplerate
    # a header may promise a little more than the file holds (MP3 does); a missing tenth of a second is damage
    if last - first - len(samples) > rate // 10:
        raise AudioError(f"{path}: the header promises {last - first} samples, {len(samples)} are there; the file is cut off")
    return resample(check_samples(samples.mean(axis=1), str(path)), rate)


def flac_path(folder: Path, name: str, tag: int) -> Path:
    """Where the clip called `name` lies in `folder`; `tag`, of 32 bits, tells what is in it from what else had the name."""
    return folder / f"{re.sub(r'[^0-9A-Za-z._-]', '_', name)[-100:]}-{tag:08x}.flac"


def write_flac(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE) -> None:
    """Write `[samples]` or `[samples, channels]` in 16 bits, whole or not at all."""
    import soundfile

    with atomic_write(path, "wb") as file:
        soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")


def check_samples(samples: np.ndarray, name: str) -> np.ndarray:
    """`samples` as float32 if they are finite, mono and not empty, else `AudioError`."""
    samples = np.asarray(samples)
    if np.issubdtype(samples.dtype, np.integer):
        raise AudioError(f"{name}: samples are {samples.dtype}; float in [-1, 1] is needed: divide int16 by 32768")
    samples = samples.astype(np.float32, copy=False)
    if samples.ndim != 1:
        raise AudioError(f"{name}: audio has shape {samples.shape}; one dimension is needed: average the channels first")
    if len(samples) == 0:
        raise AudioError(f"{name}: the audio is empty (0 samples); remove it or give a file with sound")
    broken = int(np.count_nonzero(~np.isfinite(samples)))
    if broken:
        raise AudioError(f"{name}: {broken} of {len(samples)} samples are NaN or infinite; re-export the audio")
    return samples


def _open(path: str | Path):  # type: ignore[no-untyped-def]  # soundfile has no types
    import soundfile

    if not Path(path).is_file():
        raise AudioError(f"{path}: no such audio file; check the path (manifest paths are relative to the manifest)")
    if Path(path).stat().st_size == 0:
        raise AudioError(f"{path}: the file has 0 bytes; remove it or copy it again")
    try:
        return soundfile.SoundFile(str(path))
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: not readable as audio ({error}); use WAV, FLAC, OGG/Opus or MP3") from error


def slice_frames(path: str | Path, frames: int, rate: int, start_s: float, duration_s: float | None) -> tuple[int, int]:
    """The first and the past-the-last frame of a slice of a file with `frames` frames at `rate` Hz.

    Raises `AudioError` when the slice does not lie inside the file; `path` is its name in the message.
    """
    if frames == 0:
        raise AudioError(f"{path}: the audio is empty (0 samples); remove it or give a file with sound")
    if not (math.isfinite(start_s) and math.isfinite(duration_s or 0.0)):
        raise AudioError(f"{path}: the slice (start_s {start_s}, duration_s {duration_s}) must be made of finite seconds")
    first = s_to_samples(start_s, rate)
    last = frames if duration_s is None else first + s_to_samples(duration_s, rate)
    tolerance = rate // 100  # corpora round their segment times
    if first < 0 or last <= first or last > frames + tolerance:
        asked = f"start_s {start_s}, duration_s {duration_s}"
        raise AudioError(f"{path}: the slice ({asked}) must lie inside the file, which lasts {frames / rate:.3f} s")
    return first, min(last, frames)
