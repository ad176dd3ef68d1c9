"""Speech from text, synthesised by the eSpeak NG library that the `espeakng-loader` package bundles.

The library is called through ctypes in its synchronous mode. The same calls in a fresh process give the same durations.
Because the library keeps state between utterances, a text spoken again differs by a few milliseconds.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulsa.audio import resample

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback before espeak_Synth returns, nothing is played
_UTF8 = 1  # espeakCHARS_UTF8
_RATE, _PITCH = 1, 3  # espeak_PARAMETER


@dataclass(frozen=True)
class Voice:
    """One way to speak: an eSpeak voice with variant (`en-us+f3`), words per minute, and pitch (0-99)."""

    name: str = "en-us"
    rate_wpm: int = 165
    pitch: int = 50


# takes samples, their number, and events of words, which are not needed
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Synthesizer:
    """The eSpeak NG library, loaded once per process (it holds global state, so it is not thread-safe).

    Raises `RuntimeError`, which names the pip extra to install, if `espeakng-loader` is missing.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise RuntimeError("speech synthesis needs the package espeakng-loader: pip install 'simulsa[synthesis]'") from error
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = Path(espeakng_loader.get_data_path())
        self._variants = data / "voices" / "!v"
        self._native_rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), 0)
        if self._native_rate <= 0:
            raise RuntimeError(f"eSpeak NG did not start: espeak_Initialize returned {self._native_rate}")
        self._pieces: list[np.ndarray] = []
        self._callback = _Callback(self._receive)  # kept, because ctypes itself holds no reference to it
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice: Voice | None = None

    def _receive(self, samples: Any, count: int, events: object) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def _use(self, voice: Voice) -> None:
        if voice == self._voice:
            return
        # eSpeak NG silently ignores an unknown variant, so check for it here
        variant = voice.name.partition("+")[2]
        known = not variant or (self._variants / variant).is_file()
        if not known or self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise RuntimeError(f"eSpeak NG has no voice {voice.name!r}; try 'en', 'en-us', 'de' or a variant such as 'en-us+f3'")
        self._library.espeak_SetParameter(_RATE, voice.rate_wpm, 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        self._voice = voice

    def speak(self, text: str, voice: Voice | None = None) -> np.ndarray:
        """`text` as speech, float32 mono `[samples]` in [-1, 1] at 16 kHz.

        Raises `ValueError` if the text is empty and `RuntimeError` for an unknown voice.
        """
        if not text.strip():
            raise ValueError("cannot speak an empty text")
        self._use(voice or Voice())
        self._pieces = []
        data = text.encode("utf-8")
        status = self._library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        if status != 0 or not self._pieces:
            raise RuntimeError(f"eSpeak NG could not speak {text!r} (status {status}, {len(self._pieces)} pieces)")
        native = np.concatenate(self._pieces).astype(np.float32) / 32768.0
        return resample(native, self._native_rate)


@functools.cache
def synthesizer() -> Synthesizer:
    """The process-wide synthesiser."""
    return Synthesizer()
