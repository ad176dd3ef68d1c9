"""Text to speech by three synthesisers, each loaded once per process. All give float32 mono at 16 kHz."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from recipes.base.voices import ESPEAK, HIBARI, Speaker
from simulsa.audio import SAMPLE_RATE, resample
from simulsa.corpora.synthesis import Voice, synthesizer

ESPEAK_WPM = 165  # at speed 1
NATURAL_RATE = 24_000  # hibari's and Kokoro's
SILENT = 10 ** (-45 / 20)  # relative to the loudest sample; what hibari and Kokoro output around the speech is below this


class UnspokenError(RuntimeError):
    """A synthesiser had nothing to say to a text."""


class Synthesisers:
    """Speaks with the voice of any `Speaker`; `assets` is the folder that `fetch.sh` filled, which only Kokoro needs."""

    def __init__(self, assets: Path) -> None:
        self.assets = assets

    def speak(self, text: str, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
        """Speak `text`, loudest sample 1, without silence around it; raises `UnspokenError` if nothing is audible."""
        if speaker.engine == ESPEAK:
            voice = Voice(speaker.voice, round(ESPEAK_WPM * speaker.speed), round(50 * speaker.pitch))
            samples = synthesizer().speak(text, voice)
        elif speaker.engine == HIBARI:
            samples = resample(_hibari(speaker.voice).speak(text, speaker, rng), NATURAL_RATE, SAMPLE_RATE)
        else:
            # resampling changes tract and tempo; Kokoro's own speed restores the tempo
            natural = _kokoro(self.assets).speak(text, speaker.voice, speaker.speed / speaker.tract)
            samples = resample(natural, round(NATURAL_RATE * speaker.tract), SAMPLE_RATE)
        return trimmed(samples, f"{speaker.engine}:{speaker.voice}")


def trimmed(samples: np.ndarray, who: str) -> np.ndarray:
    """From the first to the last audible sample, loudest 1; raises `UnspokenError` if there is none."""
    loudness = np.abs(samples)
    peak = float(loudness.max(initial=0))
    if peak < 1e-4:
        raise UnspokenError(f"{who} said nothing")
    heard = np.flatnonzero(loudness > SILENT * peak)
    return np.asarray(samples[heard[0] : heard[-1] + 1] / peak, dtype=np.float32)


class _Hibari:
    """hibari with modified source and filter: its network predicts a pitch curve and spectra, so both can be changed."""

    def __init__(self, british: bool) -> None:
        try:
            from hibari import Hibari
            from hibari.g2p import G2P
        except ImportError as error:
            raise RuntimeError("hibari is missing: pip install -r recipes/base/requirements.txt") from error
        self.voice: Any = Hibari(threads=1, g2p=G2P(british=british))

    def speak(self, text: str, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
        """Float32 at 24 kHz."""
        from hibari import dsp

        parts = []
        for phonemes in self.voice.phonemize(text):
            inputs = {"ids": np.array([self.voice.ids(phonemes)], np.int64), "speed": np.array([speaker.speed], np.float32)}
            *spectra, pitch = (output[0] for output in self.voice.sess.run(None, inputs))
            parts.append(dsp.synth(*[warped(spectrum, speaker.tract) for spectrum in spectra], pitch * speaker.pitch, rng))
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def phonemes(text: str, voice: str) -> str:
    """What hibari or Kokoro says for `text` in the accent of a `voice`: misaki's alphabet, a space between words."""
    return " ".join(_hibari("british" if voice.startswith("b") else "american").voice.phonemize(text))


def warped(spectrum: np.ndarray, factor: float) -> np.ndarray:
    """Move everything in `spectrum` `[bins, frames]` to `factor` times its frequency; the top bin is repeated above."""
    bins = np.arange(len(spectrum))
    return np.ascontiguousarray(spectrum[np.minimum(np.rint(bins / factor), bins[-1]).astype(int)])


class _Kokoro:
    """Kokoro-82M, one utterance at a time, with hibari's grapheme-to-phoneme conversion (both use misaki's alphabet)."""

    def __init__(self, assets: Path) -> None:
        model = assets / "kokoro-int8.onnx"
        if not model.exists():
            raise FileNotFoundError(f"no {model}: fetch it with recipes/base/fetch.sh {assets}")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.vocabulary = json.loads((assets / "kokoro-vocab.json").read_text())["vocab"]
        self.voices = {path.stem: path for path in (assets / "kokoro-voices").glob("*.bin")}

    def speak(self, text: str, voice: str, speed: float) -> np.ndarray:
        """Float32 at 24 kHz."""
        if voice not in self.voices:
            raise RuntimeError(f"Kokoro has no voice {voice!r}; it has {', '.join(sorted(self.voices))}")
        ids = [self.vocabulary[sign] for sign in phonemes(text, voice) if sign in self.vocabulary]
        styles = np.fromfile(self.voices[voice], "<f4").reshape(-1, 1, 256)  # one per number of phonemes
        inputs = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": styles[min(len(ids), len(styles) - 1)],
            "speed": np.array([speed], np.float32),
        }
        return np.asarray(self.session.run(None, inputs)[0], np.float32).reshape(-1)


@functools.cache
def _hibari(accent: str) -> _Hibari:
    return _Hibari(british=accent == "british")


@functools.cache
def _kokoro(assets: Path) -> _Kokoro:
    return _Kokoro(assets)
