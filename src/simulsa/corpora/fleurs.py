"""FLEURS (arXiv 2205.12446): the same sentences read aloud in 102 languages, matched by their id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simulsa.corpora.build import CorpusConfig
from simulsa.corpora.layout import CorpusError, need, read_tsv
from simulsa.languages import base_language
from simulsa.manifest import Utterance

COLUMNS = ("id", "file_name", "raw_transcription", "transcription", "phonemes", "num_samples", "gender")
_CODES = {"cmn": "zh"}  # language codes that only this corpus uses


@dataclass(frozen=True)
class FleursConfig(CorpusConfig):
    """FLEURS as a manifest: each recording paired with its sentence in another language."""

    data: Path = Path()
    """folder with one folder per language, such as en_us/train.tsv and en_us/audio/train/"""
    source_lang: str = "en_us"
    """language of the speech, as FLEURS names its folder"""
    target_lang: str = "de_de"
    """language of the translation, as FLEURS names its folder"""
    split: str = "train"
    """train, dev or test"""

    def code(self, lang: str) -> str:
        """`en_us` → `en`, `cmn_hans_cn` → `zh`."""
        base = base_language(lang)
        return _CODES.get(base, base)


def read_fleurs(config: FleursConfig) -> list[Utterance]:
    """The recordings of a split, often several per sentence; the target is empty if the other language lacks the sentence.

    Raises `CorpusError` if the folder does not have the expected layout.
    """
    audio = need(config.data / config.source_lang / "audio" / config.split, "unpack the split's archive there")
    targets = {values["id"]: values["raw_transcription"].strip() for values in _table(config, config.target_lang)}
    source_lang, target_lang = config.code(config.source_lang), config.code(config.target_lang)
    return [
        Utterance(
            id=f"fleurs-{values['id']}-{Path(values['file_name']).stem}-{source_lang}-{target_lang}",
            audio=str(audio / values["file_name"]),
            source_lang=source_lang,
            target_lang=target_lang,
            target_text=targets.get(values["id"], ""),
            source_text=values["raw_transcription"].strip(),
            extra={"gender": values["gender"].lower()},
        )
        for values in _table(config, config.source_lang)
    ]


def _table(config: FleursConfig, language: str) -> list[dict[str, str]]:
    path = need(
        config.data / language / f"{config.split}.tsv",
        "--data must hold a folder per language, named as FLEURS does, e.g. --source-lang en_us",
    )
    rows = []
    for number, values in read_tsv(path, COLUMNS, header=COLUMNS):
        if not values["id"].isdigit():
            raise CorpusError(f"{path}:{number}: the first column is {values['id']!r}; it must be the sentence's number")
        rows.append(values)
    return rows
