"""A long recording made of the demo's bundled sentences, with pauses, music, noise and silence in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from simulsa.audio import SAMPLE_RATE, s_to_samples
from simulsa.demo.speech import DATA
from simulsa.manifest import Utterance, read_manifest

QUIET = 1e-4  # the level of silence: a microphone signal is never exactly zero


@dataclass(frozen=True)
class Spoken:
    """A sentence and its position in the recording, in samples."""

    row: Utterance
    start_samples: int
    end_samples: int

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any part of the sentence lies between two positions."""
        return self.start_samples < end and start < self.end_samples


@dataclass(frozen=True)
class Recording:
    """int16 `[samples]` at `SAMPLE_RATE` and the sentences in it; there is no speech between them."""

    samples: np.ndarray
    sentences: tuple[Spoken, ...]

    def audio(self, start: int, end: int) -> np.ndarray:
        """A stretch of the recording as float32."""
        return self.samples[start:end].astype(np.float32) / 32768


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Convert samples in [-1, 1] to 16-bit integers."""
    return np.asarray(np.rint(samples * 32767), dtype=np.int16)


def joined(parts: Sequence[Recording]) -> Recording:
    """Concatenate recordings."""
    starts = np.cumsum([0, *(len(part.samples) for part in parts)])
    moved = [
        Spoken(spoken.row, spoken.start_samples + int(start), spoken.end_samples + int(start))
        for part, start in zip(parts, starts, strict=False)
        for spoken in part.sentences
    ]
    return Recording(np.concatenate([part.samples for part in parts]), tuple(moved))


def record(seconds: float, seed: int) -> Recording:
    """A recording of exactly `seconds` that begins and ends with silence, determined by the seed.

    Sentences come in random order, each followed by a pause of 0.1 to 2 s, and every tenth by music, noise or a long silence.
    """
    rng = np.random.default_rng(seed)
    rows = [row for name in ("test.jsonl", "train.jsonl") for row in read_manifest(DATA / name)]
    length = s_to_samples(seconds)
    pieces, sentences = [silence(1.0, rng)], []
    position = len(pieces[0])
    for piece, row in _pieces(rows, rng):
        if position + len(piece) + SAMPLE_RATE > length:
            break
        if row is not None:
            sentences.append(Spoken(row, position, position + len(piece)))
        pieces.append(piece)
        position += len(piece)
    pieces.append(silence((length - position) / SAMPLE_RATE, rng))
    return Recording(to_int16(np.concatenate(pieces))[:length], tuple(sentences))


def recite(rows: Sequence[Utterance], seed: int) -> Recording:
    """Sentences in sequence, with pauses of 0.1 to 2 s."""
    rng = np.random.default_rng(seed)
    return joined([Recording(*_sentence(row, rng)) for row in rows])


def _sentence(row: Utterance, rng: np.random.Generator) -> tuple[np.ndarray, tuple[Spoken, ...]]:
    audio = row.load()
    samples = np.concatenate([audio, silence(rng.uniform(0.1, 2.0), rng)])
    return to_int16(samples), (Spoken(row, 0, len(audio)),)


def _pieces(rows: list[Utterance], rng: np.random.Generator) -> Iterator[tuple[np.ndarray, Utterance | None]]:
    count = 0
    while True:
        for i in rng.permutation(len(rows)):
            yield rows[i].load(), rows[i]
            yield silence(rng.uniform(0.1, 2.0), rng), None
            count += 1
            if count % 10 == 0:
                between = (music, noise, silence)[count // 10 % 3]
                yield between(rng.uniform(5, 15), rng), None
                yield silence(1.0, rng), None


def silence(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """The faint noise of a quiet room, float32 `[samples]`."""
    return QUIET * rng.standard_normal(s_to_samples(seconds), dtype=np.float32)


def noise(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """White noise about as loud as speech, float32 `[samples]`."""
    return 0.05 * rng.standard_normal(s_to_samples(seconds), dtype=np.float32)


def music(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Chords, a tune and a drum, float32 `[samples]`."""
    audio = np.zeros(s_to_samples(seconds))
    beat = s_to_samples(rng.uniform(0.35, 0.6))
    scale = np.array([0, 2, 4, 5, 7, 9, 11])  # semitones of a major scale
    for start in range(0, len(audio), beat):
        rest = audio[start : start + 2 * beat]
        time_s = np.arange(len(rest)) / SAMPLE_RATE
        notes = [*(rng.choice(scale, 3, replace=False) + 48), rng.choice(scale) + 72]
        for note in notes:
            tone_hz = 440 * 2 ** ((note - 69) / 12)
            for k in range(1, 6):
                rest += 0.5**k * np.sin(2 * np.pi * k * tone_hz * time_s) * np.exp(-3 * time_s)
        drum = audio[start : start + SAMPLE_RATE // 10]
        drum += 0.5 * rng.standard_normal(len(drum)) * np.exp(-np.arange(len(drum)) / 300)
    return np.asarray(0.3 * audio / max(1.0, np.abs(audio).max()), dtype=np.float32)
