"""The bundled model offline: BLEU on voices and conditions not in training, and what it outputs when nobody speaks.

python -m recipes.base.scores --data ../shared/data/multi30k --assets .assets --work .base --out docs/results
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import sacrebleu
import soundfile
from tqdm import tqdm

import simulsa
from recipes.base.conditions import babble, mixed, over_telephone, without_speech
from recipes.base.testsets import SPEAKERS, spoken_split
from recipes.command import run
from simulsa import strict_json
from simulsa.audio import SAMPLE_RATE
from simulsa.corpora.multi30k import read_captions
from simulsa.files import atomic_write, write_json
from simulsa.lalm.interface import LALM
from simulsa.languages import Direction
from simulsa.manifest import Utterance

TRANSLATE = Direction("en", "de")
TEST, CONFIRMATION = "test_2016_flickr", "test_2017_flickr"
AS_SPOKEN = "as spoken"
BATCH = 32
BABBLE_DB = 20
MP3_BITS_PER_S = 32_000
MP3_RANGE = (160_000, 8_000)  # bit rates of libsndfile's compression levels 0 and 1 at 16 kHz
WITHOUT_SPEECH_CLIPS = 100

Condition = Callable[[np.ndarray, Sequence[np.ndarray], np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class ScoresConfig:
    """Which model, and where the test speech and the scores go."""

    model: str = "tiny-en-de"
    """a folder or a bundled model's name"""
    data: Path = Path("../shared/data/multi30k")
    """folder with Multi30k's captions"""
    assets: Path = Path(".assets")
    """folder that fetch.sh filled"""
    work: Path = Path(".base")
    """folder of the spoken test sets and of what was measured"""
    out: Path = Path("docs/results")
    """folder for base.md"""
    voices: tuple[str, ...] = tuple(SPEAKERS)
    """whose voices: kokoro, espeak"""
    splits: tuple[str, ...] = (TEST, CONFIRMATION)
    """test sets"""
    limit: int | None = None
    """only the first captions of each test set"""
    device: str = "cpu"


@dataclass(frozen=True)
class Line:
    """The scores of one test set by some voices under one condition."""

    utterances: int
    bleu: float
    chrf: float


def through_mp3(samples: np.ndarray, _others: Sequence[np.ndarray], _rng: np.random.Generator) -> np.ndarray:
    """MP3 at a constant 32 kbit/s."""
    file = io.BytesIO()
    most, least = MP3_RANGE
    level = (most - MP3_BITS_PER_S) / (most - least)
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": level, "bitrate_mode": "CONSTANT"}
    soundfile.write(file, samples, SAMPLE_RATE, **options)
    file.seek(0)
    decoded: np.ndarray = soundfile.read(file, dtype="float32")[0]
    return decoded[: len(samples)]


CONDITIONS: dict[str, Condition] = {
    AS_SPOKEN: lambda samples, _others, _rng: samples,
    "MP3, 32 kbit/s": through_mp3,
    "telephone, 8 kHz": lambda samples, _others, _rng: over_telephone(samples).astype(np.float32),
    "babble, 20 dB": lambda samples, others, rng: mixed(samples, babble(others, len(samples), rng), BABBLE_DB).astype(np.float32),
}


def score(config: ScoresConfig) -> str:
    """Measure the model and write the table, keeping the lines of earlier runs on the same weights."""
    lalm = simulsa.load(config.model, device=config.device)
    kept = config.work / "scores" / f"{lalm.signature.rpartition('@')[2]}.json"
    lines: dict[str, Line] = {}
    if kept.exists():
        lines = {name: Line(**line) for name, line in strict_json.loads(kept.read_text(encoding="utf-8")).items()}
    for split, voices in itertools.product(config.splits, config.voices):
        wanted = len(read_captions(config.data, split, "en")[: config.limit])
        rows: list[Utterance] = []
        for condition in CONDITIONS if split == TEST else [AS_SPOKEN]:
            name = f"{split} | {voices} | {condition}"
            if name in lines and lines[name].utterances >= wanted:
                continue
            rows = rows or spoken_split(config.data, split, voices, config.limit, config.assets, config.work / "test")
            lines[name] = measured(lalm, rows, CONDITIONS[condition])
            write_json(kept, {name: asdict(line) for name, line in lines.items()})
            print(name, lines[name], flush=True)
    empty = sum(not text.strip() for text in translations(lalm, silent_clips()))
    report = f"{table(lines)}\nSilence, noise and music alone: {empty} of {WITHOUT_SPEECH_CLIPS} texts are empty.\n"
    with atomic_write(config.out / "base.md") as file:
        file.write(report)
    return report


def measured(lalm: LALM, rows: Sequence[Utterance], condition: Condition) -> Line:
    """Score the model's translations of the rows under a condition against their references."""
    said, references = translations(lalm, heard(rows, condition)), [[row.target_text for row in rows]]
    bleu, chrf = (metric(said, references).score for metric in (sacrebleu.corpus_bleu, sacrebleu.corpus_chrf))
    return Line(len(rows), bleu, chrf)


def table(lines: Mapping[str, Line]) -> str:
    """All lines in Markdown, test set by test set."""
    names = [" | ".join(parts) for parts in itertools.product((TEST, CONFIRMATION), SPEAKERS, CONDITIONS)]
    return "\n".join(
        [
            "| test set | voices never heard | condition | utterances | BLEU | chrF |",
            "|---|---|---|---|---|---|",
            *(f"| {n} | {lines[n].utterances} | {lines[n].bleu:.1f} | {lines[n].chrf:.1f} |" for n in names if n in lines),
            "",
        ]
    )


def heard(rows: Sequence[Utterance], condition: Condition) -> list[np.ndarray]:
    """The rows' audio under a condition; each clip has its own random generator."""
    clips = [row.load() for row in rows]
    return [condition(clip, clips, np.random.default_rng(number)) for number, clip in enumerate(clips)]


def silent_clips() -> list[np.ndarray]:
    """Clips without speech, drawn with seeds that training does not use."""
    chances = [np.random.default_rng([1, number]) for number in range(WITHOUT_SPEECH_CLIPS)]
    return [without_speech(rng.uniform(0.5, 9), rng) for rng in chances]


def translations(lalm: LALM, clips: Sequence[np.ndarray]) -> list[str]:
    """The model's translation of each whole clip, batched by length; empty for a clip longer than its window."""
    texts = [""] * len(clips)
    by_length = sorted((i for i, clip in enumerate(clips) if len(clip) <= lalm.max_samples), key=lambda i: len(clips[i]))
    if len(by_length) < len(clips):
        print(f"{len(clips) - len(by_length)} of {len(clips)} clips are longer than the window and count as untranslated")
    for start in tqdm(range(0, len(by_length), BATCH), "translating", mininterval=10):
        chosen = by_length[start : start + BATCH]
        heard = lalm.hear([clips[i] for i in chosen], [TRANSLATE] * len(chosen))
        for i, said in zip(chosen, lalm.continue_(heard, [[]] * len(chosen)), strict=True):
            texts[i] = lalm.decode(said.tokens)
    return texts


if __name__ == "__main__":
    run(lambda config: print(score(config)), ScoresConfig, __doc__)
