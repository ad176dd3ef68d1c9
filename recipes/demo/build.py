"""Speak the demo's sentences and pack them for the package.

    python -m recipes.demo.build

`sentences.tsv` holds the project's own caption-like sentences, English and German. The first 120 become the test set, the rest
the training set. Each set is one Ogg Opus file with a silent gap between sentences; the rows of its manifest are slices of it.
Every row carries the words with their times, which the report's timeline shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from recipes.tiny.voices import training_voice
from simulsa.audio import SAMPLE_RATE, samples_to_s
from simulsa.corpora.synthesis import synthesizer
from simulsa.manifest import Utterance, write_manifest

TEST_SENTENCES = 120
GAP_SAMPLES = SAMPLE_RATE // 5
LEAD_SAMPLES = SAMPLE_RATE // 20  # silence kept around a sentence
PEAK = 0.5
OPUS_COMPRESSION = 0.9  # about 30 kbit/s
WRITE_SAMPLES = 10 * SAMPLE_RATE
OUT = Path("src/simulsa/demo/data")


def build(out: Path = OUT) -> None:
    """Write `train.ogg`, `train.jsonl`, `test.ogg` and `test.jsonl`."""
    text = (Path(__file__).parent / "sentences.tsv").read_text(encoding="utf-8")
    pairs = [line.split("\t") for line in text.splitlines()]
    out.mkdir(parents=True, exist_ok=True)
    pack(pairs[:TEST_SENTENCES], "test", out)
    pack(pairs[TEST_SENTENCES:], "train", out)


def pack(pairs: Sequence[Sequence[str]], name: str, out: Path) -> None:
    """Speak one set into one audio file and write its manifest."""
    audio = out / f"{name}.ogg"
    pieces: list[np.ndarray] = []
    rows = []
    position = 0
    for number, (english, german) in enumerate(pairs):
        voice = training_voice(np.random.default_rng([7, len(pairs), number]))
        speech = synthesizer().speak(english, voice)
        samples = np.pad(speech.samples * (PEAK / np.abs(speech.samples).max()), LEAD_SAMPLES)
        words = [[w.text, *(samples_to_s(t + LEAD_SAMPLES) for t in (w.start_samples, w.end_samples))] for w in speech.words]
        rows.append(
            Utterance(
                id=f"demo-{name}-{number:03d}",
                audio=str(audio),
                source_lang="en",
                target_lang="de",
                source_text=english,
                target_text=german,
                start_s=samples_to_s(position),
                duration_s=samples_to_s(len(samples)),
                extra={"voice": voice.name, "words": words},
            )
        )
        pieces += [samples, np.zeros(GAP_SAMPLES, dtype=np.float32)]
        position += len(samples) + GAP_SAMPLES
    write_opus(audio, np.concatenate(pieces))
    write_manifest(out / f"{name}.jsonl", rows)
    print(f"{audio}: {len(rows)} sentences, {position / SAMPLE_RATE / 60:.1f} minutes, {audio.stat().st_size / 1e6:.1f} MB")


def write_opus(path: Path, samples: np.ndarray) -> None:
    """Write Ogg Opus in pieces: libsndfile's encoder keeps its buffer on the stack."""
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, format="OGG", subtype="OPUS", compression_level=OPUS_COMPRESSION) as file:
        for start in range(0, len(samples), WRITE_SAMPLES):
            file.write(samples[start : start + WRITE_SAMPLES])


if __name__ == "__main__":
    build()
