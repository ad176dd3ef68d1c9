"""The speech that the experiments use: captions spoken into files once, as manifests.

Fine-tuning hears the captions of train, which the base knows by heart from its pre-training, and those of val, which it has
never seen. Only the latter are cut: a model that knows a caption by heart "hears" words that were not spoken yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recipes.tiny.flite import PREFIX
from recipes.tiny.voices import UNSEEN_VOICES, training_voice
from simulsa.corpora.multi30k import Multi30kConfig, read_captions, speak_captions
from simulsa.corpora.synthesis import Voice
from simulsa.manifest import Utterance

DEVELOPMENT, TEST, CONFIRMATION = "test_2017_mscoco", "test_2016_flickr", "test_2017_flickr"
VOICES = 64  # how many of the training mix take turns in fine-tuning


@dataclass(frozen=True)
class Corpus:
    """`familiar` rows are captions that the base was pre-trained on, `fresh` ones are new to it."""

    familiar: list[Utterance]
    fresh: list[Utterance]

    @property
    def offline(self) -> list[Utterance]:
        """All rows of offline fine-tuning."""
        return [*self.familiar, *self.fresh]


def fine_tuning_corpus(data: Path, work: Path, train_captions: int) -> Corpus:
    """The first `train_captions` captions of train and all of val, in many voices of the pre-training mix."""
    rng = np.random.default_rng(0)
    drawn = (training_voice(rng) for _ in range(3 * VOICES))
    voices = [voice for voice in drawn if not voice.name.startswith(PREFIX)][:VOICES]
    return Corpus(_spoken(data, work, "train", voices, train_captions), _spoken(data, work, "val", voices))


def familiar_rows(data: Path, work: Path, split: str, limit: int | None) -> list[Utterance]:
    """A test split spoken by voices of the pre-training mix."""
    return _spoken(data, work / "familiar", split, [Voice(name) for name in Multi30kConfig().voices], limit)


def unseen_rows(data: Path, work: Path, split: str, limit: int | None = None) -> list[Utterance]:
    """A test split spoken by voices that the base has never heard, in turn."""
    return _spoken(data, work, split, [Voice(name) for name in UNSEEN_VOICES], limit)


def _spoken(data: Path, work: Path, split: str, voices: list[Voice], limit: int | None = None) -> list[Utterance]:
    pairs = list(zip(*(read_captions(data, split, lang)[:limit] for lang in ("en", "de")), strict=True))
    return speak_captions(pairs, voices, split, "de", work / "speech" / f"{split}.jsonl")
