"""Audio files in, 16 kHz mono out; slices; broken files."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulsa import audio
from simulsa.audio import SAMPLE_RATE, AudioError, audio_length, check_samples, load_audio, resample

FORMATS = [  # name, libsndfile's format and subtype, rates, how far the sound may be from what was written
    ("wav", "WAV", "PCM_16", (8_000, 16_000, 44_100), 1e-3),
    ("flac", "FLAC", "PCM_16", (16_000, 22_050, 48_000), 1e-3),
    ("opus", "OGG", "OPUS", (16_000, 48_000), 0.05),
    ("mp3", "MP3", "MPEG_LAYER_III", (16_000, 22_050, 44_100), 0.06),
]
CASES = [
    pytest.param(name, kind, subtype, rate, channels, error, id=f"{name}-{rate}-{channels}")
    for name, kind, subtype, rates, error in FORMATS
    for rate in rates
    for channels in (1, 2, 5)
    if channels < 3 or name in ("wav", "flac")
]
EDGE = 400  # samples at 16 kHz: filters and codecs ring at the ends


def chirp(rate: int, seconds: float = 3.0) -> np.ndarray:
    """A tone from 200 to 2,000 Hz, so that every moment sounds different."""
    time = np.arange(round(rate * seconds)) / rate
    return 0.3 * np.sin(2 * np.pi * (200 * time + 300 * time**2))


def write(folder: Path, name: str, kind: str, subtype: str, rate: int, channels: int, seconds: float = 3.0) -> Path:
    path = folder / f"speech.{name}"
    soundfile.write(path, np.stack([chirp(rate, seconds)] * channels, axis=1), rate, format=kind, subtype=subtype)
    return path


@pytest.mark.parametrize(("name", "kind", "subtype", "rate", "channels", "error"), CASES)
def test_any_format_becomes_16_khz_mono(
    tmp_path: Path, name: str, kind: str, subtype: str, rate: int, channels: int, error: float
) -> None:
    path = write(tmp_path, name, kind, subtype, rate, channels)
    heard = load_audio(path)
    assert heard.dtype == np.float32
    assert heard.ndim == 1
    assert len(heard) == audio_length(path) == 3 * SAMPLE_RATE
    difference = np.abs(heard - chirp(SAMPLE_RATE))[EDGE:-EDGE]
    assert difference.max() < error


@pytest.mark.parametrize(("name", "kind", "subtype", "rate", "channels", "error"), CASES)
@pytest.mark.parametrize(("start_s", "duration_s"), [(0.0, 1.3), (0.4, 0.7), (1.1, 0.9), (2.0, None)])
def test_a_slice_is_the_same_region_of_the_file(
    tmp_path: Path,
    name: str,
    kind: str,
    subtype: str,
    rate: int,
    channels: int,
    error: float,
    start_s: float,
    duration_s: float | None,
) -> None:
    path = write(tmp_path, name, kind, subtype, rate, channels)
    piece = load_audio(path, start_s, duration_s)
    assert len(piece) == audio_length(path, start_s, duration_s)
    first = round(start_s * SAMPLE_RATE)
    region = load_audio(path)[first : first + len(piece)]
    assert np.abs(piece - region)[EDGE:-EDGE].max() < 1e-5


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = chirp(SAMPLE_RATE), chirp(SAMPLE_RATE)[::-1]
    soundfile.write(tmp_path / "two.wav", np.stack([left, right], axis=1), SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "two.wav"), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize(("name", "kind", "subtype"), [case[:3] for case in FORMATS])
def test_a_slice_does_not_decode_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, subtype: str
) -> None:
    path = write(tmp_path, name, kind, subtype, 16_000, 1, seconds=60)
    decoded: list[int] = []
    read = soundfile.SoundFile.read

    def counting(self: soundfile.SoundFile, frames: int = -1, *args: object, **kwargs: object) -> np.ndarray:
        samples = read(self, frames, *args, **kwargs)
        decoded.append(len(samples))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    assert len(load_audio(path, start_s=50, duration_s=0.5)) == 8_000
    assert sum(decoded) <= 2 * SAMPLE_RATE
    decoded.clear()
    audio_length(path, start_s=50, duration_s=0.5)
    assert sum(decoded) == (kind == "FLAC")  # whether its last sample is there


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for use in (load_audio, audio_length):
        with pytest.raises(AudioError, match=r"nowhere\.wav: no such audio file"):
            use(tmp_path / "nowhere.wav")
        with pytest.raises(AudioError, match="no such audio file"):
            use(tmp_path)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode")
def test_a_path_that_is_not_utf_8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    write(tmp_path, "wav", "WAV", "PCM_16", SAMPLE_RATE, 1).rename(path)
    assert len(load_audio(path)) == audio_length(path) == 3 * SAMPLE_RATE


def test_a_file_of_0_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match=r"empty\.wav: the file has 0 bytes"):
        load_audio(tmp_path / "empty.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_a_file_that_is_not_audio(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>404 not found</html>" * 40)
    with pytest.raises(AudioError, match=rf"{name}: not readable as audio .*use WAV"):
        load_audio(tmp_path / name)


def test_a_flac_damaged_in_the_middle(tmp_path: Path) -> None:
    path = write(tmp_path, "flac", "FLAC", "PCM_16", 16_000, 1)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=r"speech\.flac: (cannot be decoded|the header promises)"):
        load_audio(path)


def test_no_samples_at_all(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "zero.wav", np.zeros(0), SAMPLE_RATE)
    for use in (load_audio, audio_length):
        with pytest.raises(AudioError, match=r"is empty \(0 samples\)"):
            use(tmp_path / "zero.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path: Path, value: float) -> None:
    samples = chirp(SAMPLE_RATE).astype(np.float32)
    samples[[7, 70]] = value
    soundfile.write(tmp_path / "broken.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"broken\.wav: 2 of 48000 samples are NaN or infinite"):
        load_audio(tmp_path / "broken.wav")


@pytest.mark.parametrize(
    ("start_s", "duration_s"),
    [(-0.1, 1.0), (3.0, None), (2.5, 1.0), (0.0, 3.1), (1.0, 0.0), (1.0, -1.0), (np.nan, 1.0), (0.0, np.inf), (np.inf, None)],
)
def test_a_slice_outside_the_file(tmp_path: Path, start_s: float, duration_s: float | None) -> None:
    path = write(tmp_path, "wav", "WAV", "PCM_16", 16_000, 1)
    for use in (load_audio, audio_length):
        with pytest.raises(AudioError, match=r"speech\.wav: the slice \(start_s"):
            use(path, start_s, duration_s)


def test_a_slice_may_be_rounded_past_the_end(tmp_path: Path) -> None:
    path = write(tmp_path, "wav", "WAV", "PCM_16", 16_000, 1)
    assert len(load_audio(path, 2.0, 1.005)) == SAMPLE_RATE


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 5)), r"mic: audio has shape \(2, 5\)"),
        (np.zeros(0), "mic: the audio is empty"),
        (np.array([0.0, np.nan]), "mic: 1 of 2 samples are NaN"),
    ],
)
def test_check_samples_refuses(samples: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        check_samples(samples, "mic")


def test_check_samples_gives_float32() -> None:
    assert check_samples(np.ones(3, dtype=np.float64), "mic").dtype == np.float32


@given(st.integers(0, 10**9))
def test_samples_to_seconds_and_back_are_exact(samples: int) -> None:
    assert audio.s_to_samples(audio.samples_to_s(samples)) == samples
    assert audio.ms_to_samples(audio.samples_to_ms(samples)) == samples


@given(st.floats(0, 1e5), st.floats(0, 1e5))
def test_times_round_to_the_nearest_sample_and_keep_their_order(a: float, b: float) -> None:
    assert isinstance(audio.ms_to_samples(a), int)
    assert abs(audio.ms_to_samples(a) - a * 16) <= 0.5
    assert abs(audio.s_to_samples(a) - a * SAMPLE_RATE) <= 0.5
    if a <= b:
        assert audio.ms_to_samples(a) <= audio.ms_to_samples(b)


@given(st.integers(40, 10_000), st.integers(1, 500))
def test_whole_milliseconds_never_drift(chunk_ms: int, count: int) -> None:
    assert sum(audio.ms_to_samples(chunk_ms) for _ in range(count)) == audio.ms_to_samples(chunk_ms * count)


@given(st.sampled_from([8_000, 11_025, 22_050, 44_100, 48_000]), st.integers(1, 5_000))
def test_resampling_keeps_the_duration(rate: int, length: int) -> None:
    resampled = resample(np.zeros(length, dtype=np.float32), rate)
    assert resampled.dtype == np.float32
    assert abs(len(resampled) - length * SAMPLE_RATE / rate) <= 0.5


@given(
    st.sampled_from([8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000]),
    st.integers(100, 60_000),
    st.floats(0, 0.5),
    st.sampled_from(["WAV", "FLAC"]),
)
@example(32_000, 320_001, 0.0, "WAV")
@settings(max_examples=200, deadline=None)
def test_the_length_in_the_header_is_the_loaded_one(rate: int, frames: int, start: float, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{kind.lower()}"
        soundfile.write(path, np.zeros(frames), rate, format=kind, subtype="PCM_16")
        assert audio_length(path) == len(load_audio(path))
        start_s = start * frames / rate
        assert audio_length(path, start_s) == len(load_audio(path, start_s))
        assert audio_length(path, start_s, frames / rate / 3) == len(load_audio(path, start_s, frames / rate / 3))


def test_less_than_a_sample_is_no_audio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(2), 96_000)
    for use in (audio_length, load_audio):
        with pytest.raises(AudioError, match=r"a\.wav: the audio is empty \(no whole sample at 16000 Hz\)"):
            use(tmp_path / "a.wav")


def test_integers_as_floats_are_refused() -> None:
    with pytest.raises(
        AudioError, match=r"mic: samples reach 12000; float in \[-1, 1\] is needed: divide 16-bit values by 32768"
    ):
        check_samples(np.array([0.0, -12_000.0]), "mic")
    assert len(check_samples(np.array([1.5, -3.0]), "mic")) == 2  # too loud is not integer


@pytest.mark.parametrize("start_s", [1e308, 10**400], ids=["1e308", "401 digits"])
def test_a_time_that_no_float_can_hold(tmp_path: Path, start_s: float) -> None:
    path = write(tmp_path, "wav", "WAV", "PCM_16", 16_000, 1)
    for use in (load_audio, audio_length):
        with pytest.raises(AudioError, match=r"speech\.wav: the slice \(start_s"):
            use(path, start_s, 1.0)


def test_resampling_to_the_same_rate_changes_nothing() -> None:
    samples = chirp(SAMPLE_RATE)[::3].astype(np.float32)
    np.testing.assert_array_equal(resample(samples, SAMPLE_RATE), samples)
