"""The augmentation pipeline: rows, determinism, one pass per batch, resuming, errors."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import simulsa.augmentation.augment as pipeline
from simulsa.audio import SAMPLE_RATE, AudioError
from simulsa.augmentation.augment import AugmentError, augment
from simulsa.augmentation.config import AugmentConfig
from simulsa.augmentation.journal import JournalError
from simulsa.lalm.frontend import Frontend, PreparedClip
from simulsa.lalm.grouping import batches
from simulsa.lalm.interface import LALMError
from simulsa.loading import LoadingError
from simulsa.manifest import ManifestError, Utterance, read_manifest, write_manifest
from simulsa.settings import SettingsError, from_mapping
from simulsa.testing import FakeLALM
from tests.locks import written_elsewhere
from tests.test_loading import kill_a_loader, no_process_is_left

Rows = Callable[..., list[Utterance]]


def config(**changes: Any) -> AugmentConfig:
    return AugmentConfig(**{"num": 8, "batch_size": 3, "preflight": False, **changes})


def hears(text: str, samples_per_character: int = 1600) -> Callable[[np.ndarray], str]:
    """A script that knows one more character of `text` for every 100 ms."""
    return lambda audio: text[: len(audio) // samples_per_character]


class Interrupted(FakeLALM):
    """A fake that is interrupted at its `at`-th pass."""

    at = 3

    def score(self, heard, targets):  # type: ignore[no-untyped-def]
        if len(self.calls) + 1 == self.at:
            raise KeyboardInterrupt
        return super().score(heard, targets)


TEXT = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich."


@pytest.fixture
def rows(make_rows: Rows) -> list[Utterance]:
    """Ten rows of 2.0 to 2.9 s with one target text."""
    return [dataclasses.replace(row, target_text=TEXT) for row in make_rows(10)]


@pytest.fixture
def lalm() -> FakeLALM:
    return FakeLALM(hears(TEXT))


def test_rows_are_new_rows_about_the_same_audio(rows: list[Utterance], lalm: FakeLALM) -> None:
    parents = {row.id: dataclasses.replace(row, start_s=0.25, duration_s=1.5, extra={"speaker": 7}) for row in rows}
    for row in augment(list(parents.values()), lalm, config(seed=5)):
        parent = parents[row.parent_id or ""]
        made_by = dict(row.made_by or {})
        cut, kept = made_by["cut_samples"], made_by["kept_tokens"]
        assert (row.audio, row.start_s, row.source_lang, row.target_lang) == (parent.audio, 0.25, "en", "de")
        assert row.extra == {"speaker": 7}
        assert row.id == f"{parent.id}@{cut // 16}ms"
        assert row.source_text is None
        assert row.duration_s == cut / SAMPLE_RATE
        assert len(row.load()) == row.length_samples() == cut
        assert np.array_equal(row.load(), parent.load()[:cut])
        # the fake knows one character for every 100 ms that it hears: nothing more may stay
        heard = TEXT[: cut // 1600]
        assert row.target_text == heard
        assert list(row.target_tokens or ()) == lalm.encode(TEXT)[:kept] == lalm.encode(heard)
        assert made_by.pop("run")
        assert made_by.pop("audio")
        assert made_by == {
            "truncation": "beta-decay",
            "criterion": "probability",
            "tau": 100 / 257,
            "whole_words": False,
            "kept_tokens": kept,
            "total_tokens": len(lalm.encode(TEXT)),
            "cut_samples": cut,
            "seed": 5,
            "model": "fake@0",
        }


def test_a_character_is_never_cut_in_half(rows: list[Utterance]) -> None:
    def knows_half_of_an_umlaut(audio: np.ndarray) -> str:
        return "Zw\u00c3"  # encodes to other bytes than "ö" after its first, C3

    made = augment(rows, FakeLALM(knows_half_of_an_umlaut), config())
    assert {row.target_text for row in made} == {"Zw"}
    assert {row.target_tokens for row in made} == {(ord("Z"), ord("w"))}


def test_whole_words(rows: list[Utterance], lalm: FakeLALM) -> None:
    for row in augment(rows, lalm, config(num=10, whole_words=True)):
        assert row.target_text in ("", "Zwölf", "Zwölf ", "Zwölf Boxkämpfer", "Zwölf Boxkämpfer ", "Zwölf Boxkämpfer jagen")


@pytest.mark.parametrize("criterion", ["probability", "rank"])
def test_empty_and_whole_translations_are_rows(rows: list[Utterance], criterion: str, tmp_path: Path) -> None:
    nothing = augment(rows, FakeLALM(lambda audio: ""), config(criterion=criterion), tmp_path / "nothing.jsonl")
    assert {(row.target_text, row.target_tokens) for row in nothing} == {("", ())}
    everything = augment(rows, FakeLALM(lambda audio: TEXT), config(criterion=criterion))
    assert {row.target_text for row in everything} == {TEXT}
    assert read_manifest(tmp_path / "nothing.jsonl") == nothing


def test_one_pass_per_batch(rows: list[Utterance], lalm: FakeLALM) -> None:
    augment(rows, lalm, config(num=8, batch_size=3))
    assert lalm.calls == [("score", 3), ("score", 3), ("score", 2)]


def test_same_seed_same_rows_whatever_the_batch(rows: list[Utterance], lalm: FakeLALM) -> None:
    made = augment(rows, lalm, config(batch_size=1))
    assert all(augment(rows, lalm, config(batch_size=size)) == made for size in (2, 5, 16))
    other = augment(rows, lalm, config(seed=1))
    assert [row.parent_id for row in other] != [row.parent_id for row in made]


def test_a_cut_does_not_depend_on_other_rows(rows: list[Utterance], lalm: FakeLALM) -> None:
    cuts = {row.id for row in augment(rows, lalm, config(num=10))}
    assert {row.id for row in augment(rows[4:], lalm, config(num=6))} <= cuts


@pytest.mark.parametrize(("criterion", "uniform"), [("probability", 0.9), ("rank", 360)])
def test_batches_equal_single_rows_with_a_real_model(make_rows: Rows, random_lalm: Any, criterion: str, uniform: float) -> None:
    rows = make_rows(12)
    # a random model finds every token about as likely as any other; this τ parts them somewhere in the middle
    tau = uniform / random_lalm.vocabulary_size
    made = augment(rows, random_lalm, config(num=12, batch_size=1, criterion=criterion, tau=tau))
    assert len({len(row.target_tokens or ()) for row in made}) > 2
    texts = {row.id: row.target_text for row in rows}
    for row in made:
        tokens = list(row.target_tokens or ())
        assert tokens == random_lalm.encode(texts[str(row.parent_id)])[: len(tokens)]
        assert row.target_text == random_lalm.decode(tokens)
    for size in (5, 12):
        assert augment(rows, random_lalm, config(num=12, batch_size=size, criterion=criterion, tau=tau)) == made


def test_preflight_runs_unless_told_not_to(rows: list[Utterance], lalm: FakeLALM) -> None:
    with pytest.raises(LALMError, match="does not hear"):
        augment(rows, lalm, config(preflight=True))


def test_augmented_rows_are_not_cut_again(rows: list[Utterance], lalm: FakeLALM) -> None:
    made = augment(rows, lalm, config(num=10))
    assert augment([*made[:5], *rows, *made[5:]], lalm, config(num=10)) == made
    with pytest.raises(AugmentError, match="only 0 of the 0 offline rows"):
        augment(made, lalm, config())


def test_short_rows_are_left_out(rows: list[Utterance], lalm: FakeLALM) -> None:
    short = [dataclasses.replace(row, duration_s=0.5) for row in rows[:3]]
    made = augment([*short, *rows[3:]], lalm, config(num=7))
    assert {row.parent_id for row in made} == {row.id for row in rows[3:]}
    with pytest.raises(AugmentError, match=r"num is 8 and only 7 of the 10 .*\(3 are not longer than min_ms, 500 ms\).*--num 7"):
        augment([*short, *rows[3:]], lalm, config(num=8))


def test_a_long_parent_is_fine_as_long_as_the_cut_fits(rows: list[Utterance], lalm: FakeLALM) -> None:
    lalm.max_samples = SAMPLE_RATE
    assert len(augment(rows, lalm, config(max_ms=1000))) == 8
    with pytest.raises(AudioError, match=r"row 'row-\d': the cut: the clip lasts .* at most 1.00 s"):
        augment(rows, lalm, config(truncation="uniform"))


def break_audio(rows: Sequence[Utterance], *, header: bool) -> None:
    """Damage the audio of some rows: unreadable from the start, or only found out when the samples are read."""
    for row in rows:
        if header:
            Path(row.audio).write_bytes(b"not audio at all")
        else:
            soundfile.write(row.audio, np.full(SAMPLE_RATE * 2, np.nan, dtype=np.float32), SAMPLE_RATE, subtype="FLOAT")


@pytest.mark.parametrize("header", [True, False])
def test_broken_audio_names_its_row_or_gives_way(rows: list[Utterance], lalm: FakeLALM, header: bool) -> None:
    good = augment(rows, lalm, config(num=10))
    broken = {row.parent_id for row in good[:2]}
    break_audio([row for row in rows if row.id in broken], header=header)
    with pytest.raises(AudioError, match=rf"row '({'|'.join(sorted(str(b) for b in broken))})': .*--on-error skip"):
        augment(rows, lalm, config(num=6))
    assert augment(rows, lalm, config(num=6, on_error="skip")) == with_run(good[2:8], rows, lalm, num=6)
    # nothing is left to take their place
    assert len(augment(rows, lalm, config(num=10, on_error="skip"))) == 8


def with_run(made: list[Utterance], rows: list[Utterance], lalm: FakeLALM, **changes: Any) -> list[Utterance]:
    """`made` with the signatures that other settings and the audio as it is now would have written."""
    now = {"run": pipeline._signature(rows, lalm, config(**changes)), "audio": pipeline.audio_signature(rows)}
    return [dataclasses.replace(row, made_by={**(row.made_by or {}), **now}) for row in made]


def test_only_broken_audio_is_an_error(rows: list[Utterance], lalm: FakeLALM) -> None:
    break_audio(rows, header=True)
    with pytest.raises(AugmentError, match="none of the 10 rows"):
        augment(rows, lalm, config(on_error="skip"))


def test_ids_must_be_unique(rows: list[Utterance], lalm: FakeLALM) -> None:
    with pytest.raises(ManifestError, match="id 'row-0' stands for 2 rows"):
        augment([*rows, rows[0]], lalm, config())


def test_output_is_a_manifest_with_a_histogram(rows: list[Utterance], lalm: FakeLALM, tmp_path: Path) -> None:
    out = tmp_path / "made" / "rows.jsonl"
    made = augment(rows, lalm, config(), out)
    assert read_manifest(out) == made == augment(rows, lalm, config())
    assert sorted(path.name for path in out.parent.iterdir()) == ["rows.jsonl", "rows.png"]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_stopped_run_goes_on_where_it_was(rows: list[Utterance], lalm: FakeLALM, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        augment(rows, Interrupted(hears(TEXT)), config(), out)
    assert not out.exists()
    journal = out.with_suffix(".partial.jsonl")
    with open(journal, "ab") as file:
        file.write(b'{"parent_id": "row-')  # a kill in the middle of a write
    made = augment(rows, lalm, config(), out)
    assert lalm.calls == [("score", 2)]  # two batches of three were done
    assert made == augment(rows, FakeLALM(hears(TEXT)), config())
    assert read_manifest(out) == made
    assert not journal.exists()


def test_a_row_is_not_done_twice_after_a_kill_within_a_batch(rows: list[Utterance], lalm: FakeLALM, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        augment(rows, Interrupted(hears(TEXT)), config(), out)
    journal = out.with_suffix(".partial.jsonl")
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:5]))  # header, 3 rows, 1 of 3
    made = augment(rows, lalm, config(), out)
    assert lalm.calls == [("score", 2), ("score", 2)]
    assert made == augment(rows, FakeLALM(hears(TEXT)), config())


def test_another_runs_journal_is_refused(rows: list[Utterance], lalm: FakeLALM, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        augment(rows, Interrupted(hears(TEXT)), config(), out)
    with pytest.raises(JournalError, match=r"other settings, rows, audio or model.*--overwrite"):
        augment(rows, lalm, config(seed=1), out)
    made = augment(rows, lalm, config(seed=1, overwrite=True), out)
    assert read_manifest(out) == made == augment(rows, lalm, config(seed=1))


@pytest.mark.parametrize("content", ['{"mine": 1}\n', '{"mine": 1}\n{"mine": 2}', '{"mine": 1}', "Dear diary"])
def test_a_file_that_is_no_journal_is_refused(rows: list[Utterance], lalm: FakeLALM, tmp_path: Path, content: str) -> None:
    (tmp_path / "rows.partial.jsonl").write_text(content)
    with pytest.raises(JournalError, match="not a journal"):
        augment(rows, lalm, config(), tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.partial.jsonl").read_text() == content


@pytest.mark.parametrize("written", [12, 35])  # in the run's signature, and in that of the audio
def test_a_kill_within_the_first_line_of_the_journal(rows: list[Utterance], lalm: FakeLALM, tmp_path: Path, written: int) -> None:
    out = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        augment(rows, Interrupted(hears(TEXT)), config(), out)
    journal = out.with_suffix(".partial.jsonl")
    first = journal.read_bytes().partition(b"\n")[0]
    assert written < len(first)
    journal.write_bytes(first[:written])
    assert augment(rows, lalm, config(), out) == augment(rows, FakeLALM(hears(TEXT)), config())


def test_a_finished_run_is_returned(rows: list[Utterance], lalm: FakeLALM, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    made = augment(rows, lalm, config(), out)
    lalm.calls.clear()
    # what does not change the rows does not make another run; a number may be written either way
    assert augment(rows, lalm, config(batch_size=1, min_ms=500.0, tau=100 / 257, on_error="skip"), out) == made
    assert lalm.calls == []
    augment(rows, lalm, config(overwrite=True), out)
    assert len(lalm.calls) == 3


@pytest.mark.parametrize(
    "change",
    [{"num": 7}, {"seed": 1}, {"truncation": "uniform"}, {"criterion": "rank"}, {"tau": 0.5}, {"min_ms": 600}, {"max_ms": 4000}],
)
def test_an_output_of_other_settings_is_kept(
    change: dict[str, Any], rows: list[Utterance], lalm: FakeLALM, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    augment(rows, lalm, config(), out)
    before = out.read_bytes()
    with pytest.raises(AugmentError, match=r"exists and was made with other settings.*--overwrite"):
        augment(rows, lalm, config(**change), out)
    assert out.read_bytes() == before


def test_an_output_of_another_model_or_other_rows_is_kept(rows: list[Utterance], lalm: FakeLALM, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    augment(rows, lalm, config(), out)
    with pytest.raises(AugmentError, match="exists"):
        augment(rows, FakeLALM(hears(TEXT), signature="fake@1"), config(), out)
    with pytest.raises(AugmentError, match="exists"):
        augment([dataclasses.replace(rows[0], target_text="Anders."), *rows[1:]], lalm, config(), out)
    out.write_text("not a manifest")
    with pytest.raises(AugmentError, match="exists"):
        augment(rows, lalm, config(), out)


def test_rows_of_other_audio_under_the_same_names_are_kept(rows: list[Utterance], lalm: FakeLALM, tmp_path: Path) -> None:
    out, journal = tmp_path / "rows.jsonl", tmp_path / "rows.partial.jsonl"
    with pytest.raises(KeyboardInterrupt):
        augment(rows, Interrupted(hears(TEXT)), config(), out)
    begun = journal.read_text()
    made = augment(rows, lalm, config(), out)
    audio = Path(rows[0].audio).read_bytes()
    soundfile.write(rows[0].audio, np.zeros(len(rows[0].load()), np.float32), SAMPLE_RATE)
    with pytest.raises(AugmentError, match=r"made with other settings, rows, audio or model.*--overwrite"):
        augment(rows, lalm, config(), out)
    # earlier versions did not record the audio
    write_manifest(out, [dataclasses.replace(row, made_by={**(row.made_by or {}), "audio": None}) for row in made])
    assert len(augment(rows, lalm, config(), out)) == len(made)
    out.unlink()
    journal.write_text(begun)
    with pytest.raises(JournalError, match=r"other settings, rows, audio or model.*--overwrite"):
        augment(rows, lalm, config(), out)
    head, *lines = begun.splitlines(keepends=True)
    journal.write_text(json.dumps({"run": json.loads(head)["run"]}) + "\n" + "".join(lines))
    lalm.calls.clear()
    augment(rows, lalm, config(), out)
    assert lalm.calls == [("score", 2)], "the journal's rows are not made again"
    # audio that is deleted afterwards contradicts nothing
    Path(rows[0].audio).unlink()
    assert len(augment(rows, lalm, config(), out)) == len(made)
    Path(rows[0].audio).write_bytes(audio)


def test_a_missing_file_does_not_hide_that_others_have_changed(
    rows: list[Utterance], lalm: FakeLALM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, skip = tmp_path / "rows.jsonl", config(num=3, on_error="skip")
    lost = Path(rows[1].audio).rename(tmp_path / "lost.wav")
    made = augment(rows, lalm, skip, out)
    assert augment(rows, lalm, skip, out) == made
    assert "is not checked" not in caplog.text
    heard = Path(rows[0].audio).read_bytes()
    soundfile.write(rows[0].audio, np.zeros(len(rows[0].load()), np.float32), SAMPLE_RATE)
    with pytest.raises(AugmentError, match=r"made with other settings, rows, audio or model.*--overwrite"):
        augment(rows, lalm, skip, out)
    Path(rows[0].audio).write_bytes(heard)
    lost.rename(rows[1].audio)
    assert augment(rows, lalm, skip, out) == made
    assert caplog.text.count("whether the audio is the same as before is not checked") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="has no fcntl")
def test_an_output_that_another_process_makes_is_refused(rows: list[Utterance], lalm: FakeLALM, tmp_path: Path) -> None:
    out = tmp_path / "mix.jsonl"
    with written_elsewhere(out), pytest.raises(AugmentError, match=r"mix\.jsonl: another process is making it.*another --out"):
        augment(rows, lalm, AugmentConfig(num=2, preflight=False), out)
    assert len(augment(rows, lalm, AugmentConfig(num=2, preflight=False), out)) == 2
    assert not list(tmp_path.glob(".*"))


def test_the_output_must_be_jsonl(rows: list[Utterance], lalm: FakeLALM, tmp_path: Path) -> None:
    with pytest.raises(AugmentError, match=r"must be a \.jsonl file"):
        augment(rows, lalm, config(), tmp_path / "rows.png")


def test_the_manifest_says_how_rows_were_made(rows: list[Utterance], lalm: FakeLALM, tmp_path: Path) -> None:
    augment(rows, lalm, config(tau=0.25), tmp_path / "rows.jsonl")
    first = json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["made_by"]["tau"] == 0.25
    assert first["audio"] == f"audio/{first['parent_id'].removeprefix('row-')}.wav"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num": 0}, "num is 0"),
        ({"num": 2.5}, "num is 2.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"truncation": "gamma"}, "truncation is 'gamma'.*beta-decay-discrete"),
        ({"criterion": "luck"}, "criterion is 'luck'.*probability, rank"),
        ({"on_error": "cry"}, "on_error is 'cry'"),
        ({"tau": 0.0}, "tau is 0.0"),
        ({"tau": 1.1}, "tau is 1.1"),
        ({"tau": float("nan")}, "tau is nan"),
        ({"tau": "high"}, "tau is 'high'; it must be of type float or 'auto'"),
        ({"min_ms": 0}, "min_ms is 0"),
        ({"min_ms": float("nan")}, "min_ms is nan"),
        ({"max_ms": 500}, "max_ms is 500"),
        ({"max_ms": float("inf")}, "beta-decay-full"),
    ],
)
def test_settings_say_what_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        from_mapping(AugmentConfig, change, "augment.yaml")


def test_the_defaults_are_the_papers() -> None:
    paper = AugmentConfig()
    assert (paper.num, paper.truncation, paper.tau, paper.min_ms, paper.max_ms) == (3000, "beta-decay", "auto", 500, 5000)


def test_loader_processes_change_no_row(rows: list[Utterance], random_lalm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here: list[int] = []
    parent, original = os.getpid(), Frontend.prepare

    def prepare(self: Frontend, *row: Any) -> PreparedClip:
        if os.getpid() == parent:
            here.append(1)
        return original(self, *row)

    monkeypatch.setattr(Frontend, "prepare", prepare)
    made = augment(rows, random_lalm, config(workers=0))
    assert here
    here.clear()
    for workers in (1, 4):
        assert augment(rows, random_lalm, config(workers=workers)) == made
    assert not here
    assert no_process_is_left()


def test_a_loader_that_dies_ends_a_run_that_can_be_resumed(
    rows: list[Utterance], lalm: FakeLALM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cut.jsonl"
    original = FakeLALM.score

    def score(self: FakeLALM, *args: Any) -> Any:
        if len(self.calls) == 1:
            kill_a_loader()
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(FakeLALM, "score", score)
        with pytest.raises(LoadingError, match=r"^a process that loads data ended unexpectedly .*--workers 0 .*$"):
            augment(rows, lalm, config(batch_size=1, workers=2), out)
    assert no_process_is_left()
    scored = len(lalm.calls)
    assert scored == 1
    assert augment(rows, lalm, config(batch_size=1, workers=0), out) == augment(rows, lalm, config())
    assert len(lalm.calls) == 8 + 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_row_is_named_whoever_loads_it(workers: int, rows: list[Utterance], lalm: FakeLALM) -> None:
    soundfile.write(rows[4].audio, np.full(2 * SAMPLE_RATE, np.nan, dtype=np.float32), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"^row 'row-4': .*NaN.*--on-error skip$"):
        augment(rows, lalm, config(num=10, workers=workers))
    made = augment(rows, lalm, config(num=9, workers=workers, on_error="skip"))
    assert sorted(row.parent_id or "" for row in made) == sorted(row.id for row in rows if row.id != "row-4")
    assert no_process_is_left()


def test_a_pass_has_so_much_audio_at_most() -> None:
    lengths = [30, 29, 12, 11, 10, 5, 1]
    together = batches(lengths, lambda length: length, rows=3, total=40)
    assert together == [[30], [29], [12, 11, 10], [5, 1]]
    assert batches([50, 1], lambda length: length, rows=9, total=40) == [[50], [1]]
    assert AugmentConfig().rows_per_pass(None) == 16
    assert AugmentConfig().rows_per_pass(torch.device("cuda")) == 64
    assert AugmentConfig(batch_size=5).rows_per_pass(torch.device("cuda")) == 5
