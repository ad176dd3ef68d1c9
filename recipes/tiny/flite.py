"""A second synthesiser, flite, where the system has its command: voices that sound nothing like eSpeak NG's."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import soundfile

from simulsa.audio import SAMPLE_RATE, resample
from simulsa.corpora.synthesis import SyntheticSpeech, Voice

PREFIX = "flite:"
TRAINING_VOICES = ("slt", "rms", "kal16")  # `awb`, a Scottish voice, is never used in training
NATIVE_RATE_WPM = 145  # at a stretch of 1, about as fast as eSpeak NG at this rate


@functools.cache
def available() -> bool:
    """Whether the command is there; without it all training speech is eSpeak NG's."""
    return shutil.which("flite") is not None


def speak(text: str, voice: Voice) -> SyntheticSpeech:
    """Speak `text` with `flite:<voice>`; no words or phonemes are marked, and the pitch is the voice's own.

    Raises `RuntimeError` with flite's message when it fails.
    """
    stretch = NATIVE_RATE_WPM / voice.rate_wpm
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        name = voice.name.removeprefix(PREFIX)
        command = ["flite", "-voice", name, "--setf", f"duration_stretch={stretch:.3f}", "-t", text, "-o", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not path.exists():
            raise RuntimeError(f"flite could not speak {text!r} with voice {name!r}: {done.stderr.strip()}")
        samples, rate = soundfile.read(path, dtype="float32")
    return SyntheticSpeech(resample(samples, rate, SAMPLE_RATE), (), ())
