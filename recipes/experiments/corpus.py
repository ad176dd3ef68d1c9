"""The speech that the experiments use: captions spoken into files once, as manifests.

Fine-tuning hears the captions of train, which the base knows by heart from its pre-training, and those of val, which it has
never seen. Only the latter are cut: a model that knows a caption by heart "hears" words that were not spoken yet.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recipes.base.captions import spoken_rows
from recipes.base.testsets import spoken_split
from recipes.base.voices import KOKORO, training_speaker
from simulsa.corpora.multi30k import read_captions
from simulsa.manifest import Utterance

TEST, CONFIRMATION = "test_2016_flickr", "test_2017_flickr"


@dataclass(frozen=True)
class Corpus:
    """`familiar` rows are captions that the base was pre-trained on, `fresh` ones are new to it."""

    familiar: list[Utterance]
    fresh: list[Utterance]

    @property
    def offline(self) -> list[Utterance]:
        """All rows of offline fine-tuning."""
        return [*self.familiar, *self.fresh]


def fine_tuning_corpus(data: Path, assets: Path, work: Path, train_captions: int) -> Corpus:
    """The first `train_captions` captions of train and all of val, by speakers of the base's training mix."""
    return Corpus(_training_rows(data, assets, work, "train", train_captions), _training_rows(data, assets, work, "val"))


def unheard_rows(data: Path, assets: Path, work: Path, split: str, limit: int | None = None) -> list[Utterance]:
    """A test split by natural voices that the base has never heard, in turn."""
    return spoken_split(data, split, KOKORO, limit, assets, work / "test")


def _training_rows(data: Path, assets: Path, work: Path, split: str, limit: int | None = None) -> list[Utterance]:
    """A speaker for each caption, drawn from a seed made of the split's name and the caption's number."""
    pairs = list(zip(*(read_captions(data, split, lang)[:limit] for lang in ("en", "de")), strict=True))
    return spoken_rows(
        pairs,
        split,
        lambda number: training_speaker(np.random.default_rng([zlib.crc32(split.encode()), number])),
        assets,
        work / "speech",
    )
