"""Headers that promise too much, too little or nothing: all of the audio is heard, or the file is refused."""

from __future__ import annotations

import io
import logging
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulsa import audio
from simulsa.audio import SAMPLE_RATE, AudioError, audio_length, decode_audio, load_audio
from simulsa.containers import CHECKED, fault_of, mp3_promise
from simulsa.manifest import Utterance, check_audio
from tests.conftest import noise

CHAINED = [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
KINDS = [*CHAINED, *((name, "PCM_16") for name in sorted(CHECKED - {name for name, _ in CHAINED}))]
UNCHECKED = {
    **dict.fromkeys(("AVR", "IRCAM", "MAT4", "MAT5", "MPC2K", "PAF", "PVF", "SDS", "VOC"), "PCM_16"),
    "WVE": "ALAW",
    "XI": "DPCM_16",
}
PLACEHOLDERS = [0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36]
_made: dict[tuple[str, str, int], bytes] = {}


def encoded(kind: tuple[str, str], samples: int, rate: int = SAMPLE_RATE) -> bytes:
    """A file of noise."""
    key = (*kind, samples)
    if key not in _made:
        buffer = io.BytesIO()
        soundfile.write(buffer, noise(samples / SAMPLE_RATE), rate, format=kind[0], subtype=kind[1])
        _made[key] = buffer.getvalue()
    return _made[key]


def with_data_size(wav: bytes, size: int) -> bytes:
    place = wav.index(b"data") + 4
    return wav[:4] + struct.pack("<I", size) + wav[8:place] + struct.pack("<I", size) + wav[place + 4 :]


def without_length(flac: bytes) -> bytes:
    """As FLAC is written to a pipe: 0 total samples."""
    values = bytearray(flac)
    values[21] &= 0xF0
    values[22:26] = bytes(4)
    return bytes(values)


def mp3_without_header(samples: int) -> bytes:
    """MP3 whose first frame, the one that says how many there are, is gone."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        noise(samples / SAMPLE_RATE),
        SAMPLE_RATE,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=0.5,
    )
    mp3 = buffer.getvalue()
    second = mp3.index(mp3[:2], 4)
    return b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10) + mp3[second:]


def heard(data: bytes, suffix: str) -> int:
    """How many samples are loaded of a file with these bytes; where it loads, its length is that, and where not, it has none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(data)
        try:
            found = len(load_audio(path))
        except AudioError:
            with pytest.raises(AudioError):
                audio_length(path)
            raise
        assert audio_length(path) == found
        assert len(decode_audio(data, "bytes")[0]) == found or suffix == ".mp3"
        return found


def all_or_refused(data: bytes, suffix: str, samples: int) -> bool:
    """Whether it is refused; anything but all of the audio is a failure."""
    try:
        assert heard(data, suffix) == samples
    except AudioError:
        return True
    return False


# cut ----------------------------------------------------------------------------------------------------------------------------
@given(st.sampled_from(KINDS), st.floats(0.001, 0.9999))
@settings(max_examples=150, deadline=None)
@example(("OGG", "OPUS"), 0.9999)
@example(("MP3", "MPEG_LAYER_III"), 0.9999)
@example(("FLAC", "PCM_16"), 0.9999)
@example(("WAV", "PCM_16"), 0.5)
@example(("NIST", "PCM_16"), 0.9999)
@example(("CAF", "PCM_16"), 1 - 1 / 84_096)
@example(("CAF", "ALAC_16"), 0.9999)
def test_a_file_that_is_cut_anywhere_is_refused(kind: tuple[str, str], share: float) -> None:
    whole = encoded(kind, 40_000)
    assert all_or_refused(whole[: int(len(whole) * share)], "." + kind[0].lower(), 40_000)


@given(st.floats(0.001, 0.9999), st.integers(0, 39_000))
@settings(max_examples=60, deadline=None)
@example(0.9999, 0)
def test_a_slice_of_a_flac_that_is_cut_has_a_length_only_if_it_can_be_loaded(share: float, first: int) -> None:
    whole = encoded(("FLAC", "PCM_16"), 40_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.flac"
        path.write_bytes(whole[: int(len(whole) * share)])
        cut = first / SAMPLE_RATE, 1000 / SAMPLE_RATE
        try:
            assert audio_length(path, *cut) == len(load_audio(path, *cut)) == 1000
        except AudioError:
            for use in (audio_length, load_audio):
                with pytest.raises(AudioError):
                    use(path, *cut)


def test_a_row_of_a_cut_flac_is_found_without_loading_it(tmp_path: Path) -> None:
    whole = encoded(("FLAC", "PCM_16"), 40_000)
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    row = Utterance("a", str(tmp_path / "a.flac"), "en", "de", "Ja.")
    ((broken, problem),) = check_audio([row])
    assert broken == row
    assert problem.endswith(
        "a.flac: the header promises 40000 samples, number 40000 is not there; the file is cut off; copy it again, or re-encode "
        "what is there: ffmpeg -i FILE NEW.flac"
    )


@pytest.mark.parametrize("kind", UNCHECKED.items(), ids=UNCHECKED)
def test_a_format_that_does_not_show_what_is_missing_is_refused(tmp_path: Path, kind: tuple[str, str]) -> None:
    path = tmp_path / "a.audio"
    path.write_bytes(encoded(kind, 40_000))
    for use in (load_audio, audio_length):
        with pytest.raises(AudioError, match=rf"a\.audio: the format {kind[0]} does not .*: ffmpeg -i FILE NEW\.flac"):
            use(path)


def test_every_format_of_libsndfile_is_either_checked_or_refused() -> None:
    known = CHECKED | UNCHECKED.keys()
    # raw samples are not recognised, and an SD2 has its header in another file, so its bytes alone are not recognised either
    assert soundfile.available_formats().keys() - known <= {"RAW", "SD2"}


def test_a_file_is_examined_once_and_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one recording count its pages once; a copy that is cut later is refused all the same."""
    looked: list[int] = []
    original = audio.fault_of
    monkeypatch.setattr(audio, "fault_of", lambda *arguments: (looked.append(1), original(*arguments))[1])
    path, whole = tmp_path / "talk.ogg", encoded(("OGG", "VORBIS"), 40_000)
    path.write_bytes(whole)
    for start_s in (0.0, 0.5, 1.0):
        load_audio(path, start_s, 0.5)
    assert audio_length(path) == 40_000
    assert len(looked) == 1
    path.write_bytes(whole[:-100])
    for _ in range(2):
        with pytest.raises(AudioError, match="cut off"):
            load_audio(path)
    path.write_bytes(whole)
    assert len(load_audio(path)) == 40_000


def test_an_ogg_that_is_cut_between_two_pages_is_refused(tmp_path: Path) -> None:
    ogg = encoded(("OGG", "OPUS"), 40_000)
    (tmp_path / "a.ogg").write_bytes(ogg[: ogg.rindex(b"OggS")])
    with pytest.raises(AudioError, match=r"a\.ogg: the Ogg stream has no last page; the file is cut off; copy it again"):
        audio_length(tmp_path / "a.ogg")


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_sphere_file_is_refused_only_if_it_is_cut(tmp_path: Path, subtype: str, channels: int) -> None:
    path = tmp_path / "a.sph"
    soundfile.write(path, np.stack([noise(0.5)] * channels, axis=1), SAMPLE_RATE, format="NIST", subtype=subtype)
    assert audio_length(path) == 8000
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(AudioError, match=r"a\.sph: the header promises \d+ bytes of sound, \d+ are there; the file is cut off"):
        audio_length(path)


def test_a_compressed_sphere_file_may_be_smaller_than_its_sound() -> None:
    header = b"NIST_1A\n   1024\nchannel_count -i 2\nsample_n_bytes -i 2\nsample_coding -s26 %s\nsample_count -i 9999\nend_head\n"
    assert fault_of(io.BytesIO((header % b"pcm,embedded-shorten-v2.00").ljust(2000)), "NIST") is None
    fault = fault_of(io.BytesIO((header % b"pcm").ljust(2000)), "NIST") or ""
    assert fault.startswith("the header promises 39996 bytes of sound, 976 are there; the file is cut off")


# joined -------------------------------------------------------------------------------------------------------------------------
@given(st.sampled_from(CHAINED), st.lists(st.integers(2_000, 30_000), min_size=2, max_size=3))
@settings(max_examples=60, deadline=None)
def test_files_joined_end_to_end_are_heard_whole_or_refused(kind: tuple[str, str], lengths: list[int]) -> None:
    data = b"".join(encoded(kind, length) for length in lengths)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{kind[0].lower()}"
        path.write_bytes(data)
        with pytest.raises(AudioError):
            load_audio(path)


@given(st.integers(2_000, 30_000), st.integers(2_000, 30_000), st.floats(0.1, 0.9))
@settings(max_examples=30, deadline=None)
def test_a_chained_ogg_of_several_serial_numbers_is_refused_wherever_it_is_cut(first: int, second: int, share: float) -> None:
    one, other = bytearray(encoded(("OGG", "VORBIS"), first)), encoded(("OGG", "OPUS"), second)
    data = bytes(one) + other
    assert all_or_refused(data, ".ogg", first + second)
    assert all_or_refused(data[: len(one) + int(share * len(other))], ".ogg", first + second)


# placeholders -------------------------------------------------------------------------------------------------------------------
@given(st.sampled_from(PLACEHOLDERS), st.integers(1, 20_000), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_lengths_that_pipes_write_promise_nothing(size: int, samples: int, raw: bool) -> None:
    assert heard(with_data_size(encoded(("WAV", "PCM_16"), samples), size), ".raw" if raw else ".wav") == samples


@given(st.integers(0, 25_000).map(lambda size: 2 * size), st.integers(100, 20_000))
@settings(max_examples=60, deadline=None)
def test_a_data_chunk_of_another_length_than_the_file_is_refused(size: int, samples: int) -> None:
    wav = with_data_size(encoded(("WAV", "PCM_16"), samples), size)
    assert all_or_refused(wav, ".wav", samples) == (size != 2 * samples)


@pytest.mark.parametrize("after", [b"LIST\x04\x00\x00\x00abcd", b"TAG" + bytes(125), bytes(300)])
def test_what_is_no_sound_may_follow_the_data_chunk(after: bytes) -> None:
    assert heard(encoded(("WAV", "PCM_16"), 4000) + after, ".wav") == 4000


@given(st.integers(1_000, 60_000), st.floats(0.01, 0.9999))
@settings(max_examples=40, deadline=None)
def test_a_flac_without_a_length_is_counted(samples: int, share: float) -> None:
    flac = without_length(encoded(("FLAC", "PCM_16"), samples))
    assert heard(flac, ".flac") == samples
    assert all_or_refused(flac[: int(share * len(flac))], ".flac", samples)


def test_a_slice_of_a_flac_without_a_length(tmp_path: Path) -> None:
    flac = encoded(("FLAC", "PCM_16"), 40_000)
    (tmp_path / "a.flac").write_bytes(without_length(flac))
    (tmp_path / "b.flac").write_bytes(flac)
    piece = load_audio(tmp_path / "a.flac", 1.0, 0.5)
    assert len(piece) == audio_length(tmp_path / "a.flac", 1.0, 0.5) == 8_000
    np.testing.assert_array_equal(piece, load_audio(tmp_path / "b.flac", 1.0, 0.5))
    with pytest.raises(AudioError, match=r"must lie inside the file, which lasts 2\.500 s"):
        audio_length(tmp_path / "a.flac", 2.0, 1.0)


@pytest.mark.parametrize("kind", [("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")])
def test_a_tag_may_precede_the_sound(kind: tuple[str, str]) -> None:
    whole = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10) + encoded(kind, 40_000)
    assert heard(whole, "." + kind[0].lower()) == 40_000
    assert all_or_refused(whole[:-100], "." + kind[0].lower(), 40_000)


def test_an_impossible_length_is_not_believed(tmp_path: Path) -> None:
    flac = bytearray(encoded(("FLAC", "PCM_16"), 40_000))
    flac[21:26] = bytes([flac[21] | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF])
    (tmp_path / "a.flac").write_bytes(flac)
    for use in (audio_length, load_audio):
        try:
            found = use(tmp_path / "a.flac")
        except AudioError:
            continue
        assert (found if isinstance(found, int) else len(found)) == 40_000


@pytest.mark.parametrize("samples", [16_000, 41_234])
def test_an_mp3_without_a_length_is_counted(samples: int) -> None:
    assert heard(mp3_without_header(samples), ".mp3") >= samples - 1152


def test_an_mp3_whose_sound_reads_like_the_name_of_its_header_has_none() -> None:
    mp3 = bytearray(mp3_without_header(16_000))
    mp3[20 + 58 : 20 + 62] = b"Info"  # behind the tag, and too far back for a header to follow
    assert mp3_promise(io.BytesIO(mp3)) is None


def test_a_wav_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "talk.RAW").write_bytes(encoded(("WAV", "PCM_16"), 4000))
    (tmp_path / "noise.raw").write_bytes(noise(1.0).tobytes())
    assert len(load_audio(tmp_path / "talk.RAW")) == audio_length(tmp_path / "talk.RAW") == 4000
    with pytest.raises(AudioError, match=r"noise\.raw: not readable as audio"):
        load_audio(tmp_path / "noise.raw")


# channels -----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("gain", [1.0, 0.8])
def test_channels_that_cancel_each_other_are_not_averaged(tmp_path: Path, caplog: pytest.LogCaptureFixture, gain: float) -> None:
    sound = noise(1.0)
    soundfile.write(tmp_path / "a.wav", np.stack([-gain * sound, sound], axis=1), SAMPLE_RATE, subtype="FLOAT")
    with caplog.at_level(logging.WARNING, "simulsa"):
        heard = load_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(heard * np.sign(heard @ sound), sound, atol=1e-6)  # of two that are equally loud, any
    assert "a.wav: the channels cancel each other" in caplog.text
    assert "channel 2 of 2 is used alone" in caplog.text or gain == 1.0


@pytest.mark.parametrize("channels", [2, 6, 8])
def test_speech_in_one_channel_of_many_is_averaged(tmp_path: Path, caplog: pytest.LogCaptureFixture, channels: int) -> None:
    sound = np.zeros((SAMPLE_RATE, channels), np.float32)
    sound[:, 1] = noise(1.0)
    soundfile.write(tmp_path / "a.wav", sound, SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), noise(1.0) / channels, atol=1e-6)
    soundfile.write(tmp_path / "silent.wav", 0 * sound, SAMPLE_RATE)
    assert not load_audio(tmp_path / "silent.wav").any()
    assert not caplog.text
