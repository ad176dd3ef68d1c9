"""Recordings and microphones as sources. The sound card is not real; everything behind it is."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from simulsa.audio import SAMPLE_RATE, resample
from simulsa.cli import main
from simulsa.lalm.load import load
from simulsa.serving.samples import clips
from simulsa.sources import PACKET_SAMPLES, Microphone, at_interrupt, packets
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.stream import Stream
from simulsa.terminal import updates_of
from simulsa.testing import FakeLALM, growing_script
from tests.conftest import noise

CLIP = next(iter(clips().values()))


class SoundCard:
    """Stands in for the package sounddevice: a microphone that plays `audio`, and is then followed by `after`.

    `overflows` are the blocks of 20 ms before which audio was lost.
    """

    class PortAudioError(Exception):
        pass

    def __init__(self, audio: np.ndarray, rate: int = SAMPLE_RATE, after: Callable[[], None] = lambda: None) -> None:
        self.audio, self.rate, self.after = resample(audio, SAMPLE_RATE, rate), rate, after
        self.closed = False
        self.overflows: set[int] = set()

    def query_devices(self, device: int | str | None = None, kind: str | None = None) -> Any:
        there = [
            {"index": 0, "name": "Speakers", "max_input_channels": 0},
            {"index": 1, "name": "USB Microphone", "max_input_channels": 1, "default_samplerate": float(self.rate)},
        ]
        if kind is None:
            return there
        if device in (None, 1, "USB"):
            return there[1]
        raise ValueError(f"No {kind} device matching {device!r}")

    def InputStream(self, rate: float, **options: Any) -> Any:  # noqa: N802
        assert rate == self.rate
        assert (options["channels"], options["dtype"]) == (1, "float32")

        def play() -> None:
            buffer = np.zeros((self.rate // 50, 1), np.float32)
            for start in range(0, len(self.audio), len(buffer)):
                block = buffer[: len(self.audio) - start]
                block[:, 0] = self.audio[start : start + len(buffer)]
                lost = SimpleNamespace(input_overflow=start // len(buffer) in self.overflows)
                options["callback"](block, len(block), None, lost)
                block[:] = 9  # PortAudio uses its memory again
            self.after()

        def close() -> None:
            self.closed = True
            options["finished_callback"]()

        return SimpleNamespace(start=threading.Thread(target=play).start, close=close)


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    def plug(card: Any) -> Any:
        monkeypatch.setitem(sys.modules, "sounddevice", card)
        return card

    return plug


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("samples", [1, PACKET_SAMPLES, 3 * PACKET_SAMPLES + 7])
def test_packets_are_the_recording(samples: int) -> None:
    audio = noise(1)[:samples]
    given = list(packets(audio))
    assert np.array_equal(np.concatenate(given), audio)
    assert all(len(packet) == PACKET_SAMPLES for packet in given[:-1])


def test_realtime_packets_wait_until_they_are_spoken() -> None:
    started = time.monotonic()
    for heard, _ in enumerate(packets(noise(0.3), realtime=True), 1):
        assert time.monotonic() - started >= min(heard * 0.04, 0.3)


def test_a_live_source_that_was_not_heard_in_time_is_heard_at_once() -> None:
    def steps(live: bool) -> list[float]:
        stream = Stream(FakeLALM(growing_script("a b c d e f g h")), StreamConfig(chunk_ms=400))
        return [update.audio_s for update in updates_of(stream, [noise(0.5), noise(1.3)], live)]

    assert steps(live=False) == [0.4, 0.8, 1.2, 1.6, 1.8]
    assert steps(live=True) == [0.4, 1.6, 1.8]


def test_what_a_microphone_hears(plug_in: Callable[[Any], Any]) -> None:
    done = threading.Event()
    card = plug_in(SoundCard(noise(1.5), after=done.set))
    with Microphone("USB") as microphone:
        assert microphone.name == "USB Microphone"
        done.wait()
        chunks = iter(microphone)
        assert np.array_equal(next(chunks), noise(1.5))  # all that waits, in one chunk
        microphone.stop()
        assert list(chunks) == []
    assert card.closed


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_a_microphone_of_another_rate(plug_in: Callable[[Any], Any], rate: int) -> None:
    # a tone, since noise does not survive two changes of rate
    tone = np.sin(np.arange(SAMPLE_RATE) * 2 * np.pi * 440 / SAMPLE_RATE).astype(np.float32)
    done = threading.Event()
    plug_in(SoundCard(tone, rate, done.set))
    with Microphone("1") as microphone:
        done.wait()
        microphone.stop()
        heard = np.concatenate(list(microphone))
    assert heard.dtype == np.float32
    assert abs(len(heard) - len(tone)) <= 1
    middle = slice(2_000, 14_000)
    assert np.abs(heard[middle] - tone[middle]).max() < 0.01


def test_audio_that_the_system_lost_is_reported_once(plug_in: Callable[[Any], Any], caplog: pytest.LogCaptureFixture) -> None:
    for overflows, warnings in ((set(), 0), ({3, 5, 40}, 1)):
        done = threading.Event()
        card = plug_in(SoundCard(noise(1.0), after=done.set))
        card.overflows = overflows
        caplog.clear()
        with Microphone() as microphone:
            done.wait()
            microphone.stop()
            list(microphone)
        assert caplog.text.count("USB Microphone: the system lost audio") == warnings


def test_the_second_ctrl_c_interrupts() -> None:
    before, stops = signal.getsignal(signal.SIGINT), []
    with at_interrupt(lambda: stops.append(1)):
        press_ctrl_c()
        assert stops == [1]
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()
    assert stops == [1]
    assert signal.getsignal(signal.SIGINT) == before


@pytest.fixture(scope="module")
def offline() -> str:
    lalm = load("tiny-en-de-simul", device="cpu")
    stream = Stream(lalm, StreamConfig(chunk_ms=float("inf")))
    stream.push(CLIP.load())
    return stream.finish()[-1].committed


def test_the_command_ends_with_the_text_at_ctrl_c(
    plug_in: Callable[[Any], Any], offline: str, capsys: pytest.CaptureFixture[str]
) -> None:
    card = plug_in(SoundCard(CLIP.load(), after=press_ctrl_c))
    assert main(["translate", "--mic", "--chunk-ms", "inf", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert out == offline + "\n"
    assert err.startswith("USB Microphone: listening; Ctrl-C ends\n")
    assert "interrupted" not in err
    assert card.closed


def test_the_command_with_a_server(plug_in: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]) -> None:
    from tests.servers import running

    lalm = load("tiny-en-de-simul", device="cpu")
    audio = CLIP.load()
    plug_in(SoundCard(audio, after=press_ctrl_c))
    with running(lalm) as server:
        assert main(["translate", "--mic", "--mic-device", "USB", "--url", server.url]) == 0
    stream = Stream(lalm, StreamConfig())
    stream.push(audio)
    text = stream.finish()[-1].committed
    assert text
    assert capsys.readouterr().out == text + "\n"


def test_a_server_that_breaks_off_ends_the_microphone_too(
    plug_in: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.test_serving_client import broken_server

    card = plug_in(SoundCard(CLIP.load()))
    with broken_server() as url:
        assert main(["translate", "--mic", "--url", url]) == 1
    assert capsys.readouterr().out == "Ein\n"
    assert card.closed


class NoPortAudio:
    """What importing sounddevice does where the library is not installed."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")


@pytest.fixture
def without_portaudio(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoPortAudio(), *sys.meta_path])


def failure(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """What the command says, in its only line, when there is no microphone; found before the model is looked for."""
    assert main(["translate", "--mic", "--model", "nobody/nothing", *flags]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert "a microphone needs the package sounddevice: pip install 'simulsa[mic]'" in failure(capsys)


def test_without_the_library(without_portaudio: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a microphone needs the library PortAudio: install libportaudio2" in failure(capsys)


def test_no_such_microphone(plug_in: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]) -> None:
    plug_in(SoundCard(noise(1)))
    message = failure(capsys, "--mic-device", "Studio")
    assert "the microphone 'Studio' cannot be used (No input device matching 'Studio')" in message
    assert message.endswith("choose another with --mic-device: 1: USB Microphone\n")


def test_no_microphone_at_all(
    plug_in: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = plug_in(SoundCard(noise(1)))

    def nothing(device: Any = None, kind: str | None = None) -> list[Any]:
        if kind is not None:
            raise card.PortAudioError("Error querying device -1")
        return []

    monkeypatch.setattr(card, "query_devices", nothing)
    assert "no microphone can be used (Error querying device -1); the system has none; plug one in" in failure(capsys)


def test_a_microphone_that_another_program_holds(
    plug_in: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = plug_in(SoundCard(noise(1)))

    def busy(*_: Any, **__: Any) -> None:
        raise card.PortAudioError("Device unavailable [PaErrorCode -9985]")

    monkeypatch.setattr(card, "InputStream", busy)
    assert "no microphone can be used (Device unavailable [PaErrorCode -9985])" in failure(capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mic", "a.wav"], "--mic excludes files and --realtime"),
        (["--mic", "--realtime"], "--mic excludes files and --realtime"),
        (["a.wav", "--mic-device", "1"], "--mic-device needs --mic"),
    ],
)
def test_wrong_usage(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", *flags]) == 2
    assert message in capsys.readouterr().err
