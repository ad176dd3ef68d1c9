"""Rows from full stops that came too early: what they hold, which are found, resuming, errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from simulsa.audio import SAMPLE_RATE, AudioError
from simulsa.augmentation.correct import CorrectConfig, correct
from simulsa.augmentation.journal import JournalError
from simulsa.augmentation.output import AugmentError
from simulsa.manifest import Utterance, read_manifest
from simulsa.testing import FakeLALM

Rows = Callable[..., list[Utterance]]


def config(**changes: Any) -> CorrectConfig:
    return CorrectConfig(**{"num": 4, "batch_size": 3, "min_chunk_ms": 500, "max_chunk_ms": 500, **changes})


def hasty(audio: np.ndarray) -> str:
    """Ends the sentence after a second."""
    return "Ein Hund"[: len(audio) // 2000] if len(audio) < SAMPLE_RATE else "Ein Hund."


def attentive(audio: np.ndarray) -> str:
    """Says the same of the first 1.2 seconds, and knows better when it has heard more."""
    return hasty(audio) if len(audio) < 1.2 * SAMPLE_RATE else "Ein Hund läuft."


@pytest.fixture
def rows(make_rows: Rows) -> list[Utterance]:
    return make_rows(6)


@pytest.fixture
def lalm() -> FakeLALM:
    return FakeLALM(hasty, name="tuned", signature="tuned@0")


@pytest.fixture
def judge() -> FakeLALM:
    return FakeLALM(attentive)


def test_a_row_stops_before_the_full_stop(rows: list[Utterance], lalm: FakeLALM, judge: FakeLALM) -> None:
    made = correct(rows, lalm, judge, config(num=6))
    assert {row.parent_id for row in made} == {row.id for row in rows}
    for row in made:
        assert row.id == f"{row.parent_id}@1000ms-corrected"
        assert (row.duration_s, len(row.load()), row.source_text) == (1.0, SAMPLE_RATE, None)
        assert row.target_text == "Ein Hund"
        assert row.target_tokens == tuple(lalm.encode("Ein Hund"))
        assert row.rest_tokens == tuple(lalm.encode("."))
        assert (row.made_by or {})["model"] == "tuned@0"
        assert (row.made_by or {})["judge"] == "fake@0"
        assert row.is_augmented


def test_words_before_the_full_stop_are_held_back(rows: list[Utterance], lalm: FakeLALM, judge: FakeLALM) -> None:
    for row in correct(rows, lalm, judge, config(hold_back=2)):
        # two letters less would end inside a word
        assert row.target_text == "Ein "
        assert row.target_tokens == tuple(lalm.encode("Ein "))
        assert row.rest_tokens == tuple(lalm.encode("Hund."))
    assert {row.target_text for row in correct(rows, lalm, judge, config(hold_back=99))} == {""}


def test_a_full_stop_that_the_whole_audio_supports_is_no_mistake(rows: list[Utterance], lalm: FakeLALM) -> None:
    with pytest.raises(AugmentError, match="tuned closed no sentence of the 6 offline rows too early"):
        correct(rows, lalm, FakeLALM(hasty), config())


def test_other_tokens_are_not_judged(rows: list[Utterance], lalm: FakeLALM) -> None:
    def other_words(audio: np.ndarray) -> str:
        return hasty(audio) if len(audio) < 1.2 * SAMPLE_RATE else "Der Hund."

    with pytest.raises(AugmentError, match="closed no sentence"):
        correct(rows, lalm, FakeLALM(other_words), config())


def test_the_end_of_the_speech_is_no_mistake(make_rows: Rows, lalm: FakeLALM, judge: FakeLALM) -> None:
    short = make_rows(1, seconds=1.0)  # the first full stop comes when all is heard
    with pytest.raises(AugmentError, match="closed no sentence"):
        correct(short, lalm, judge, config(num=1))


def test_the_batch_size_changes_nothing(rows: list[Utterance], lalm: FakeLALM, judge: FakeLALM) -> None:
    one, many = (correct(rows, lalm, judge, config(num=2, batch_size=size, max_chunk_ms=900)) for size in (1, 4))
    assert one == many
    assert len(one) == 2
    assert one != correct(rows, lalm, judge, config(num=2, seed=1, max_chunk_ms=900))


def test_augmented_rows_are_left_alone(rows: list[Utterance], lalm: FakeLALM, judge: FakeLALM) -> None:
    cut = dataclasses.replace(rows[0], id="cut", parent_id="x")
    assert {row.parent_id for row in correct([cut, rows[1]], lalm, judge, config())} == {rows[1].id}


def test_a_stopped_run_goes_on(rows: list[Utterance], lalm: FakeLALM, judge: FakeLALM, tmp_path: Path) -> None:
    class Interrupted(FakeLALM):
        def score(self, audios, targets, directions):  # type: ignore[no-untyped-def]
            if len(self.calls) == 4:
                raise KeyboardInterrupt
            return super().score(audios, targets, directions)

    out = tmp_path / "corrected.jsonl"
    with pytest.raises(KeyboardInterrupt):
        correct(rows, lalm, Interrupted(attentive), config(num=6), out)
    with pytest.raises(JournalError, match="an unfinished run with other settings"):
        correct(rows, lalm, judge, config(num=6, tau=0.2), out)
    made = correct(rows, lalm, judge, config(num=6), out)
    assert len(judge.calls) == 4  # two chunks, twice scored, of the second batch only
    assert made == correct(rows, lalm, FakeLALM(attentive), config(num=6)) == read_manifest(out)
    assert not list(tmp_path.glob("*.partial.jsonl"))
    judge.calls.clear()
    assert correct(rows, lalm, judge, config(num=6), out) == made
    assert not judge.calls
    with pytest.raises(AugmentError, match="exists and was made with other settings"):
        correct(rows, lalm, judge, config(num=5), out)


def test_broken_audio_ends_the_run_or_is_left_out(rows: list[Utterance], lalm: FakeLALM, judge: FakeLALM) -> None:
    soundfile.write(rows[2].audio, np.full(SAMPLE_RATE, np.nan, dtype=np.float32), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"row 'row-2'.*--on-error skip"):
        correct(rows, lalm, judge, config(num=6))
    made = correct(rows, lalm, judge, config(num=6, on_error="skip"))
    assert {row.parent_id for row in made} == {row.id for row in rows} - {"row-2"}


def test_a_judge_with_other_tokens_is_refused(rows: list[Utterance], lalm: FakeLALM) -> None:
    with pytest.raises(AugmentError, match="fake has other tokens than tuned"):
        correct(rows, lalm, FakeLALM(attentive, vocabulary_size=300), config())


@pytest.mark.parametrize(
    "changes",
    [{"num": 0}, {"tau": 0}, {"tau": 1.5}, {"min_chunk_ms": 10}, {"max_chunk_ms": 400}, {"on_error": "ignore"}, {"seed": -1}],
)
def test_bad_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        config(**changes)
