"""Speak the demo's sentences with natural voices and pack them for the package.

    python -m recipes.demo.build --assets .assets --work .demo

`sentences.tsv` holds the project's own caption-like sentences, English and German. The first 120 become the test set, spoken in
turn by the eight Kokoro voices that the bundled model never heard. The rest become the training set, spoken by voices from the
model's own training: hibari as many speakers, and Kokoro for every seventh sentence. Each set is one Ogg Opus file with a
silent gap between sentences; the rows of its manifest are slices of it. Every row carries the words with their approximate
times, which the report's timeline shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from recipes.base.synthesis import Synthesisers, phonemes
from recipes.base.testsets import SPEAKERS
from recipes.base.voices import HIBARI, KOKORO, Speaker, training_speaker
from recipes.command import run
from recipes.demo.words import word_times
from simulsa.audio import SAMPLE_RATE, samples_to_s, write_flac
from simulsa.manifest import Utterance, write_manifest

TEST, TRAIN = "test", "train"
TEST_SENTENCES = 120
KOKORO_EVERY = 7
GAP_SAMPLES = SAMPLE_RATE // 5
LEAD_SAMPLES = SAMPLE_RATE // 20  # silence kept around a sentence
PEAK = 0.5
OPUS_COMPRESSION = 0.9  # about 30 kbit/s
WRITE_SAMPLES = 10 * SAMPLE_RATE


@dataclass(frozen=True)
class DemoSpeechConfig:
    """Where the synthesisers are, and where the speech goes."""

    assets: Path = Path(".assets")
    """folder that recipes/base/fetch.sh filled"""
    work: Path = Path(".demo")
    """folder of the single sentences; an interrupted run goes on there"""
    out: Path = Path("src/simulsa/demo/data")
    """folder for train.ogg, train.jsonl, test.ogg and test.jsonl"""


def build(config: DemoSpeechConfig) -> None:
    """Speak and pack both sets."""
    text = (Path(__file__).parent / "sentences.tsv").read_text(encoding="utf-8")
    pairs = [line.split("\t") for line in text.splitlines()]
    pack(pairs[:TEST_SENTENCES], TEST, config)
    pack(pairs[TEST_SENTENCES:], TRAIN, config)


def speaker_of(name: str, number: int) -> Speaker:
    """Who speaks a sentence of a set."""
    if name == TEST:
        unheard = SPEAKERS[KOKORO]
        return unheard[number % len(unheard)]
    return training_speaker(np.random.default_rng([7, number]), HIBARI if number % KOKORO_EVERY else KOKORO)


def pack(pairs: Sequence[Sequence[str]], name: str, config: DemoSpeechConfig) -> None:
    """Speak one set into one audio file and write its manifest."""
    audio, synthesisers = config.out / f"{name}.ogg", Synthesisers(config.assets)
    pieces: list[np.ndarray] = []
    rows = []
    position = 0
    for number, (english, german) in enumerate(tqdm(pairs, name, mininterval=10)):
        speaker = speaker_of(name, number)
        speech = spoken(english, speaker, synthesisers, config.work / name / f"{number:03d}.flac")
        samples, lead_s = np.pad(PEAK * speech, LEAD_SAMPLES), samples_to_s(LEAD_SAMPLES)
        times = word_times(english, phonemes(english, speaker.voice), samples_to_s(len(speech)))
        words = [[word, *(round(lead_s + time_s, 3) for time_s in between)] for word, *between in times]
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
                extra={"voice": f"{speaker.engine}:{speaker.voice}", "words": words},
            )
        )
        pieces += [samples, np.zeros(GAP_SAMPLES, dtype=np.float32)]
        position += len(samples) + GAP_SAMPLES
    config.out.mkdir(parents=True, exist_ok=True)
    write_opus(audio, np.concatenate(pieces))
    write_manifest(config.out / f"{name}.jsonl", rows)
    print(f"{audio}: {len(rows)} sentences, {position / SAMPLE_RATE / 60:.1f} minutes, {audio.stat().st_size / 1e6:.1f} MB")


def spoken(text: str, speaker: Speaker, synthesisers: Synthesisers, path: Path) -> np.ndarray:
    """Float32 speech with a peak of 1 and no surrounding silence; synthesised once and cached in `path`."""
    if not path.exists():
        write_flac(path, synthesisers.speak(text, speaker, np.random.default_rng(0)))
    return np.asarray(soundfile.read(path, dtype="float32")[0])


def write_opus(path: Path, samples: np.ndarray) -> None:
    """Write Ogg Opus in pieces: libsndfile's encoder keeps its buffer on the stack."""
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, format="OGG", subtype="OPUS", compression_level=OPUS_COMPRESSION) as file:
        for start in range(0, len(samples), WRITE_SAMPLES):
            file.write(samples[start : start + WRITE_SAMPLES])


if __name__ == "__main__":
    run(build, DemoSpeechConfig, __doc__)
