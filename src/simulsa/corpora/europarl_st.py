"""Europarl-ST (arXiv 1911.03167): speeches of the European Parliament, cut into segments by time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simulsa.corpora.build import CorpusConfig
from simulsa.corpora.layout import AudioFolder, CorpusError, need, read_parallel, seconds, segment_ids
from simulsa.manifest import Utterance


@dataclass(frozen=True)
class EuroparlStConfig(CorpusConfig):
    """Europarl-ST as a manifest of slices of its speeches."""

    data: Path = Path()
    """folder with one folder per source language, such as en/audios and en/de/train/segments.lst (release v1.1)"""
    split: str = "train"
    """train, train-noisy, dev or test"""


def read_europarl_st(config: EuroparlStConfig) -> list[Utterance]:
    """The segments of a split in the order of its files. Raises `CorpusError` for a wrong layout or a broken line."""
    spoken = config.data / config.source_lang
    fix = "--data must be the folder that holds one folder per spoken language, e.g. v1.1"
    speeches = AudioFolder(need(spoken / "audios", fix))
    folder = need(spoken / config.target_lang / config.split, "check --target-lang and --split")
    names = ("lst", config.source_lang, config.target_lang)
    files = [need(folder / f"segments.{name}", "unpack the corpus again") for name in names]
    lines = read_parallel(files)
    segments = [_segment(listed, f"{files[0]}:{number}") for number, (listed, _, _) in enumerate(lines, start=1)]
    ids = segment_ids([name for name, _, _ in segments], config.source_lang, config.target_lang)
    return [
        Utterance(
            id=own,
            audio=speeches.find(name),
            source_lang=config.source_lang,
            target_lang=config.target_lang,
            target_text=target.strip(),
            source_text=source.strip() or None,
            start_s=start_s,
            duration_s=round(end_s - start_s, 6),
        )
        for own, (name, start_s, end_s), (_, source, target) in zip(ids, segments, lines, strict=True)
    ]


def _segment(line: str, where: str) -> tuple[str, float, float]:
    parts = line.split()
    if len(parts) != 3:
        raise CorpusError(f"{where}: {line!r}; a line must be a speech, a start and an end in seconds; fix it")
    start_s, end_s = seconds(parts[1], where), seconds(parts[2], where)
    return parts[0], start_s, end_s
