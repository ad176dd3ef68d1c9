"""Speech from text, synthesised by the eSpeak NG library that the `espeakng-loader` package bundles.

The library is called through ctypes in its synchronous mode. The same calls in a fresh process give the same durations.
Because the library keeps state between utterances, a text spoken again differs by a few milliseconds. Word and phoneme events
come with their sample positions, which gives exact alignments for free.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulsa.audio import SAMPLE_RATE, resample

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback before espeak_Synth returns, nothing is played
_PHONEME_EVENTS = 1  # espeakINITIALIZE_PHONEME_EVENTS
_UTF8 = 1  # espeakCHARS_UTF8
_RATE, _PITCH = 1, 3  # espeak_PARAMETER
_AROUND_WORDS = ' .,;:!?"()-'
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7  # espeak_EVENT_TYPE


@dataclass(frozen=True)
class Voice:
    """One way to speak: an eSpeak voice with variant (`en-us+f3`), words per minute, and pitch (0-99)."""

    name: str = "en-us"
    rate_wpm: int = 165
    pitch: int = 50


@dataclass(frozen=True)
class Mark:
    """A word or phoneme and where it begins, in samples of `SAMPLE_RATE`; it ends where the next one begins."""

    text: str
    start_samples: int
    end_samples: int


@dataclass(frozen=True)
class SyntheticSpeech:
    """Synthesised speech: `samples` float32 mono in [-1, 1] at `SAMPLE_RATE`, with its words and phonemes."""

    samples: np.ndarray
    words: tuple[Mark, ...]
    phonemes: tuple[Mark, ...]


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


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
        self._native_rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), _PHONEME_EVENTS)
        if self._native_rate <= 0:
            raise RuntimeError(f"eSpeak NG did not start: espeak_Initialize returned {self._native_rate}")
        self._pieces: list[np.ndarray] = []
        self._events: list[tuple[int, int, int, int, str]] = []
        self._callback = _Callback(self._receive)  # kept, because ctypes itself holds no reference to it
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice: Voice | None = None

    def _receive(self, samples, count: int, events) -> int:  # type: ignore[no-untyped-def]
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_END:
            event = events[index]
            label = event.id.string.decode("utf-8", "replace") if event.type == _EVENT_PHONEME else ""
            self._events.append((event.type, event.sample, event.text_position, event.length, label))
            index += 1
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

    def speak(self, text: str, voice: Voice | None = None) -> SyntheticSpeech:
        """Speak `text`; raises `ValueError` if the text is empty and `RuntimeError` for an unknown voice."""
        if not text.strip():
            raise ValueError("cannot speak an empty text")
        self._use(voice or Voice())
        self._pieces, self._events = [], []
        data = text.encode("utf-8")
        status = self._library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        if status != 0 or not self._pieces:
            raise RuntimeError(f"eSpeak NG could not speak {text!r} (status {status}, {len(self._pieces)} pieces)")
        native = np.concatenate(self._pieces).astype(np.float32) / 32768.0
        samples = resample(native, self._native_rate, SAMPLE_RATE)
        return SyntheticSpeech(samples, self._words(text, len(samples)), self._phonemes(len(samples)))

    def _to_samples(self, native_sample: int) -> int:
        return native_sample * SAMPLE_RATE // int(self._native_rate)

    def _words(self, text: str, end: int) -> tuple[Mark, ...]:
        # positions count characters from 1; a word's text extends to the next event, as "of a" may be one event of length 2
        starts = [(self._to_samples(s), p - 1) for kind, s, p, _, _ in self._events if kind == _EVENT_WORD]
        ends = [*starts, (end, len(text))][1:]  # empty if there are no words
        return tuple(
            Mark(text[first:last].strip(_AROUND_WORDS), s, e) for (s, first), (e, last) in zip(starts, ends, strict=True)
        )

    def _phonemes(self, end: int) -> tuple[Mark, ...]:
        starts = [(self._to_samples(s), label) for kind, s, _, _, label in self._events if kind == _EVENT_PHONEME]
        ends = [*[start for start, _ in starts], end][1:]
        return tuple(Mark(label, s, e) for (s, label), e in zip(starts, ends, strict=True))


@functools.cache
def synthesizer() -> Synthesizer:
    """The process-wide synthesiser."""
    return Synthesizer()
