"""The speech that the experiments use: captions synthesised to files once, as manifests.

Only captions that the base has never seen are cut, because a model that knows a caption by heart "hears" words before they are
spoken. If the base was trained on the first half of train (see `recipes.base.build --captions`), the second half is new to it;
the bundled base knows all of train, so only val is new.
"""

from __future__ import annotations

import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from recipes.base.captions import spoken_rows
from recipes.base.testsets import spoken_split
from recipes.base.voices import KOKORO, Speaker, training_speaker
from simulsa.corpora.multi30k import read_captions
from simulsa.manifest import Utterance

TRAIN, VAL, TEST, CONFIRMATION = "train", "val", "test_2016_flickr", "test_2017_flickr"


@dataclass(frozen=True)
class Corpus:
    """`familiar` rows are captions that the base was pre-trained on, `fresh` ones are new to it."""

    familiar: list[Utterance]
    fresh: list[Utterance]

    @property
    def offline(self) -> list[Utterance]:
        """All rows of offline fine-tuning."""
        return [*self.familiar, *self.fresh]


@dataclass(frozen=True)
class Selection:
    """Captions `first` to `last` of a split (to the end if `last` is not given), each spoken in `readings` readings."""

    split: str
    first: int = 0
    last: int | None = None
    readings: int = 1


def spoken_selection(data: Path, assets: Path, work: Path, chosen: Selection, jobs: int) -> list[Utterance]:
    """The rows of a selection, reading after reading, by speakers of the base's training mix; made by `jobs` processes."""
    speak = partial(_reading, data, assets, work / "speech", chosen)
    if jobs == 1 or chosen.readings == 1:
        readings = [speak(number) for number in range(chosen.readings)]
    else:
        with ProcessPoolExecutor(jobs) as pool:
            readings = list(pool.map(speak, range(chosen.readings)))
    return [row for reading in readings for row in reading]


def _reading(data: Path, assets: Path, folder: Path, chosen: Selection, number: int) -> list[Utterance]:
    """The reading with this number; its name keeps it apart from speech of other captions or other voices."""
    pairs = zip(*(read_captions(data, chosen.split, lang)[chosen.first : chosen.last] for lang in ("en", "de")), strict=True)
    name = "-".join([chosen.split, *([f"from-{chosen.first}"] if chosen.first else []), *([str(number)] if number else [])])
    return spoken_rows(list(pairs), name, partial(_speaker, name), assets, folder)


def _speaker(name: str, number: int) -> Speaker:
    """The speaker of a reading's caption, drawn from a seed made of the reading's name and the caption's number."""
    return training_speaker(np.random.default_rng([zlib.crc32(name.encode()), number]))


def unheard_rows(data: Path, assets: Path, work: Path, split: str, limit: int | None = None) -> list[Utterance]:
    """A test split spoken by natural voices that the base has never heard, taken in turn."""
    return spoken_split(data, split, KOKORO, limit, assets, work / "test")
