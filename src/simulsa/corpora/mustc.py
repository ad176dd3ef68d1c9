"""MuST-C (Di Gangi et al., 2019) and corpora with its layout (mTEDx, IWSLT's TED): talks, segments, and lines of text."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulsa.corpora.build import CorpusConfig
from simulsa.corpora.layout import AudioFolder, CorpusError, need, read_parallel, segment_ids
from simulsa.manifest import Utterance

logger = logging.getLogger("simulsa")


@dataclass(frozen=True)
class MustcConfig(CorpusConfig):
    """MuST-C, or a corpus laid out like it, as a manifest of slices of its talks."""

    data: Path = Path()
    """folder of one direction: it holds data/SPLIT/txt and data/SPLIT/wav"""
    split: str = "train"
    """train, dev, tst-COMMON or tst-HE"""


def read_mustc(config: MustcConfig) -> list[Utterance]:
    """The segments of a split in the order of its files. Raises `CorpusError` for a wrong layout or a broken segment."""
    fix = "--data must be the folder of one direction, e.g. en-de, and --split one of its splits"
    folder = need(config.data / "data" / config.split, fix)
    talks = AudioFolder(need(folder / "wav", "the talks must be there"))
    listing = need(folder / "txt" / f"{config.split}.yaml", fix)
    texts = [need(listing.with_suffix(f".{lang}"), fix) for lang in (config.source_lang, config.target_lang)]
    lines = read_parallel(texts)
    segments = _segments(listing)
    if len(segments) != len(lines):
        raise CorpusError(
            f"{listing} has {len(segments)} segments and {texts[0].name} {len(lines)} lines; they must match line by line"
        )
    names = [str(segment["wav"]) for segment in segments]
    ids = segment_ids([Path(name).stem for name in names], config.source_lang, config.target_lang)
    return [
        Utterance(
            id=own,
            audio=talks.find(name),
            source_lang=config.source_lang,
            target_lang=config.target_lang,
            target_text=target.strip(),
            source_text=source.strip() or None,
            start_s=float(segment["offset"]),
            duration_s=float(segment["duration"]),
            extra={"speaker": str(segment["speaker_id"])} if "speaker_id" in segment else {},
        )
        for own, name, segment, (source, target) in zip(ids, names, segments, lines, strict=True)
    ]


def _segments(path: Path) -> list[dict[str, Any]]:
    """The segments with `wav`, `offset` and `duration` (seconds)."""
    import yaml

    logger.info("reading %s", path)
    try:
        # libyaml, if PyYAML was built with it: a training set lists hundreds of thousands of segments
        segments = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise CorpusError(f"{path}: not YAML ({error}); unpack the corpus again") from error
    if not isinstance(segments, list):
        raise CorpusError(f"{path}: a {type(segments).__name__} where a list of segments is needed")
    for number, segment in enumerate(segments, start=1):
        times = [segment.get(key) for key in ("offset", "duration")] if isinstance(segment, dict) else []
        if not times or not all(isinstance(time, (int, float)) for time in times) or "wav" not in segment:
            raise CorpusError(f"{path}: segment {number} is {segment}; it must have wav, and offset and duration in seconds")
    return segments
