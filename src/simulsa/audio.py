"""Audio input and output: one sample rate, one layout, time in integer samples.

Everywhere in simulsa, audio is float32 mono PCM in [-1, 1] at `SAMPLE_RATE`. Files of any rate and channel count are converted
here, and only here, in each format that libsndfile reads and that shows when a part is missing (WAV, FLAC, OGG/Opus, MP3, ...).
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from simulsa.containers import cut_off, fault_of, has_second_flac, mp3_promise
from simulsa.files import atomic_write

if TYPE_CHECKING:
    import soundfile

logger = logging.getLogger("simulsa")

SAMPLE_RATE = 16_000  # Hz, the rate that every supported audio-language model takes
SAMPLES_PER_MS = SAMPLE_RATE // 1000  # 16
_BLOCK_FRAMES = 65_536  # decoded at a time if the header gives no frame count
_MOST_FRAMES_IN_A_BYTE = 65_536  # FLAC packs no more, even of silence; libsndfile reports 2^63 for a FLAC without a length
_CANCELLED = 0.1  # power of the channels' average, relative to that of unrelated channels; for equal ones it is their number
_NOT_PCM = 100.0  # no float recording is 40 dB above [-1, 1]: such samples are integers stored as floats
_MP3_RUN_IN_S = 1  # an MP3 frame borrows bits from earlier ones, so a decoder needs some frames to run in after a seek


class AudioError(ValueError):
    """An audio file or array that cannot be used; the message gives its name, the value found, the rule and the fix."""


class AudioTooLongError(AudioError):
    """A file that is longer than the limit."""


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
        """The output that is ready after float32 `samples`; with `last`, all that remains."""
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(np.ascontiguousarray(samples), last=last), dtype=np.float32)


def resampled_length(frames: int, rate: int) -> int:
    """Number of samples `resample` returns for `frames` at `rate` Hz: halves are rounded up, as in soxr."""
    return (2 * frames * SAMPLE_RATE + rate) // (2 * rate)


def audio_length(path: str | Path, start_s: float = 0.0, duration_s: float | None = None) -> int:
    """Length in samples (at `SAMPLE_RATE`) of a file or a slice of it, equal to that of `load_audio`.

    The length comes from the header; of a FLAC, the last sample is decoded too. A file without a length (FLAC from a pipe, MP3
    without a Xing header) is decoded and counted.
    Raises `AudioError` if the file is missing, unreadable, empty, truncated or concatenated, or the slice lies outside it.
    """
    with _open(path, str(path)) as sound:
        frames = sound.frames if sound.seekable() else sum(map(len, _blocks(sound, str(path))))
        first, last = slice_frames(path, frames, sound.samplerate, start_s, duration_s)
        if sound.format == "FLAC" and sound.seekable():
            _check_last_frame(sound, path, last)
        return resampled_length(last - first, sound.samplerate)


def _check_last_frame(sound: soundfile.SoundFile, path: str | Path, last: int) -> None:
    """Raise `AudioError` if the last of `last` frames is not there: no structure in a FLAC shows how many bytes are missing."""
    try:
        there = len(_read(sound, str(path), 1, last - 1))
    except AudioError:
        there = 0
    if not there:
        raise AudioError(f"{path}: " + cut_off(f"the header promises {sound.frames} samples, number {last} is not there"))


def load_audio(path: str | Path, start_s: float = 0.0, duration_s: float | None = None) -> np.ndarray:
    """Read a file, or `duration_s` seconds of it from `start_s`, as float32 mono `[samples]` at `SAMPLE_RATE`.

    Only the slice is decoded if the header has a length. Channels are averaged; if they cancel each other, the loudest one is
    used, with a warning. Raises `AudioError` if the file is missing, unreadable, empty, truncated, concatenated, or holds NaN or
    infinite samples, or the slice lies outside it.
    """
    samples, rate = decode_audio(path, str(path), start_s, duration_s)
    return resample(check_samples(_mono(samples, str(path)), str(path)), rate)


def load_audio_within(path: str | Path, max_s: float, name: str) -> np.ndarray:
    """Like `load_audio` for an untrusted whole file: decoded in pieces, so that memory is proportional to the duration.

    A few kilobytes of FLAC may hold hours. Raises `AudioTooLongError` beyond `max_s` seconds, with both numbers; messages call
    the file `name`.
    """
    channel = _cancelled_channel(path, max_s, name)
    pieces, frames = [], 0
    with _open(path, name) as sound:
        resampled = StreamResampler(sound.samplerate)
        for block in _blocks_within(sound, max_s, name):
            frames += len(block)
            pieces.append(resampled(block.mean(axis=1) if channel is None else block[:, channel]))
        _check_end(path, name, sound, sound.frames if sound.seekable() else frames, frames, to_end=True)
    pieces.append(resampled(np.zeros(0, dtype=np.float32), last=True))
    return check_samples(np.concatenate(pieces), name)


def _cancelled_channel(path: str | Path, max_s: float, name: str) -> int | None:
    """The channel to use alone if the channels of a file cancel each other (see `_mono`), else `None`."""
    with _open(path, name) as sound:
        if sound.channels == 1:
            return None
        powers, power = np.zeros(sound.channels), 0.0
        for block in _blocks_within(sound, max_s, name):
            average = block.mean(axis=1)
            powers, power = powers + np.einsum("sc,sc->c", block, block), power + float(average @ average)
    return _loudest_of_cancelled(powers, power, name)


def _blocks_within(sound: soundfile.SoundFile, max_s: float, name: str) -> Iterator[np.ndarray]:
    frames = 0
    for block in _blocks(sound, name):
        frames += len(block)
        if frames > max_s * sound.samplerate:
            length_s = (max(sound.frames, frames) if sound.seekable() else frames) / sound.samplerate
            raise AudioTooLongError(
                f"{name} lasts {length_s:.1f} s or more; this server accepts uploads of up to {max_s:g} s: send it in parts"
            )
        yield block


def decode_audio(
    source: str | Path | bytes, name: str, start_s: float = 0.0, duration_s: float | None = None
) -> tuple[np.ndarray, int]:
    """A file, or its bytes, or a slice of it, as float32 `[samples, channels]`, and its rate in Hz.

    Raises `AudioError` like `load_audio`; messages call the file `name`.
    """
    with _open(source, name) as sound:
        rate = int(sound.samplerate)
        if not sound.seekable():
            samples = np.concatenate([np.zeros((0, sound.channels), np.float32), *_blocks(sound, name)])
            first, last = slice_frames(name, len(samples), rate, start_s, duration_s)
            return samples[first:last], rate
        first, last = slice_frames(name, sound.frames, rate, start_s, duration_s)
        run_in = min(first, _MP3_RUN_IN_S * rate) if sound.format == "MP3" else 0
        samples = _read(sound, name, run_in + last - first, first - run_in)[run_in:]
        _check_end(source, name, sound, last - first, len(samples), to_end=last - first == sound.frames)
    return samples, rate


def _check_end(
    source: str | Path | bytes, name: str, sound: soundfile.SoundFile, promised: int, found: int, *, to_end: bool
) -> None:
    """Raise `AudioError` if fewer frames than promised were found, or if a FLAC that was read `to_end` is followed by another."""
    # an MP3 header may promise a little more than the file holds; a missing tenth of a second is damage
    if promised - found > (sound.samplerate // 10 if sound.format == "MP3" else 0):
        raise AudioError(f"{name}: the header promises {promised} samples, {found} are there; the file is cut off")
    if sound.format == "FLAC" and to_end:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            if has_second_flac(file):
                raise AudioError(f"{name}: several concatenated FLAC files; decode each and join them as WAV")


def _mono(samples: np.ndarray, name: str) -> np.ndarray:
    """`[samples, channels]` to `[samples]`: the average, or the loudest channel if the channels cancel each other."""
    average = samples.mean(axis=1)
    channel = _loudest_of_cancelled(np.einsum("sc,sc->c", samples, samples), float(average @ average), name)
    return np.asarray(average) if channel is None else np.ascontiguousarray(samples[:, channel])


def _loudest_of_cancelled(powers: np.ndarray, power: float, name: str) -> int | None:
    """The loudest channel by `powers`, if the `power` of the average shows that the channels cancel each other."""
    if not power < _CANCELLED * powers.sum() / len(powers) ** 2:  # NaN is reported elsewhere
        return None
    loudest = int(powers.argmax())
    _warn_once(
        f"{name}: the channels cancel each other when they are averaged (out of phase: one cable is wired the wrong way); "
        f"channel {loudest + 1} of {len(powers)} is used alone"
    )
    return loudest


@functools.lru_cache(maxsize=1024)
def _warn_once(message: str) -> None:
    """Log each warning only once: training loads a file in every epoch."""
    logger.warning("%s", message)


def flac_path(folder: Path, name: str, content: bytes) -> Path:
    """Path of the clip `name` in `folder`, with a checksum of all that determines its audio.

    Many ids may have one name without the characters that not every file system has; 64 bits are enough for all of them.
    """
    checksum = hashlib.blake2b(content, digest_size=8).hexdigest()
    return folder / f"{re.sub(r'[^0-9A-Za-z._-]', '_', name)[-100:]}-{checksum}.flac"


def write_flac(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE) -> None:
    """Write `[samples]` or `[samples, channels]` as 16-bit FLAC, atomically.

    Raises `AudioError` for what FLAC cannot hold: more than eight channels, or a rate above 655,350 Hz.
    """
    import soundfile

    try:
        data = file_bytes(samples, rate, "FLAC")
    except (soundfile.LibsndfileError, ValueError, OverflowError) as error:
        shape = "x".join(map(str, samples.shape))
        raise AudioError(f"{path.name}: {shape} samples at {rate} Hz cannot be written as FLAC ({error})") from error
    with atomic_write(path, "wb") as file:
        file.write(data)


def file_bytes(samples: np.ndarray, rate: int, container: str, subtype: str = "PCM_16") -> bytes:
    """The bytes of an audio file; unlike soundfile, which only prints a traceback, writing these reports a full disk."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def wav_bytes(samples: np.ndarray, subtype: str) -> bytes:
    """Mono `[samples]` at `SAMPLE_RATE`, float32 or int16, as a WAV file with samples of `subtype` (`PCM_16` or `FLOAT`).

    Only int16 as `PCM_16` and float32 as `FLOAT` keep every value.
    """
    return file_bytes(samples, SAMPLE_RATE, "WAV", subtype)


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
    peak = float(max(samples.max(), -samples.min()))
    if peak > _NOT_PCM:
        raise AudioError(f"{name}: samples reach {peak:.0f}; float in [-1, 1] is needed: divide 16-bit values by 32768")
    return samples


def _open(source: str | Path | bytes, name: str) -> soundfile.SoundFile:
    """Open a file, or its bytes, after checking the header; not seekable if the header has no frame count."""
    import soundfile

    content = source if isinstance(source, bytes) else _existing(Path(source), name)
    try:
        sound = soundfile.SoundFile(io.BytesIO(content) if isinstance(content, bytes) else _encoded(content))
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{name}: not readable as audio ({error.error_string}); use WAV, FLAC, OGG/Opus or MP3") from error
    fault, without_length = _examined(content, sound)
    if fault is not None:
        sound.close()
        raise AudioError(f"{name}: {fault}")
    if without_length:
        sound.seekable = lambda: False  # otherwise soundfile seeks after each read, and fails if the end is unknown
    return sound


def _encoded(path: Path) -> str | bytes:
    """A path as soundfile takes it: it encodes text strictly, and so opens no file whose name is not UTF-8."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def _examined(content: Path | bytes, sound: soundfile.SoundFile) -> tuple[str | None, bool]:
    """What is wrong with the header, and whether it has no believable frame count."""
    declared = sound.format, sound.frames, sound.extra_info
    if isinstance(content, bytes):
        return _examine(io.BytesIO(content), *declared)
    state = content.stat()
    return _examine_file(content, (state.st_mtime_ns, state.st_size), *declared)


@functools.lru_cache(maxsize=1024)
def _examine_file(path: Path, _state: tuple[int, int], container: str, frames: int, log: str) -> tuple[str | None, bool]:
    """`_examine` with a cache: a corpus may have all its rows in one file, whose pages need not be counted for each row."""
    with open(path, "rb") as file:
        return _examine(file, container, frames, log)


def _examine(file: BinaryIO, container: str, frames: int, log: str) -> tuple[str | None, bool]:
    fault = fault_of(file, container, log)
    believable = frames <= _MOST_FRAMES_IN_A_BYTE * file.seek(0, io.SEEK_END)
    return fault, not believable or (container == "MP3" and mp3_promise(file) is None)


def _existing(path: Path, name: str) -> Path | bytes:
    if not path.is_file():
        raise AudioError(f"{name}: no such audio file; check the path (manifest paths are relative to the manifest)")
    if path.stat().st_size == 0:
        raise AudioError(f"{name}: the file has 0 bytes; remove it or copy it again")
    # because of the ending .raw, soundfile would read the header as audio
    return path.read_bytes() if path.suffix.lower() == ".raw" else path


def _blocks(sound: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    """All of a file, float32 `[samples, channels]`, a block at a time."""
    while len(block := _read(sound, name, _BLOCK_FRAMES)):
        yield block


def _read(sound: soundfile.SoundFile, name: str, frames: int, first: int | None = None) -> np.ndarray:
    """At most `frames` frames, from frame `first` or from where the last read ended."""
    import soundfile

    try:
        if first is not None:
            sound.seek(first)
        return np.asarray(sound.read(frames, dtype="float32", always_2d=True))
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{name}: cannot be decoded ({error.error_string}); re-encode it, e.g. as 16 kHz WAV") from error
    except MemoryError as error:
        raise AudioError(f"{name}: {frames} samples are more than fit into memory; cut it into slices") from error


def slice_frames(path: str | Path, frames: int, rate: int, start_s: float, duration_s: float | None) -> tuple[int, int]:
    """The first frame of a slice, and the one after its last, in a file with `frames` frames at `rate` Hz.

    Raises `AudioError` when the slice does not lie inside the file; `path` is its name in the message.
    """
    if frames == 0:
        raise AudioError(f"{path}: the audio is empty (0 samples); remove it or give a file with sound")
    try:
        first = s_to_samples(start_s, rate)
        last = frames if duration_s is None else first + s_to_samples(duration_s, rate)
    except (OverflowError, ValueError):  # infinite, or not a number
        raise AudioError(
            f"{path}: the slice (start_s {start_s}, duration_s {duration_s}) must be made of finite seconds"
        ) from None
    tolerance = rate // 100  # corpora round their segment times
    if first < 0 or last <= first or last > frames + tolerance:
        asked = f"start_s {start_s}, duration_s {duration_s}"
        raise AudioError(f"{path}: the slice ({asked}) must lie inside the file, which lasts {frames / rate:.3f} s")
    last = min(last, frames)
    if resampled_length(last - first, rate) == 0:
        raise AudioError(f"{path}: the audio is empty (no whole sample at {SAMPLE_RATE} Hz); remove it or give a file with sound")
    return first, last
