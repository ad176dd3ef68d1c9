"""`simulsa score`: logs of any system, whole and broken."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from simulsa.cli import main
from simulsa.evaluation.diagnostics import burstiness, degeneracy, flicker
from simulsa.evaluation.instances import EvaluationError, Instance, write_instances
from simulsa.evaluation.logs import read_log
from simulsa.evaluation.recording import Recording
from simulsa.evaluation.score import ScoreConfig, score_log
from simulsa.evaluation.scores import score_instances
from simulsa.manifest import Utterance, write_manifest
from tests.score_logs import TEXTS, Lines, record


def chunks(key: Any, wav: str, *steps: tuple[float, float, list[str], list[str]]) -> list[dict[str, Any]]:
    """A recording in simulstream's log: for each chunk seconds heard, seconds computed, tokens added, tokens taken back."""
    named = {"id": key, "metadata": {"wav_name": wav}}
    lines = [
        {"id": key, "total_audio_processed": heard, "computation_time": took, "generated_tokens": new, "deleted_tokens": deleted}
        for heard, took, new, deleted in steps
    ]
    return [named, *lines]


def ours(**changed: Any) -> list[Instance]:
    return [
        Instance(f"id-{i}", i, prediction, reference, f"clip-{i}.wav", 2000.0, tuple(map(float, delays)), None, 4)
        for i, (prediction, reference, delays) in enumerate(TEXTS)
    ]


REFERENCES = [reference for _, reference, _ in TEXTS]


# whole logs ---------------------------------------------------------------------------------------------------------------------
def test_simulevals_log_scores_as_simulsas_evaluation(written: Lines, tmp_path: Path) -> None:
    scores = score_log(written([record(i) for i in range(3)]), ScoreConfig(written(REFERENCES, "references")))
    expected = score_instances(ours(), "de")
    assert {key: scores[key] for key in expected} == expected
    write_instances(tmp_path / "ours.log", ours())
    again = score_log(tmp_path / "ours.log")  # with its own references
    assert {key: again[key] for key in expected} == expected
    assert (scores["tool"], again["tool"]) == ("SimulEval", "simulsa")
    assert "computing time since the recording began" in scores["elapsed"]
    assert again["elapsed"] is None
    assert "ca_al_ms" not in again


def test_simulstreams_log_scores_the_same(written: Lines) -> None:
    lines: list[Any] = [{"model_loading_time": 1.0}]
    for i, (prediction, _, delays) in enumerate(TEXTS):
        words = prediction.split()
        steps = [
            (ms / 1000, 0.25, [f"▁{w}" for w, d in zip(words, delays, strict=True) if d == ms], [])
            for ms in (500, 1000, 1500, 2000)
        ]
        lines += chunks(i, f"/corpus/clip-{i}.wav", *steps)
    scores = score_log(written(lines), ScoreConfig(written(REFERENCES, "references")))
    expected = score_instances(ours(), "de")
    assert {key: scores[key] for key in expected} == pytest.approx(expected)
    assert scores["ca_al_ms"] == pytest.approx(scores["al_ms"] + 250)
    assert scores["normalised_erasure"] == 0
    assert scores["tool"] == "simulstream"


def test_tokens_taken_back_flicker_and_are_as_late_as_what_replaced_them(written: Lines) -> None:
    lines = chunks(
        "c", "a.wav", (0.5, 0, ["▁Ein", "▁Fahr"], []), (1.0, 0, ["rad"], []), (1.5, 0, ["▁Eine", "▁Frau"], ["▁Fahr", "rad"])
    )
    (recording,) = read_log(written(lines)).recordings
    assert recording.prediction == "Ein Eine Frau"
    assert recording.delays_ms == (500, 1500, 1500)
    assert recording.source_length_ms == 1500
    assert recording.erased == 1
    assert flicker([recording]) == {"normalised_erasure": 1 / 3}


def test_a_word_is_there_when_its_last_part_is(written: Lines) -> None:
    lines = chunks(
        0, "a.wav", (0.5, 0.1, ["▁Ein", "▁Fahr"], []), (1.0, 0.2, ["rad"], []), (1.5, 0.1, [","], []), (2.0, 0, [], [])
    )
    (recording,) = read_log(written(lines)).recordings
    assert recording.prediction == "Ein Fahrrad,"
    assert recording.delays_ms == (500, 1500)
    assert recording.elapsed_ms == (600, 1600)
    assert recording.erased == 0


@pytest.mark.parametrize(
    ("tokens", "lang", "text"),
    [
        (["Ein", "Mann"], "de", "Ein Mann"),
        (["▁F", "<0xC3>", "<0xA4>", "hrt"], "de", "Fährt"),
        (["ĠF", "Ã¤hrt", "ĠRad"], "de", "Fährt Rad"),
        (["你", "好"], "zh", "你好"),
    ],
)
def test_tokens_become_text(written: Lines, tokens: list[str], lang: str, text: str) -> None:
    log = read_log(written(chunks(0, "a.wav", (1.0, 0, tokens, []))), "char" if lang == "zh" else "word")
    assert log.recordings[0].prediction == text


def test_sums_of_chunks_do_not_make_the_last_word_early(written: Lines) -> None:
    heard = [sum([0.1] * n) for n in range(1, 11)]  # 0.1, 0.2, 0.30000000000000004, ... 0.9999999999999999
    lines = chunks(0, "a.wav", *[(time, 0.0, [f"▁w{n}"], []) for n, time in enumerate(heard)])
    (recording,) = read_log(written(lines)).recordings
    assert recording.delays_ms == tuple(100.0 * n for n in range(1, 11))


# computing time -----------------------------------------------------------------------------------------------------------------
def test_queued_computing_time_of_both_tools(written: Lines) -> None:
    log = read_log(written([record(0, delays=[1000, 1000, 1000, 3000], elapsed=[1900, 1900, 1900, 4900])]), elapsed="queued")
    assert log.recordings[0].elapsed_ms == (1900, 1900, 1900, 4000)  # 900 ms, then another 1000 in all
    lines = chunks(0, "a.wav", (0.5, 0.9, ["a"], []), (1.0, 0.2, ["b"], []), (3.0, 0.1, ["c"], []))
    assert read_log(written(lines)).recordings[0].elapsed_ms == (1400, 1200, 3100)
    queued = read_log(written(lines), elapsed="queued")
    assert queued.recordings[0].elapsed_ms == pytest.approx((1400, 1600, 3100))
    assert "queued" in queued.elapsed


def test_simulsas_elapsed_times_are_queued_already(written: Lines) -> None:
    line = record(0, steps=4, delays=[1000, 1000, 1000, 3000], elapsed=[1900, 1900, 1900, 3100])
    for elapsed in ("logged", "queued"):
        assert read_log(written([line]), elapsed=elapsed).recordings[0].elapsed_ms == (1900, 1900, 1900, 3100)


def test_incremental_computing_time_is_omnistevals_correction(written: Lines) -> None:
    from omnisteval.alignment import Word
    from omnisteval.data import fix_emission_ca

    delays, elapsed = [1000, 1000, 2000, 3000], [1900, 1900, 9000, 9100]
    line = record(0, delays=delays, elapsed=elapsed)
    log = read_log(written([line]), elapsed="incremental")
    words = fix_emission_ca([Word("a", emission_cu=cu, emission_ca=ca) for cu, ca in zip(delays, elapsed, strict=True)])
    assert log.recordings[0].elapsed_ms == tuple(word.emission_ca for word in words) == (1900, 1900, 8100, 8100)
    assert "--fix_simuleval_emission_ca" in log.elapsed
    ours = read_log(written([{**line, "steps": 4}]), elapsed="incremental")  # needs no correction
    assert ours.recordings[0].elapsed_ms == tuple(elapsed)
    assert "queued" in ours.elapsed


def test_a_log_whose_computing_times_add_up_is_noticed(written: Lines) -> None:
    slow = written([record(0, elapsed=[3000, 5500, 6000, 8000], source_length=20_000)])
    (note,) = score_log(slow)["notes"]
    assert re.match(r"computation-aware YAAL is \d+ ms above YAAL.*--elapsed incremental.*--elapsed queued", note)
    assert score_log(slow, ScoreConfig(elapsed="incremental"))["notes"] == []
    assert score_log(written([record(0)]))["notes"] == []


def test_elapsed_times_of_nought_were_not_measured(written: Lines) -> None:
    log = read_log(written([record(0, elapsed=[0, 0, 0, 0])]))
    assert log.recordings[0].elapsed_ms is None
    assert "1 of 1 records have no elapsed times" in log.notes[0]


def test_a_recording_without_output_has_no_latency_and_takes_none_away(written: Lines) -> None:
    silent = record(1, prediction="", delays=[], elapsed=[])
    scores, alone = score_log(written([record(0), silent])), score_log(written([record(0)]))
    assert scores["empty"] == 1
    assert [scores[key] for key in ("laal_ms", "ca_laal_ms")] == [alone[key] for key in ("laal_ms", "ca_laal_ms")]
    assert scores["bleu"] < alone["bleu"]


@pytest.mark.parametrize("elapsed", [[-5, 1500, 1500, 2000], [1000, 1500, 1500, 1900]])
def test_output_before_its_audio_is_refused(written: Lines, elapsed: list[float]) -> None:
    path = written([record(0, elapsed=elapsed)])
    with pytest.raises(EvaluationError, match=r"a\.log:1: elapsed time \d is -?\d+ ms although .* \(--elapsed none\)"):
        read_log(path)
    assert read_log(path, elapsed="none").recordings[0].elapsed_ms is None


def test_negative_computing_time_is_refused(written: Lines) -> None:
    path = written(chunks(0, "a.wav", (0.5, -0.1, ["a"], [])))
    with pytest.raises(EvaluationError, match=r"computation_time is -0\.1 s"):
        read_log(path)
    assert read_log(path, elapsed="none").recordings[0].delays_ms == (500,)


# broken and unusual logs --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("prediction", ["Ein Mann fährt Rad", "Ein Mann fährt Rad </s>"])
def test_an_end_mark_is_taken_off_with_its_delay(written: Lines, prediction: str) -> None:
    line = record(0, prediction=prediction, delays=[1000, 1500, 1500, 2000, 2000], elapsed=[1100, 1600, 1600, 2100, 2200])
    log = read_log(written([line, record(1)]))
    assert log.recordings[0].prediction == "Ein Mann fährt Rad"
    assert log.recordings[0].delays_ms == (1000, 1500, 1500, 2000)
    assert log.recordings[0].elapsed_ms == (1100, 1600, 1600, 2100)
    assert log.notes == ["1 of 2 records end with </s> or its delay, which was taken off"]
    assert read_log(written([record(0, prediction="</s>", delays=[2000], elapsed=[2100])])).recordings[0].prediction == ""


def test_an_end_mark_may_count_as_a_word(written: Lines) -> None:
    line = record(0, prediction="Ein Mann fährt Rad </s>", delays=[1000, 1500, 1500, 2000, 2000], elapsed=[2000] * 5)
    bare = record(1, delays=[500, 1500, 2000, 2000, 2000], elapsed=[2000] * 5)  # a delay alone is no word
    log = read_log(written([line, bare]), count_end=True)
    assert log.recordings[0].prediction == "Ein Mann fährt Rad </s>"
    assert log.recordings[0].delays_ms == (1000, 1500, 1500, 2000, 2000)
    assert log.recordings[1].prediction == "Zwei Hunde im Schnee"
    assert log.notes == [
        "1 of 2 records end with </s> or its delay, which was taken off",
        "1 of 2 records end with </s>, which counts as a word",
    ]
    scores = [score_log(written([line]), ScoreConfig(count_end=count)) for count in (False, True)]
    assert scores[0]["length_ratio"] < scores[1]["length_ratio"]


def test_names_with_dots_are_whole(written: Lines) -> None:
    names = ["2022.acl-long.110", "2022.acl-long.268", "talk.v2.WAV"]
    steps = (1.0, 0.1, ["Ein"], [])
    log = read_log(written([line for n, name in enumerate(names) for line in chunks(n, name, steps)]))
    assert [recording.name for recording in log.recordings] == ["2022.acl-long.110", "2022.acl-long.268", "talk.v2"]


def test_a_time_that_no_float_can_hold(written: Lines) -> None:
    with pytest.raises(EvaluationError, match=r"a\.log:1"):
        read_log(written([record(0, delays=[10**400, 1, 1, 1])]))


def test_delays_of_sentencepieces_become_those_of_words(written: Lines) -> None:
    parts = ["▁Ein", "▁Mann", "▁f", "ähr", "t", "▁", "▁Rad"]
    delays = [500, 500, 500, 1000, 1500, 1500, 2000]
    line = record(0, delays=delays, elapsed=[delay + 10 for delay in delays], prediction_spm=parts)
    (recording,) = read_log(written([line])).recordings
    assert recording.delays_ms == (500, 500, 1500, 2000)
    assert recording.elapsed_ms == (510, 510, 1510, 2010)


@pytest.mark.parametrize("count", [0, 3, 6])
def test_other_numbers_of_delays_are_refused(written: Lines, count: int) -> None:
    path = written([record(1), record(0, delays=[1000] * count, elapsed=None)])
    with pytest.raises(EvaluationError, match=rf"a\.log:2: {count} delays for 4 words \('Ein Mann fährt Rad'\).*--lang"):
        read_log(path)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"delays": [1000, 1500, "x", 2000]}, "delays: number 3 is 'x'"),
        ({"delays": [1000, 1500, float("nan"), 2000]}, "not JSON (NaN is not JSON"),
        ({"delays": None}, "delays is None"),
        ({"delays": [-40, 1500, 1500, 2000]}, "delay 1 is -40 ms"),
        ({"elapsed": [1, 2]}, "2 elapsed times for 4 delays"),
        ({"prediction": None}, "prediction is None"),
        ({"index": -1}, "index is -1"),
        ({"source_length": "long"}, "source_length: number 1 is 'long'"),
    ],
)
def test_values_that_cannot_be_are_refused_with_their_line(written: Lines, changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(EvaluationError, match=r"a\.log:1: " + re.escape(problem)):
        read_log(written([record(0) | changed]))


def test_a_log_cut_off_in_the_middle(written: Lines) -> None:
    whole = json.dumps(record(1))
    path = written([record(0), whole[: len(whole) // 2]], end="")
    with pytest.raises(EvaluationError, match=r"a\.log:2: the last line of the log is incomplete.*--partial"):
        read_log(path)
    log = read_log(path, partial=True)
    assert len(log.recordings) == 1
    assert log.notes == ["line 2 is incomplete and was skipped"]
    with pytest.raises(EvaluationError, match=r"a\.log:1: not JSON"):
        read_log(written([whole[:40], record(1)]), partial=True)


def test_a_run_that_was_not_finished(written: Lines) -> None:
    references = written(REFERENCES, "references")
    path = written([record(0), record(2)])
    with pytest.raises(EvaluationError, match=r"1 of 3 references have no recording in the log \(the first: line 2\)"):
        score_log(path, ScoreConfig(references))
    scores = score_log(path, ScoreConfig(references, partial=True))
    assert scores["utterances"] == 2
    assert "1 references without a recording were skipped" in scores["notes"]
    lines = [*chunks(0, "a.wav", (1.0, 0, ["a"], [])), *chunks(1, "b.wav")]
    with pytest.raises(EvaluationError, match="recording 'b' has no chunk; the log is incomplete"):
        read_log(written(lines))
    assert [recording.name for recording in read_log(written(lines), partial=True).recordings] == ["a"]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "holds no records"),
        (["[1]"], r":1: a list; a log has a JSON object in each line"),
        ([{"text": "Ein"}], r"keys text; it must be a log of SimulEval"),
        ([{"model_loading_time": 1.0}], "holds no recording that was translated"),
        ([record(0), record(0)], "index 0 occurs twice; the log holds two runs"),
        (chunks(0, "x/a.wav", (1.0, 0, ["a"], [])) + chunks(1, "y/a.wav", (1.0, 0, ["b"], [])), "name 'a' occurs twice"),
        (chunks(0, "a.wav", (1.0, 0, ["a", 1], [])), r"generated_tokens is \['a', 1\]; it must be a list of texts"),
        (chunks(0, "a.wav", (1.0, 0, ["a"], []))[1:], "no earlier line names the recording 0"),
        (chunks(0, "a.wav", (1.0, 0, ["a"], []), (0.5, 0, ["b"], [])), "less than in the line before"),
        (
            chunks(0, "a.wav", (1.0, 0, ["a"], []), (1.5, 0, ["b"], ["c"])),
            r"\['c'\] is deleted, but the text does not end with it",
        ),
        (chunks(0, "a.wav", (1.0, 0, ["a"], []), (1.5, 0, [], ["z", "a"])), "is deleted, but the text does not end with it"),
    ],
)
def test_what_is_no_log_is_refused(written: Lines, lines: list[Any], problem: str) -> None:
    with pytest.raises(EvaluationError, match=problem):
        read_log(written(lines))


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no such log"):
        read_log(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"\xe4")
    with pytest.raises(EvaluationError, match="not UTF-8"):
        read_log(tmp_path / "latin")


def test_delays_at_the_same_moment_are_fine(written: Lines) -> None:
    scores = score_log(written([record(0, delays=[2000] * 4, elapsed=[2000] * 4)]))
    assert scores["laal_ms"] == scores["ca_laal_ms"] == 2000
    assert scores["most_units_at_once"] == 4
    assert scores["gap_ms"] is None


# references ---------------------------------------------------------------------------------------------------------------------
def test_references_are_matched_by_index_whatever_the_logs_order(written: Lines) -> None:
    references = written(REFERENCES, "references")
    scores = [
        score_log(written([record(i, reference="") for i in order]), ScoreConfig(references)) for order in ([0, 1, 2], [2, 0, 1])
    ]
    assert scores[0]["bleu"] == scores[1]["bleu"] > 30
    assert scores[0]["laal_ms"] == scores[1]["laal_ms"]


def test_references_in_another_order_than_the_logs_own_are_matched_by_their_text(written: Lines) -> None:
    path = written([record(i) for i in range(3)])
    right = score_log(path, ScoreConfig(written(REFERENCES, "right")))
    other = score_log(path, ScoreConfig(written(REFERENCES[::-1], "other")))
    assert other["bleu"] == right["bleu"]
    assert "another order (2 elsewhere); matched by their text" in other["notes"][0]
    retold = score_log(path, ScoreConfig(written([*REFERENCES[:2], "Eine Frau lacht"], "retold")))
    assert retold["bleu"] < right["bleu"]
    assert "1 of 3 references in" in retold["notes"][0]


def test_sources_follow_references_in_another_order_than_the_logs_own(written: Lines, tmp_path: Path) -> None:
    """Every translation copies its source; matched to those of other recordings, none would."""
    path = written([record(i) for i in range(3)])
    texts = [prediction for prediction, _, _ in TEXTS]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        references = written([REFERENCES[i] for i in order], "references")
        spoken = written([texts[i] for i in order], "sources")
        assert score_log(path, ScoreConfig(references, sources=spoken))["copies"] == 3, order
        assert score_log(path, ScoreConfig(sources=written(texts, "sources")))["copies"] == 3
        # a manifest is matched by its ids, whatever the order of the references
        rows = [Utterance(f"clip-{i}", f"clip-{i}.flac", "en", "de", REFERENCES[i], source_text=texts[i]) for i in order]
        write_manifest(tmp_path / "rows.jsonl", rows)
        assert score_log(path, ScoreConfig(references, sources=tmp_path / "rows.jsonl"))["copies"] == 3


def test_a_manifest_is_matched_by_id_or_file_name(written: Lines, tmp_path: Path) -> None:
    rows = [Utterance(f"id-{i}", f"/other/clip-{i}.flac", "en", "de", REFERENCES[i], source_text=f"s{i}") for i in (2, 0, 1)]
    write_manifest(tmp_path / "rows.jsonl", rows)
    settings = ScoreConfig(tmp_path / "rows.jsonl", sources=tmp_path / "rows.jsonl")
    write_instances(tmp_path / "ours.log", ours())
    expected = score_instances(ours(), "de")["bleu"]
    assert score_log(tmp_path / "ours.log", settings)["bleu"] == expected
    assert score_log(written([record(i, reference=None) for i in (1, 2, 0)]), settings)["bleu"] == expected
    with pytest.raises(EvaluationError, match="row 'id-1' has two recordings in the log"):
        score_log(written([record(1), record(0, source=["clip-1.wav"])]), settings)
    with pytest.raises(EvaluationError, match=r"rows\.jsonl: no row has the id or the audio file of recording 'clip-3'"):
        score_log(written([record(3)]), settings)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (REFERENCES[:2], "2 sentences, but the log has recording 2 .counted from 0., 3 in all"),
        ([*REFERENCES, "Noch einer"], r"1 of 4 references have no recording in the log \(the first: line 4\)"),
        ([REFERENCES[0], "", REFERENCES[2]], "the reference of recording 'clip-1' is empty"),
        ([], "empty; it must have one sentence per line"),
    ],
)
def test_missing_references_are_refused(written: Lines, lines: list[str], problem: str) -> None:
    references = written(lines, "references", end="\n" if lines else "")
    with pytest.raises(EvaluationError, match=problem):
        score_log(written([record(i, reference="") for i in range(3)]), ScoreConfig(references))
    with pytest.raises(EvaluationError, match="recording 'clip-0' has no reference in the log; give a file with --references"):
        score_log(written([record(0, reference="")]))
    with pytest.raises(EvaluationError, match="no such file; it must have one sentence per line"):
        score_log(written([record(0)]), ScoreConfig(references.with_name("none")))


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def test_composed_and_decomposed_letters_are_the_same(written: Lines) -> None:
    whole = score_log(written([record(i) for i in range(3)]), ScoreConfig(written(REFERENCES, "references")))
    lines = [record(i, prediction=decomposed(TEXTS[i][0]), source=[decomposed(f"/ü/clip-{i}.wav")]) for i in range(3)]
    mixed = score_log(written(lines), ScoreConfig(written(REFERENCES, "references")))
    assert mixed["bleu"] == whole["bleu"]
    assert mixed["chrf"] == whole["chrf"]
    kana = decomposed("がく")  # three code points, of which the first two are one character
    assert len(kana) == 3
    line = record(0, prediction=kana, delays=[500, 1000, 1500], elapsed=[600, 1200, 1800])
    (recording,) = read_log(written([line]), "char").recordings
    assert (recording.prediction, recording.delays_ms, recording.elapsed_ms) == ("がく", (1000, 1500), (1200, 1800))


def test_simuleval_counts_characters_without_spaces(written: Lines) -> None:
    line = record(0, prediction="你好 世界", delays=[500, 1000, 1500, 2000], elapsed=None, reference="你好世界")
    assert read_log(written([line]), "char").recordings[0].prediction == "你好世界"
    assert score_log(written([line]), ScoreConfig(lang="zh"))["al_ms"] == 500


# diagnostics --------------------------------------------------------------------------------------------------------------------
def test_degenerate_text_shows() -> None:
    loop = "und dann und dann und dann"  # three 4-grams, of which the third is the first again
    predictions = ["", loop, "Danke fürs Zuschauen", "Danke fürs Zuschauen", "A man rides a bike"]
    references = ["a b c d e", "a b c d e f", "eins zwei drei", "vier", "Ein Mann fährt Rad heute"]
    sources = ["x", "y", "z", "w", "a man rides a red bike"]
    assert degeneracy(predictions, references, "word", sources) == {
        "empty": 1,
        "repeated_4grams": pytest.approx(1 / 5),
        "repeated_4grams_references": 0,
        "length_ratio": pytest.approx(17 / 20),
        "too_short": 0,
        "too_long": 1,
        "same_output": 2,
        "copies": 1,
    }
    assert degeneracy(["你好你好你好"], ["你好"], "char")["repeated_4grams"] == pytest.approx(1 / 3)


def test_bursts_and_gaps() -> None:
    recordings = [Recording(0, "a", "", "a b c d", (500, 500, 500, 2000), None, 2000), Recording(1, "b", "", "", (), None, 2000)]
    assert burstiness(recordings) == {
        "units_at_once": 2,
        "most_units_at_once": 3,
        "gap_ms": 1500,
        "longest_gap_ms": 1500,
        "first_output_ms": 500,
    }
    assert set(burstiness([recordings[1]]).values()) == {None}
    assert flicker([recordings[1]]) == {"normalised_erasure": None}


# the command --------------------------------------------------------------------------------------------------------------------
def test_the_command_prints_and_writes(written: Lines, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, references = written([record(i) for i in range(3)]), written(REFERENCES, "references")
    assert main(["score", str(log), "--references", str(references), "--json", str(tmp_path / "scores.json")]) == 0
    printed = capsys.readouterr()
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["utterances"] == 3
    assert re.search(rf"LAAL +{scores['laal_ms']:.0f} ms", printed.out)
    assert "computation-aware means: SimulEval's" in printed.out
    assert scores["bleu_signature"] in printed.out


def test_the_command_refuses(written: Lines, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = str(written([record(0)]))
    assert main(["score", log, "--segments", "x.yaml"]) == 2
    assert "segments need references" in capsys.readouterr().err
    assert main(["score", log, "--comet", "Unbabel/wmt22-comet-da"]) == 2
    assert "give --sources FILE" in capsys.readouterr().err
    assert main(["score", log, "--lang", "xx"]) == 2
    assert "unknown language 'xx'" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "none")]) == 1
    assert "no such log" in capsys.readouterr().err
    assert main(["score", log, "--elapsed", "sideways"]) == 2
