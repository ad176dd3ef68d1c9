"""Training speech: captions spoken by many voices under many conditions, kept as log-mel features with phoneme labels.

A *rendition* is one reading of a whole split: each caption gets a voice, a rate, a pitch, and a recording
condition, all drawn from a seed made of the rendition's number and the caption's index. Renditions are cached on disk and
read through memory maps.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from recipes.tiny import flite
from recipes.tiny.architecture import FFT_SAMPLES, FRAMES_PER_WINDOW, HOP_SAMPLES, MEL_BINS, WINDOW_S
from recipes.tiny.conditions import record
from recipes.tiny.voices import training_voice
from simulsa.audio import SAMPLE_RATE
from simulsa.corpora.synthesis import SyntheticSpeech, Voice, synthesizer

POSITION_SAMPLES = 2 * HOP_SAMPLES  # one encoder position (before pooling) covers 40 ms
STRESS_MARKS = "',%=|:"  # eSpeak's stress, length and boundary signs around a phoneme's name
SILENCE = "_"
UNKNOWN = -100  # a position without a label


@dataclass(frozen=True)
class Clip:
    """One spoken caption: `mel` float16 `[frames, 80]` at 50 frames/s, `phonemes` int16 `[frames / 2]` at 25 per second."""

    index: int
    mel: np.ndarray
    phonemes: np.ndarray


class Rendition:
    """A cached rendition: `rendition[i]` is the clip of the i-th caption that fits the window (see `indices`)."""

    def __init__(self, folder: Path) -> None:
        self.mel = np.load(folder / "mel.npy", mmap_mode="r")
        self.phonemes = np.load(folder / "phonemes.npy", mmap_mode="r")
        self.indices = np.load(folder / "indices.npy")
        self.frames = np.load(folder / "frames.npy")
        self._mel_starts = np.concatenate([[0], np.cumsum(self.frames)])
        self._phoneme_starts = np.concatenate([[0], np.cumsum((self.frames + 1) // 2)])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Clip:
        mel = self.mel[self._mel_starts[i] : self._mel_starts[i + 1]]
        phonemes = self.phonemes[self._phoneme_starts[i] : self._phoneme_starts[i + 1]]
        return Clip(int(self.indices[i]), mel, phonemes)


def speak(text: str, voice: Voice) -> SyntheticSpeech:
    """Speak with the synthesiser that the voice's name calls for."""
    return flite.speak(text, voice) if voice.name.startswith(flite.PREFIX) else synthesizer().speak(text, voice)


def phoneme_name(mnemonic: str) -> str:
    """A phoneme without stress, length or boundary marks: `"'eI"` → `"eI"`; pauses become `_`."""
    return mnemonic.strip(STRESS_MARKS) or SILENCE


def frame_labels(speech: SyntheticSpeech, before: int, frames: int, names: dict[str, int]) -> np.ndarray:
    """The phoneme spoken in the middle of each 40 ms position, int16 `[ceil(frames / 2)]`; silence outside the
    speech, −100 (no label) everywhere when the synthesiser did not say which phonemes it spoke."""
    if not speech.phonemes:
        return np.full((frames + 1) // 2, UNKNOWN, dtype=np.int16)
    labels = np.full((frames + 1) // 2, names[SILENCE], dtype=np.int16)
    middles = np.arange(len(labels)) * POSITION_SAMPLES + POSITION_SAMPLES // 2 - before
    starts = np.array([mark.start_samples for mark in speech.phonemes])
    ids = np.array([names.get(phoneme_name(mark.text), names[SILENCE]) for mark in speech.phonemes], dtype=np.int16)
    spoken = (middles >= 0) & (middles < len(speech.samples))
    found = np.searchsorted(starts, middles[spoken], side="right") - 1
    labels[spoken] = ids[np.maximum(found, 0)]
    return labels


def phoneme_inventory(captions: list[str], folder: Path) -> dict[str, int]:
    """Every phoneme name that 500 captions use, numbered; written beside the renditions so that all use one numbering."""
    path = folder / "phonemes.json"
    if not path.exists():
        rng = np.random.default_rng(0)
        names = {SILENCE}
        for caption in captions[:500]:
            names |= {phoneme_name(mark.text) for mark in speak(caption, training_voice(rng)).phonemes}
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({name: i for i, name in enumerate(sorted(names))}))
    return dict(json.loads(path.read_text()))


class _Worker:
    """Makes clips in a worker process; holds the feature extractor."""

    def __init__(self, rendition: int, names: dict[str, int]) -> None:
        import torch
        from transformers import WhisperFeatureExtractor

        torch.set_num_threads(1)
        self.rendition, self.names = rendition, names
        self.extractor = WhisperFeatureExtractor(
            feature_size=MEL_BINS, hop_length=HOP_SAMPLES, n_fft=FFT_SAMPLES, chunk_length=WINDOW_S
        )

    def clip(self, job: tuple[int, str]) -> Clip | None:
        index, caption = job
        rng = np.random.default_rng([self.rendition, index])
        speech = speak(caption, training_voice(rng))
        samples, before = record(speech.samples, rng)
        # Some zeros behind, as the padding to the full window has them, keep the last frame true.
        frames = -(-len(samples) // HOP_SAMPLES)
        if frames > FRAMES_PER_WINDOW:
            return None
        padded = np.pad(samples, (0, FFT_SAMPLES + HOP_SAMPLES))
        features = self.extractor(padded, sampling_rate=SAMPLE_RATE, padding=False, truncation=False, return_tensors="np")
        mel = features.input_features[0].T[:frames].astype(np.float16)
        return Clip(index, mel, frame_labels(speech, before, frames, self.names))


_worker: _Worker | None = None


def _start_worker(rendition: int, names: dict[str, int]) -> None:
    global _worker
    _worker = _Worker(rendition, names)


def _make_clip(job: tuple[int, str]) -> Clip | None:
    if _worker is None:
        raise RuntimeError("the worker process was not started by make_rendition")
    return _worker.clip(job)


def make_rendition(captions: list[str], number: int, folder: Path, names: dict[str, int]) -> Rendition:
    """Speak every caption once (about 150 captions per second and core), or read the rendition made earlier."""
    if not (folder / "frames.npy").exists():
        context = multiprocessing.get_context("spawn")
        with context.Pool(os.cpu_count(), _start_worker, (number, names)) as pool:
            jobs = pool.imap(_make_clip, enumerate(captions), chunksize=64)
            progress = tqdm(jobs, total=len(captions), desc=f"rendition {number}", mininterval=5)
            clips = [clip for clip in progress if clip is not None]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "mel.npy", np.concatenate([clip.mel for clip in clips]))
        np.save(folder / "phonemes.npy", np.concatenate([clip.phonemes for clip in clips]))
        np.save(folder / "indices.npy", np.array([clip.index for clip in clips]))
        np.save(folder / "frames.npy", np.array([len(clip.mel) for clip in clips]))  # last: marks the folder complete
    return Rendition(folder)
