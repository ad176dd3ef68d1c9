"""Rows to examples to batches: what is checked, and which tokens carry loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from simulsa.audio import SAMPLE_RATE, AudioError
from simulsa.languages import Direction
from simulsa.manifest import ManifestError, Utterance
from simulsa.training.collator import IGNORED, Collator
from simulsa.training.config import TrainConfig
from simulsa.training.examples import Example, TrainError, make_examples, summary
from simulsa.training.train import train

Rows = Callable[..., list[Utterance]]


def examples_of(rows: list[Utterance], lalm: Any) -> list[Example]:
    return make_examples(rows, lalm, "fail")[0]


def collator(lalm: Any, **options: Any) -> Collator:
    return Collator(lalm.frontend, lalm.eos_id, **options)


def cut(row: Utterance, tokens: list[int], lalm: Any) -> Utterance:
    """An augmented row, one second long."""
    return dataclasses.replace(
        row, id=f"{row.id}@1000ms", parent_id=row.id, duration_s=1.0, target_text=lalm.decode(tokens), target_tokens=tuple(tokens)
    )


def break_while_reading(row: Utterance) -> None:
    """The header stays sound, the samples do not."""
    samples = np.full(SAMPLE_RATE, np.nan, dtype=np.float32)
    soundfile.write(row.audio, samples, SAMPLE_RATE, subtype="FLOAT")


def test_only_target_and_eos_carry_loss_token_by_token(make_rows: Rows, random_lalm: Any) -> None:
    whole = make_rows(2)
    rows = [*whole, cut(whole[0], random_lalm.encode(whole[0].target_text)[:2], random_lalm), cut(whole[1], [], random_lalm)]
    batch = collator(random_lalm)(examples_of(rows, random_lalm))
    for i, row in enumerate(rows):
        target = list(row.target_tokens) if row.target_tokens is not None else random_lalm.encode(row.target_text)
        answer = [*target, random_lalm.eos_id]
        labels = batch["labels"][i].tolist()
        expected = [IGNORED] * (len(labels) - len(answer)) + answer
        assert [(position, label) for position, label in enumerate(labels)] == list(enumerate(expected))
        assert batch["answers"][i] == answer
    assert len({int((row != IGNORED).sum()) for row in batch["labels"]}) == 4  # the rows do differ in length


def test_a_batch_is_what_inference_hears(make_rows: Rows, random_lalm: Any) -> None:
    rows = make_rows(3)
    batch = collator(random_lalm)(examples_of(rows, random_lalm))
    trained = random_lalm.listen(batch["clips"])
    inferred = random_lalm.hear([row.load() for row in rows], [Direction("en", "de")] * 3)
    rounding = 0 if random_lalm.device.type == "cpu" else 5e-3  # a GPU computes the features of what it infers
    for one, other in zip(trained, inferred, strict=True):
        torch.testing.assert_close(one.embeddings, other.embeddings, rtol=0, atol=rounding)


def test_where_a_step_has_fewer_rows_nothing_is_heard_or_learnt(make_rows: Rows, random_lalm: Any) -> None:
    examples, collate = examples_of(make_rows(3), random_lalm), collator(random_lalm)
    whole, filled = collate(examples), collate([*examples, None, None])
    assert whole["answers"] == filled["answers"]
    assert all(torch.equal(whole[name], filled[name]) for name in ("labels", "offline"))
    assert (collate([None, None])["labels"] == IGNORED).all()


def test_target_tokens_win_over_the_text(make_rows: Rows, random_lalm: Any) -> None:
    row = make_rows(1)[0]
    letters = [token for letter in row.target_text for token in random_lalm.encode(letter)]
    assert letters != random_lalm.encode(row.target_text)
    [example] = examples_of([dataclasses.replace(row, target_tokens=tuple(letters))], random_lalm)
    labels = collator(random_lalm)([example])["labels"][0]
    assert labels[labels != IGNORED].tolist() == [*letters, random_lalm.eos_id]


@pytest.mark.parametrize("tokens", [(5, 6, 7), (10**6,), (-1,)])
def test_tokens_of_another_tokenizer_are_refused(tokens: tuple[int, ...], make_rows: Rows, random_lalm: Any) -> None:
    row = dataclasses.replace(make_rows(1)[0], target_tokens=tokens)
    with pytest.raises(TrainError, match="row 'row-0': its target_tokens are not those of"):
        make_examples([row], random_lalm, "fail")


@pytest.mark.parametrize("special", ["<|AUDIO|>", "<|im_end|>"])
def test_a_target_with_a_special_token_is_refused(special: str, make_rows: Rows, random_lalm: Any) -> None:
    row = dataclasses.replace(make_rows(1)[0], target_text=f"Ein {special} Hund")
    with pytest.raises(TrainError, match="row 'row-0': its target holds the special token"):
        make_examples([row], random_lalm, "fail")


def test_rows_that_cannot_be_heard_fail_by_id_or_are_left_out(make_rows: Rows, random_lalm: Any) -> None:
    rows = make_rows(4)
    Path(rows[1].audio).unlink()
    soundfile.write(rows[3].audio, np.zeros(11 * SAMPLE_RATE, dtype=np.float32), SAMPLE_RATE)  # the window is 10 s
    with pytest.raises(TrainError, match=r"2 of 4 rows .*'row-1': .*no such audio.*'row-3': .*lasts 11.00 s.*--on-error skip"):
        make_examples(rows, random_lalm, "fail")
    examples, left_out = make_examples(rows, random_lalm, "skip")
    assert [example.row.id for example in examples] == ["row-0", "row-2"]
    assert left_out == ["row-1", "row-3"]
    with pytest.raises(TrainError, match="none of the 1 rows has usable audio"):
        make_examples([rows[1]], random_lalm, "skip")


def test_audio_that_breaks_while_reading(make_rows: Rows, random_lalm: Any) -> None:
    rows = make_rows(3)
    examples = examples_of(rows, random_lalm)
    sound = collator(random_lalm)(examples)["labels"]
    break_while_reading(rows[1])
    with pytest.raises(AudioError, match=r"row 'row-1': .*NaN.*--on-error skip"):
        collator(random_lalm)(examples)
    skip = collator(random_lalm, on_error="skip")
    batch = skip(examples)
    labels = batch["labels"]
    assert list(batch["broken"]) == ["row-1"]
    assert "NaN" in batch["broken"]["row-1"]
    assert (labels[1] == IGNORED).all()
    for i in (0, 2):
        kept = labels[i][labels[i] != IGNORED]
        assert len(kept)
        assert torch.equal(kept, sound[i][sound[i] != IGNORED])


def test_ids_are_unique_over_offline_and_simultaneous_rows(make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    rows = make_rows(2)
    config = TrainConfig(out=tmp_path / "run")
    with pytest.raises(ManifestError, match=r"id 'row-0' stands for 2 rows \(offline and simultaneous\); ids must be unique"):
        train(random_lalm, [*rows, dataclasses.replace(rows[0], parent_id="row-0")], config)
    with pytest.raises(TrainError, match="no rows"):
        train(random_lalm, [], config)


def test_the_summary_counts_rows_and_hours(make_rows: Rows, random_lalm: Any) -> None:
    rows = make_rows(3, seconds=2.0)  # 2.0, 2.3 and 2.6 s
    examples = examples_of([*rows, cut(rows[0], [], random_lalm)] * 10, random_lalm)
    assert summary(examples) == "40 rows: 30 offline (75.0%), 10 simultaneous (25.0%); 0.02 h of audio"  # 79 s
