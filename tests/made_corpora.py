"""Small corpora in the layouts of the released ones, with a second of noise or so for speech."""

from __future__ import annotations

from pathlib import Path

import soundfile
import yaml

from simulsa.audio import SAMPLE_RATE
from tests.conftest import CAPTIONS, noise

PAIRS = [*CAPTIONS, ('He says "no" and „yes“.', 'Er sagt „nein“ und "ja".')]  # quotation marks are text


def sound(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seconds, seed), SAMPLE_RATE)
    return path


def lines(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    return path


def covost2(root: Path) -> Path:
    """Common Voice's folder with the released table of all splits beside it: five training rows, one of test."""
    names = [f"common_voice_en_{number}.mp3" for number in range(6)]
    for number, name in enumerate(names):
        sound(root / "clips" / name, 1 + number / 10, number)
    splits = ["train", "train", "train_covost", "train", "train", "test"]
    pairs = [*PAIRS, ("It is late.", "Es ist spät.")]
    lines(
        root / "validated.tsv",
        "client_id\tpath\tsentence\tup_votes",
        *(f"speaker{n}\t{name}\t{pair[0]}\t2" for n, (name, pair) in enumerate(zip(names, pairs, strict=True))),
    )
    lines(
        root / "covost_v2.en_de.tsv",
        "path\ttranslation\tsplit",
        *(f"{name}\t{pair[1]}\t{split}" for name, pair, split in zip(names, pairs, splits, strict=True)),
    )
    return root


def fleurs(root: Path) -> Path:
    """Two languages; sentence 3 is read twice in English, sentence 9 is not there in German."""
    english = [(3, 0), (3, 0), (5, 1), (9, 2)]
    for place, (_, pair) in enumerate(english):
        sound(root / "en_us" / "audio" / "train" / f"{1000 + place}.wav", 1.5, pair)
    lines(root / "en_us" / "train.tsv", *(_fleurs_line(s, 1000 + n, PAIRS[p][0]) for n, (s, p) in enumerate(english)))
    lines(root / "de_de" / "train.tsv", *(_fleurs_line(s, 2000 + s, PAIRS[p][1]) for s, p in [(5, 1), (3, 0)]))
    return root


def _fleurs_line(sentence: int, file: int, text: str) -> str:
    return f"{sentence}\t{file}.wav\t{text}\t{text.lower()}\t{'|'.join(text.lower())} |\t24000\tFEMALE"


def mustc(root: Path, split: str = "train") -> Path:
    """Two talks of five seconds, five segments."""
    folder = root / "data" / split
    segments = [
        {"duration": 1.5, "offset": 0.25, "rW": 8, "speaker_id": "spk.1", "uW": 0, "wav": "ted_1.wav"},
        {"duration": 1.0, "offset": 2.0, "rW": 6, "speaker_id": "spk.1", "uW": 0, "wav": "ted_1.wav"},
        {"duration": 2, "offset": 0, "rW": 6, "speaker_id": "spk.2", "uW": 0, "wav": "ted_2.wav"},
        {"duration": 1.25, "offset": 2.5, "rW": 6, "speaker_id": "spk.2", "uW": 0, "wav": "ted_2.wav"},
        {"duration": 1.0, "offset": 3.75, "rW": 6, "speaker_id": "spk.2", "uW": 0, "wav": "ted_2.wav"},
    ]
    sound(folder / "wav" / "ted_1.wav", 5.0, 1)
    sound(folder / "wav" / "ted_2.wav", 5.0, 2)
    lines(folder / "txt" / f"{split}.yaml", *(f"- {yaml.safe_dump(s, default_flow_style=True).strip()}" for s in segments))
    lines(folder / "txt" / f"{split}.en", *(english for english, _ in PAIRS))
    lines(folder / "txt" / f"{split}.de", *(german for _, german in PAIRS))
    return root


def europarl_st(root: Path, suffix: str = ".flac") -> Path:
    """Two speeches, five segments; `suffix` is that of the audio."""
    speeches = ["en.20080924.31.3-243", "en.20080924.4.3-018"]
    for speech in speeches:
        if suffix == ".m4a":
            lines(root / "en" / "audios" / f"{speech}.m4a", "not decoded here")
        else:
            sound(root / "en" / "audios" / f"{speech}{suffix}", 6.0)
    folder = root / "en" / "de" / "train"
    lines(folder / "speeches.lst", *speeches)
    times = ["0.00 1.23", "1.23 2.50", "2.50 5.99"]
    lines(folder / "segments.lst", *(f"{speeches[n // 3]} {times[n % 3]}" for n in range(5)))
    lines(folder / "segments.en", *(english for english, _ in PAIRS))
    lines(folder / "segments.de", *(german for _, german in PAIRS))
    return root


def tsv(root: Path) -> Path:
    """A table with columns of its own names; the audio is one long file."""
    sound(root / "long.wav", 8.0)
    lines(
        root / "table.tsv",
        "clip\tfrom\tlength\tsaid\tGerman\twho",
        *(f"long.wav\t{n}.5\t1.0\t{english}\t{german}\ts{n}" for n, (english, german) in enumerate(PAIRS)),
    )
    return root / "table.tsv"


TSV_COLUMNS = {
    "audio_column": "clip",
    "target_column": "German",
    "source_column": "said",
    "start_column": "from",
    "duration_column": "length",
    "extra_columns": ("who",),
}
