"""Lock-step simulation: the batch changes nothing, delays are those of the units' first full appearance."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE
from simulsa.evaluation import simulate as module
from simulsa.evaluation.instances import EvaluationError, Instance, read_instances, write_instances
from simulsa.evaluation.simulate import Clip, Lockstep, admit, done_ms, emissions
from simulsa.lalm.cache import CachedLALM
from simulsa.lalm.frontend import Frontend, PreparedClip
from simulsa.lalm.interface import LALM
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.lalm.workers import LocalWorker
from simulsa.languages import Direction, unit_ends
from simulsa.loading import LoadingError, OnError
from simulsa.manifest import Utterance
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.state import Update
from simulsa.streaming.stream import Stream
from simulsa.testing import FakeLALM, growing_script
from tests.conftest import examples
from tests.lalms import continue_
from tests.test_loading import kill_a_loader, no_process_is_left

Rows = Callable[..., list[Utterance]]
TEXT = "eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf"


def fake() -> FakeLALM:
    return FakeLALM(growing_script(TEXT))


def simulate(
    lalm: LALM,
    clips: list[Clip],
    chunk_ms: float,
    rollback: int,
    batch_size: int = 16,
    drafts: bool = True,
    on_error: OnError = "fail",
    processes: int = 0,
) -> list[Instance]:
    work = Lockstep(StreamConfig(chunk_ms=chunk_ms, rollback=rollback, drafts=drafts), timed=batch_size == 1)
    return module.simulate(LocalWorker(lalm), clips, work, batch_size, on_error, processes)


def untimed(instances: list[Instance]) -> list[tuple[object, ...]]:
    return [(i.id, i.index, i.prediction, i.delays_ms, i.steps, i.source_length_ms) for i in instances]


def update(committed: str, audio_ms: int, compute_s: float = 0.0, final: bool = False) -> Update:
    return Update(committed, "", audio_ms * 16, compute_s, final)


@pytest.mark.parametrize(("chunk_ms", "rollback"), [(500, 0), (500, 3), (300, 5), (math.inf, 0)])
def test_a_batch_of_16_equals_single_utterances(make_rows: Rows, chunk_ms: float, rollback: int) -> None:
    clips = admit(make_rows(21, seconds=1.0), 10**9)
    alone = simulate(fake(), clips, chunk_ms, rollback, batch_size=1)
    together = simulate(fake(), clips, chunk_ms, rollback, batch_size=16)
    assert untimed(alone) == untimed(together)
    assert [instance.index for instance in alone] == list(range(21))
    assert all(instance.elapsed_ms is not None for instance in alone)
    assert all(instance.elapsed_ms is None for instance in together)


@pytest.mark.parametrize("rollback", [0, 3])
def test_a_real_model_gives_the_same_alone_in_a_batch_and_as_a_stream(random_lalm, make_rows: Rows, rollback: int) -> None:
    rows = make_rows(5, seconds=0.7)
    clips = admit(rows, random_lalm.max_samples)
    alone = simulate(random_lalm, clips, 500, rollback, batch_size=1)
    assert untimed(alone) == untimed(simulate(random_lalm, clips, 500, rollback, batch_size=16, drafts=False))
    for instance, row in zip(alone, rows, strict=True):
        stream = Stream(random_lalm, StreamConfig(chunk_ms=500, rollback=rollback))
        updates = [*stream.push(row.load()), *stream.finish()]
        assert instance.prediction == " ".join(updates[-1].committed.split())
        assert instance.steps == len(updates)


def test_the_clips_of_a_pass_have_heard_equally_much(make_rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    lalm, heard = fake(), []
    hear = lalm.hear

    def listening(audios, directions):  # type: ignore[no-untyped-def]
        heard.append([len(audio) for audio in audios])
        return hear(audios, directions)

    monkeypatch.setattr(lalm, "hear", listening)
    instances = simulate(lalm, admit(make_rows(9, seconds=1.0), 10**9), 500, 0, batch_size=3)
    # the last step of a clip of whole chunks needs no model
    whole = sum(instance.source_length_ms % 500 == 0 for instance in instances)
    assert whole == 3
    assert sum(map(len, heard)) == sum(instance.steps for instance in instances) - whole
    assert max(map(len, heard)) == 3
    assert all(max(lengths) - min(lengths) < 8000 for lengths in heard)


def test_infinite_chunks_equal_offline_translation(random_lalm, make_rows: Rows) -> None:
    rows = make_rows(3, seconds=1.0)
    instances = simulate(random_lalm, admit(rows, random_lalm.max_samples), math.inf, 5)
    direction = StreamConfig().direction
    for instance, row in zip(instances, rows, strict=True):
        offline = random_lalm.decode(continue_(random_lalm, [row.load()], [[]], [direction])[0])
        assert instance.prediction == " ".join(offline.split())
        assert set(instance.delays_ms) <= {instance.source_length_ms}
        assert instance.steps == 1


@settings(deadline=None, max_examples=examples(25))
@given(chunk_ms=st.sampled_from([40, 130, 250, 500, 1999]), rollback=st.integers(0, 9))
def test_delays_grow_and_end_with_the_speech(tmp_path_factory, chunk_ms: float, rollback: int) -> None:
    path = tmp_path_factory.getbasetemp() / "delays.wav"
    soundfile.write(path, np.full(round(1.3 * SAMPLE_RATE), 0.1), SAMPLE_RATE)
    row = Utterance("a", str(path), "en", "de", "eins zwei")
    (instance,) = simulate(fake(), admit([row], 10**9), chunk_ms, rollback, batch_size=1)
    assert instance.prediction == "eins zwei drei vier fünf"
    assert len(instance.delays_ms) == 5
    assert list(instance.delays_ms) == sorted(instance.delays_ms)
    assert max(instance.delays_ms) <= instance.source_length_ms == 1300
    assert instance.elapsed_ms is not None
    assert all(elapsed > delay for elapsed, delay in zip(instance.elapsed_ms, instance.delays_ms, strict=True))


def test_a_word_counts_when_it_is_whole() -> None:
    updates = [update("", 500), update("Das Haus", 1000), update("Das Haustier ", 1500), update("Das Haustier schläft", 1700)]
    assert emissions(updates, [500, 1000, 1500, 1700], "word") == (1000, 1500, 1700)


def test_leading_spaces_and_line_breaks_are_no_units() -> None:
    updates = [update(" Das", 500), update(" Das  Haus\nist", 1000), update(" Das  Haus\nist rot ", 1500)]
    assert emissions(updates, [500, 1000, 1500], "word") == (500, 1000, 1000, 1500)


def test_characters_are_the_units_of_chinese(make_rows: Rows) -> None:
    import dataclasses

    rows = [dataclasses.replace(row, target_lang="zh", target_text="你好世界") for row in make_rows(1, seconds=1.0)]
    lalm = FakeLALM(lambda audio: "你好世界"[: len(audio) // 4000])
    (instance,) = simulate(lalm, admit(rows, 10**9), 250, 0)
    assert instance.prediction == "你好世界"
    assert instance.delays_ms == (250, 500, 750, 1000)
    # three bytes of the last character are rolled back: it is held back whole
    assert simulate(lalm, admit(rows, 10**9), 250, 3)[0].delays_ms == (500, 750, 1000, 1000)


def test_an_empty_translation_has_no_delays(make_rows: Rows) -> None:
    (instance,) = simulate(FakeLALM(lambda audio: ""), admit(make_rows(1), 10**9), 500, 0, batch_size=1)
    assert (instance.prediction, instance.delays_ms, instance.elapsed_ms) == ("", (), ())


def test_the_speech_lasts_as_long_as_what_was_heard(make_rows: Rows) -> None:
    (row,) = make_rows(1)
    path = Path(row.audio).with_suffix(".mp3")
    soundfile.write(path, row.load(), SAMPLE_RATE, format="MP3")
    data = bytearray(path.read_bytes())
    frames = max(data.find(b"Xing"), data.find(b"Info")) + 8  # where the header has their number
    data[frames : frames + 4] = (int.from_bytes(data[frames : frames + 4], "big") + 1).to_bytes(4, "big")
    path.write_bytes(data)
    row = dataclasses.replace(row, audio=str(path))
    samples = len(row.load())
    assert row.length_samples() > samples, "the header promises more than there is"
    (instance,) = simulate(fake(), admit([row], 10**9), math.inf, 0)
    assert set(instance.delays_ms) == {instance.source_length_ms} == {samples / 16}, "nothing is final before the end"


def test_chunks_wait_for_their_audio_and_for_each_other() -> None:
    updates = [update("a", 500, 0.7), update("a b", 1000, 0.1), update("a b c", 1500, 0.2)]
    # 500 + 700; then 1200 + 100, as the second chunk had to wait; then idle until 1500
    assert done_ms(updates) == pytest.approx([1200, 1300, 1700])


def test_too_long_and_missing_audio_is_named_or_skipped(make_rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    rows = make_rows(3, seconds=1.0)  # 1.0, 1.3 and 1.6 s
    with pytest.raises(EvaluationError, match=r"row 'row-2'.*1\.60 s.*1\.50 s"):
        admit(rows, round(1.5 * SAMPLE_RATE))
    assert [clip.index for clip in admit(rows, round(1.2 * SAMPLE_RATE), "skip")] == [0]
    assert "row-1" in caplog.text


def test_audio_that_breaks_while_decoding_is_named_or_skipped(make_rows: Rows) -> None:
    rows = make_rows(3, seconds=1.0)
    broken = np.zeros(SAMPLE_RATE, dtype=np.float32)
    broken[5] = np.nan
    soundfile.write(rows[1].audio, broken, SAMPLE_RATE, subtype="FLOAT")
    clips = admit(rows, 10**9)
    with pytest.raises(EvaluationError, match=r"row 'row-1'.*NaN"):
        simulate(fake(), clips, 500, 0)
    assert [instance.id for instance in simulate(fake(), clips, 500, 0, on_error="skip")] == ["row-0", "row-2"]


def test_logs_survive_a_round_trip(make_rows: Rows, tmp_path) -> None:
    for batch_size in (1, 2):
        instances = simulate(fake(), admit(make_rows(3), 10**9), 500, 3, batch_size=batch_size)
        write_instances(tmp_path / "log", instances)
        assert read_instances(tmp_path / "log") == instances
    (tmp_path / "log").write_text('{"index": 0}\n')
    with pytest.raises(EvaluationError, match="log:1: not a line"):
        read_instances(tmp_path / "log")


def test_units_are_those_of_str_split() -> None:
    text = "ein\u00a0Haus\u3000ist  rot\n"
    assert [text[:end].split()[-1] for end in unit_ends(text, "word")] == text.split()


def test_clips_are_loaded_when_they_are_needed(make_rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    lalm, loaded_after = fake(), []
    load = Utterance.load

    def counting(row: Utterance) -> np.ndarray:
        loaded_after.append(len(lalm.calls))
        return load(row)

    monkeypatch.setattr(module.Utterance, "load", counting)
    simulate(lalm, admit(make_rows(6), 10**9), 500, 0, batch_size=2)
    assert loaded_after[:2] == [0, 0]
    assert min(loaded_after[2:]) > 0


@pytest.mark.parametrize("chunk_ms", [400, math.inf])
def test_loader_processes_change_nothing(chunk_ms: float, make_rows: Rows, random_lalm: HuggingFaceLALM) -> None:
    clips = admit(make_rows(7, seconds=1.0), random_lalm.max_samples)
    here = simulate(random_lalm, clips, chunk_ms, 2, batch_size=3)
    assert untimed(simulate(random_lalm, clips, chunk_ms, 2, batch_size=3, processes=2)) == untimed(here)
    assert no_process_is_left()


def test_the_model_finds_everything_prepared_by_the_loaders(
    make_rows: Rows, random_lalm: HuggingFaceLALM, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = admit(make_rows(4, seconds=1.0), random_lalm.max_samples)
    here: list[int] = []
    parent, original = os.getpid(), Frontend.prepare

    def prepare(self: Frontend, audio: np.ndarray, direction: Direction) -> PreparedClip:
        if os.getpid() == parent:
            here.append(len(audio))
        return original(self, audio, direction)

    monkeypatch.setattr(Frontend, "prepare", prepare)
    simulate(CachedLALM(random_lalm, 10), clips, 300, 2, batch_size=2, processes=1)
    assert not here
    simulate(random_lalm, clips, 300, 2, batch_size=1, processes=1)  # computing time is measured, all of it
    assert here


def test_a_loader_that_dies_is_one_line_that_says_what_to_do(make_rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeLALM, "hear", lambda *_: kill_a_loader())
    with pytest.raises(LoadingError, match=r"^a process that loads data ended unexpectedly .*--workers 0 .*$"):
        simulate(fake(), admit(make_rows(9), 10**9), 500, 0, batch_size=1, processes=2)
    assert no_process_is_left()


def test_broken_audio_is_reported_by_loader_processes_too(make_rows: Rows) -> None:
    rows = make_rows(5)
    clips = admit(rows, 10**9)
    soundfile.write(rows[2].audio, np.full(SAMPLE_RATE, np.nan, dtype=np.float32), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(EvaluationError, match=r"row 'row-2': .*NaN"):
        simulate(fake(), clips, 500, 0, batch_size=2, processes=2)
    left = simulate(fake(), clips, 500, 0, batch_size=2, on_error="skip", processes=2)
    assert [instance.id for instance in left] == ["row-0", "row-1", "row-3", "row-4"]
    assert no_process_is_left()
