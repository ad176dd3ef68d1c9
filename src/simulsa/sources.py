"""Live audio sources: iterables of float32 mono chunks at `SAMPLE_RATE`, in the order of speech.

Any such iterable works as a source; a recording and a microphone are provided.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from simulsa.audio import SAMPLE_RATE, StreamResampler, samples_to_s
from simulsa.extras import optional

logger = logging.getLogger("simulsa")

PACKET_SAMPLES = SAMPLE_RATE // 25  # audio arrives in packets of 40 ms, as from a sound card


def packets(audio: np.ndarray, realtime: bool = False) -> Iterator[np.ndarray]:
    """A recording, `[samples]`, in small packets; `realtime` paces them as if the recording were being spoken."""
    started = time.monotonic()
    for start in range(0, len(audio), PACKET_SAMPLES):
        packet = audio[start : start + PACKET_SAMPLES]
        if realtime:
            time.sleep(max(0.0, started + samples_to_s(start + len(packet)) - time.monotonic()))
        yield packet


class Microphone:
    """A microphone, open inside a `with` block, from its first audio until `stop`.

    Audio that arrives between two reads is kept and returned in one chunk.
    """

    def __init__(self, device: str = "") -> None:
        """`device` is a number or part of a name from the system's list; empty means the system's default.

        Raises `RuntimeError` when the package or its library is missing, or there is no such microphone.
        """
        self._audio: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()  # may be filled by a signal handler
        self._sounds, self._device = _sounddevice(), device
        self._overflowed = False  # the system has lost audio
        with self._explained():
            number = int(device) if device.isdecimal() else device or None
            found = self._sounds.query_devices(number, "input")
            self.name = str(found["name"])
            rate = float(found["default_samplerate"])  # few sound cards run at ours
            self._stream = self._sounds.InputStream(
                rate, device=number, channels=1, dtype="float32", callback=self._receive, finished_callback=self.stop
            )
        self._resampled = StreamResampler(rate)

    def __enter__(self) -> Microphone:
        with self._explained():
            self._stream.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self.stop()

    def stop(self) -> None:
        """End the audio, from any thread or signal handler."""
        self._audio.put(None)

    def __iter__(self) -> Iterator[np.ndarray]:
        listening = True
        warned = False
        while listening:
            pieces = [self._audio.get()]
            if self._overflowed and not warned:
                logger.warning(
                    "%s: the system lost audio because this process was too busy to take it; text may be missing", self.name
                )
                warned = True
            with contextlib.suppress(queue.Empty):
                while True:
                    pieces.append(self._audio.get_nowait())
            sounds = [piece for piece in pieces if piece is not None]
            listening = len(sounds) == len(pieces)
            heard = self._resampled(np.concatenate([np.zeros(0, np.float32), *sounds]), last=not listening)
            if len(heard):
                yield heard

    def _receive(self, samples: np.ndarray, frames: int, times: Any, status: Any) -> None:
        """Called in PortAudio's thread: `samples` is `[frames, 1]` and is overwritten after the call."""
        self._overflowed = self._overflowed or bool(status.input_overflow)
        self._audio.put(samples[:, 0].copy())

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the sound system into one line that names the available microphones."""
        try:
            yield
        except (ValueError, self._sounds.PortAudioError) as error:
            inputs = [found for found in self._sounds.query_devices() if found["max_input_channels"]]
            there = [f"{found['index']}: {found['name']}" for found in inputs]
            wanted = f"the microphone {self._device!r} cannot be used" if self._device else "no microphone can be used"
            remedy = f"choose another with --mic-device: {'; '.join(there)}" if there else "the system has none; plug one in"
            raise RuntimeError(f"{wanted} ({' '.join(str(error).split())}); {remedy}") from error


@contextlib.contextmanager
def at_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Inside the block the first Ctrl-C calls `stop`; a second one interrupts as usual."""

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        stop()

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _sounddevice() -> Any:
    try:
        return optional("sounddevice", "mic", "a microphone")
    except OSError as error:  # the package is installed, but not the library that it calls
        raise RuntimeError(
            "a microphone needs the library PortAudio: install libportaudio2 (Debian, Ubuntu) or portaudio (others, Homebrew)"
        ) from error
