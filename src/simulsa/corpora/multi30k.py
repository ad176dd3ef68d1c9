"""Multi30k captions (arXiv 1605.00459) spoken by the synthesiser: text in, audio files and a manifest out."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulsa.audio import write_flac
from simulsa.corpora.build import new_output
from simulsa.corpora.synthesis import Voice, synthesizer
from simulsa.manifest import Utterance, write_manifest
from simulsa.progress import track
from simulsa.settings import check_whole_numbers

SPLITS = ("train", "val", "test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")


@dataclass(frozen=True)
class Multi30kConfig:
    """Which captions to synthesise, and how."""

    data: Path = Path()
    """folder with the captions, e.g. `test_2016_flickr.en.gz`"""
    split: str = "test_2016_flickr"
    """train, val, test_2016_flickr, test_2017_flickr or test_2017_mscoco"""
    target_lang: str = "de"
    """language of the translation: de or fr"""
    voices: tuple[str, ...] = ("en-us", "en", "en-us+f2", "en+m3")
    """eSpeak NG voices, used in turn"""
    rate_wpm: int = 165
    """words per minute"""
    pitch: int = 50
    """eSpeak's pitch, 0 to 99"""
    limit: int | None = None
    """use only the first captions"""
    overwrite: bool = False
    """replace an existing manifest"""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}; it must be one of {', '.join(SPLITS)}")
        if self.limit is not None:
            check_whole_numbers(self, {"limit": 1})
        if not self.voices:
            raise ValueError("voices is empty; name at least one eSpeak NG voice, e.g. en-us")


def read_captions(data: Path, split: str, lang: str) -> list[str]:
    """The captions of one split and language, one per line.

    Raises `FileNotFoundError`, which names the expected file.
    """
    path = data / f"{split}.{lang}.gz"
    if not path.exists():
        raise FileNotFoundError(f"no captions at {path}: --data must be the folder that holds Multi30k's {split}.{lang}.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [line.strip() for line in lines]


def speak_multi30k(config: Multi30kConfig, out: Path) -> list[Utterance]:
    """Speak a split into FLAC files in a folder next to `out` and write the manifest `out`; existing audio files are kept.

    Raises `CorpusError` if `out` is not a .jsonl file or already exists.
    """
    new_output(out, config.overwrite)
    sources = read_captions(config.data, config.split, "en")[: config.limit]
    targets = read_captions(config.data, config.split, config.target_lang)[: config.limit]
    if len(sources) != len(targets):
        raise ValueError(
            f"{config.data}: {config.split}.en.gz has {len(sources)} captions and {config.split}.{config.target_lang}.gz "
            f"{len(targets)}; they must be translations of each other, line by line"
        )
    voices = [Voice(name, config.rate_wpm, config.pitch) for name in config.voices]
    rows = speak_captions(list(zip(sources, targets, strict=True)), voices, config.split, config.target_lang, out)
    write_manifest(out, rows)
    return rows


def speak_captions(
    pairs: Sequence[tuple[str, str]], voices: Sequence[Voice], name: str, target_lang: str, out: Path
) -> list[Utterance]:
    """Speak `(English, translation)` pairs, with the voices in turn, into `<out without suffix>-audio/`; returns the rows."""
    folder = out.with_name(out.stem + "-audio")
    rows = []
    for number, (source, target) in enumerate(track(pairs, f"speaking {name}")):
        voice = voices[number % len(voices)]
        # the name reflects the text and the settings, so a file made with other settings is never reused
        tag = zlib.crc32(f"{source}|{voice}".encode())
        path = folder / f"{number:05d}-{tag:08x}.flac"
        if not _is_audio(path):
            samples = synthesizer().speak(source, voice)
            write_flac(path, samples / max(1.0, float(np.abs(samples).max())))
        extra = {"voice": voice.name}
        rows.append(Utterance(f"{name}-{number:05d}", str(path), "en", target_lang, target, source_text=source, extra=extra))
    return rows


def _is_audio(path: Path) -> bool:
    """Whether the file exists and can be opened; otherwise its caption has to be spoken again."""
    import soundfile

    try:
        soundfile.info(path)
    except soundfile.LibsndfileError:
        return False
    return True
