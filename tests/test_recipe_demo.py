"""The bundled speech: who speaks it, and when each word is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recipes.base.synthesis import Synthesisers
from recipes.base.voices import HIBARI, KOKORO, UNHEARD_KOKORO, Speaker
from recipes.demo.build import TEST, TRAIN, speaker_of, spoken
from recipes.demo.words import word_times
from simulsa.demo.speech import DATA
from simulsa.manifest import read_manifest
from tests.conftest import noise


def test_words_share_the_time_by_their_phonemes() -> None:
    times = word_times("A dog, barking.", "ɐ dˈɔɡ, bˈɑɹkɪŋ.", 2.4)
    assert [word for word, _, _ in times] == ["A", "dog", "barking"]
    assert [end for _, _, end in times] == pytest.approx([0.2, 1.0, 2.4])
    assert [start for _, start, _ in times] == [0.0, *(end for _, _, end in times[:-1])]
    with pytest.raises(ValueError, match="'A dog' has 2 words, but its phonemes 'ɐ' have 1"):
        word_times("A dog", "ɐ", 1.0)


def test_no_voice_of_the_test_speaks_in_training() -> None:
    test, train = ([speaker_of(name, number) for number in range(680)] for name in (TEST, TRAIN))
    assert {speaker.voice for speaker in test} == set(UNHEARD_KOKORO)
    assert not {speaker.voice for speaker in train} & set(UNHEARD_KOKORO)
    assert {speaker.engine for speaker in train} == {HIBARI, KOKORO}
    assert len({speaker.pitch for speaker in train}) > 500


def test_the_bundled_speech_has_these_speakers() -> None:
    for name in (TEST, TRAIN):
        speakers = [speaker_of(name, number) for number in range(680)]
        for row, speaker in zip(read_manifest(DATA / f"{name}.jsonl"), speakers, strict=False):
            assert row.extra["voice"] == f"{speaker.engine}:{speaker.voice}"


def test_a_sentence_is_spoken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []

    def speak(_self: Synthesisers, text: str, *_: object) -> np.ndarray:
        said.append(text)
        return noise(0.5)

    monkeypatch.setattr(Synthesisers, "speak", speak)
    first, second = (spoken("A dog.", Speaker(KOKORO, "x"), Synthesisers(tmp_path), tmp_path / "a.flac") for _ in range(2))
    assert np.array_equal(first, second)
    assert said == ["A dog."]
