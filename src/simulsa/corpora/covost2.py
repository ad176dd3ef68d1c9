"""CoVoST 2 (arXiv 2007.10310): translations of Common Voice's sentences, one table per direction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simulsa.corpora.build import CorpusConfig
from simulsa.corpora.layout import AudioFolder, CorpusError, need, read_tsv
from simulsa.manifest import Utterance

_REMOVED = "REMOVE"  # what translators entered when a sentence could not be translated


@dataclass(frozen=True)
class Covost2Config(CorpusConfig):
    """CoVoST 2 as a manifest: Common Voice's clips with translations from CoVoST 2's tables."""

    data: Path = Path()
    """Common Voice folder of the source language: validated.tsv and clips/"""
    tables: Path | None = None
    """folder with covost_v2.XX_YY.tsv, if it is not --data"""
    split: str = "train"
    """train, dev or test"""


def read_covost2(config: Covost2Config) -> list[Utterance]:
    """The rows of a split in the table's order; rows that a translator marked for removal have an empty target.

    Raises `CorpusError` if the folder does not have the expected layout.
    """
    clips = AudioFolder(need(config.data / "clips", "--data must be Common Voice's folder of the spoken language"))
    translations = _translations(config)
    known = all("sentence" in values for values in translations)
    sentences = {} if known else _sentences(config.data, {values["path"] for values in translations})
    rows = []
    for values in translations:
        name, target_text = values["path"], values["translation"].strip()
        rows.append(
            Utterance(
                id=f"{Path(name).stem}-{config.source_lang}-{config.target_lang}",
                audio=clips.find(name),
                source_lang=config.source_lang,
                target_lang=config.target_lang,
                target_text="" if target_text == _REMOVED else target_text,
                source_text=(values["sentence"] if known else sentences.get(name, "")).strip() or None,
            )
        )
    return rows


def _translations(config: Covost2Config) -> list[dict[str, str]]:
    """The lines of a split: from that split's own table if there is one, otherwise from the released table of all splits."""
    tables = config.tables or config.data
    direction = f"covost_v2.{config.source_lang}_{config.target_lang}"
    path = tables / f"{direction}.{config.split}.tsv"
    if not path.exists():
        path = need(tables / f"{direction}.tsv", "--tables must be the folder of the unpacked CoVoST 2 tables")
    # CoVoST adds sentences that Common Voice's own training set lacks
    wanted = {config.split, "train_covost"} if config.split == "train" else {config.split}
    table = read_tsv(path, ["path", "translation"], escaped=True)  # CoVoST's own script writes and reads it this way
    rows = [values for _, values in table if values.get("split", config.split) in wanted]
    if not rows:
        raise CorpusError(f"{path}: no row of the split {config.split!r}; --split must be train, dev or test")
    return rows


def _sentences(data: Path, clips: set[str]) -> dict[str, str]:
    path = need(data / "validated.tsv", "it holds the sentences; --data must be Common Voice's folder of the spoken language")
    return {values["path"]: values["sentence"] for _, values in read_tsv(path, ["path", "sentence"], only=("path", clips))}
