"""The grid: what is written, what is done again after a stop, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch

from simulsa.cli import main
from simulsa.evaluation import evaluate as module
from simulsa.evaluation.compare import compare
from simulsa.evaluation.config import EvaluateConfig
from simulsa.evaluation.evaluate import evaluate
from simulsa.evaluation.front import pareto_front
from simulsa.evaluation.instances import EvaluationError, read_instances
from simulsa.evaluation.report import comparison_table, markdown_table, plot_quality_latency
from simulsa.lalm.interface import LALMError
from simulsa.languages import Direction
from simulsa.manifest import Utterance
from simulsa.settings import SettingsError, from_mapping
from simulsa.streaming.policies import Policy, Rollback
from simulsa.testing import FakeLALM, growing_script
from tests.conftest import noise
from tests.locks import written_elsewhere

Rows = Callable[..., list[Utterance]]
TEXT = "Ein Mann in einem roten Hemd fährt Fahrrad und noch viel mehr"


def fake(signature: str = "fake@0") -> FakeLALM:
    return FakeLALM(growing_script(TEXT), signature=signature)


def config(out: Path | None, **other) -> EvaluateConfig:
    rollback = () if "policy" in other else (0, 3)
    return EvaluateConfig(**{"chunk_ms": (500, math.inf), "rollback": rollback, "out": out, "preflight": False, **other})


def test_an_evaluation_writes_its_folder(make_rows: Rows, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = evaluate(fake(), make_rows(5), config(out))
    logs = {"instances-inf-b0.log", "instances-k500-b0.log", "instances-k500-b3.log"}
    assert {path.name for path in out.iterdir()} == {"scores.json", "table.md", "quality-latency.png", *logs}
    text = (out / "scores.json").read_text()
    scores = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert scores == result.scores
    assert [(score["chunk_ms"], score["rollback"]) for score in scores] == [(500, 0), ("inf", 0), (500, 3), ("inf", 3)]
    assert {**scores[1], "rollback": 3, "policy": "rollback:3"} == scores[3], "offline, b makes no difference"
    assert scores[1]["yaal_ms"] is None
    assert scores[0]["laal_ms"] < scores[2]["laal_ms"] < scores[1]["laal_ms"]
    assert scores[0]["signature"].startswith("model:fake@0|test:")
    assert len(read_instances(out / "instances-k500-b3.log")) == 5
    assert (out / "quality-latency.png").read_bytes().startswith(b"\x89PNG")
    assert markdown_table(scores) in (out / "table.md").read_text()


def test_offline_runs_once_for_all_rollbacks(make_rows: Rows) -> None:
    lalm = fake()
    evaluate(lalm, make_rows(3), config(None, chunk_ms=(math.inf,), rollback=(0, 3, 5)))
    assert lalm.calls == [("continue_", 3)]


def test_computation_aware_scores_only_for_single_utterances(make_rows: Rows) -> None:
    rows = make_rows(2)
    together, alone = (evaluate(fake(), rows, config(None, batch_size=size)).scores[0] for size in (16, 1))
    assert "ca_laal_ms" not in together
    assert alone["ca_laal_ms"] > alone["laal_ms"] == together["laal_ms"]


def test_a_stopped_evaluation_goes_on(make_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, simulated, simulate = make_rows(3), [], module.simulate

    def counting(workers, clips, work, *rest):
        if len(simulated) == 1 and stopping:
            raise KeyboardInterrupt
        simulated.append((work.config.chunk_ms, work.config.commit_policy.rollback))
        return simulate(workers, clips, work, *rest)

    monkeypatch.setattr(module, "simulate", counting)
    stopping = True
    with pytest.raises(KeyboardInterrupt):
        evaluate(fake(), rows, config(tmp_path / "out"))
    assert len(json.loads((tmp_path / "out" / "scores.json").read_text())) == 1
    stopping = False
    resumed = evaluate(fake(), rows, config(tmp_path / "out"))
    assert simulated == [(500, 0), (math.inf, 0), (500, 3)]
    assert resumed.scores == evaluate(fake(), rows, config(tmp_path / "whole")).scores
    del simulated[:]
    evaluate(fake(), rows, config(tmp_path / "out", batch_size=4, drafts=False))
    assert simulated == [], "neither the batch nor drafts change the numbers"
    (tmp_path / "out" / "instances-k500-b3.log").unlink()
    evaluate(fake(), rows, config(tmp_path / "out"))
    assert simulated == [(500, 3)]


def test_a_larger_grid_keeps_what_is_there(make_rows: Rows, tmp_path: Path) -> None:
    rows = make_rows(3)
    evaluate(fake(), rows, config(tmp_path / "out", chunk_ms=(math.inf,), rollback=(0,)))
    lalm = fake()
    result = evaluate(lalm, rows, config(tmp_path / "out", chunk_ms=(1000, math.inf), rollback=(3,)))
    assert [(score["chunk_ms"], score["rollback"]) for score in result.scores] == [(1000, 3), ("inf", 3)]
    assert len(lalm.calls) == 3, "offline was there already"
    saved = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert [(score["chunk_ms"], score["rollback"]) for score in saved] == [("inf", 0), (1000, 3), ("inf", 3)]


@pytest.mark.parametrize("change", ["model", "rows", "reference", "timing"])
def test_a_folder_of_another_evaluation_is_refused(make_rows: Rows, tmp_path: Path, change: str) -> None:
    rows, out = make_rows(3), tmp_path / "out"
    evaluate(fake(), rows, config(out, chunk_ms=(1000, 500)))
    before = (out / "scores.json").read_bytes()
    lalm, settings = fake(), config(out, chunk_ms=(500,))
    if change == "model":
        lalm = fake("fake@1")
    elif change == "rows":
        rows = rows[:2]
    elif change == "reference":
        rows = [dataclasses.replace(rows[0], target_text="Etwas anderes"), *rows[1:]]
    else:
        settings = dataclasses.replace(settings, batch_size=1)
    part = {"model": "model:fake@0 where this one has model:fake@1", "timing": "timing:none"}.get(change, "test:")
    with pytest.raises(EvaluationError, match=rf"another evaluation \({part}.*--overwrite"):
        evaluate(lalm, rows, settings)
    assert (out / "scores.json").read_bytes() == before
    evaluate(lalm, rows, dataclasses.replace(settings, overwrite=True))
    assert len(json.loads((out / "scores.json").read_text())) == 2
    assert not list(out.glob("instances-k1000*"))


def test_the_same_files_elsewhere_are_the_same_test_set(make_rows: Rows, tmp_path: Path) -> None:
    rows = make_rows(2)
    (tmp_path / "moved").mkdir()
    moved = [
        dataclasses.replace(row, audio=str(Path(row.audio).rename(tmp_path / "moved" / Path(row.audio).name))) for row in rows
    ]
    here = evaluate(fake(), moved, config(None)).scores[0]["test_set"]
    for row, was in zip(rows, moved, strict=True):
        Path(was.audio).rename(row.audio)
    assert evaluate(fake(), rows, config(None)).scores[0]["test_set"] == here


@pytest.mark.parametrize("change", ["audio", "start"])
def test_other_audio_under_the_same_names_is_another_test_set(
    make_rows: Rows, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    rows, out = [dataclasses.replace(row, duration_s=1.5) for row in make_rows(2)], tmp_path / "out"
    evaluate(fake(), rows, config(out))
    if change == "audio":
        soundfile.write(rows[1].audio, noise(2.3, seed=9), 16_000)
    else:
        rows[1] = dataclasses.replace(rows[1], start_s=0.5)
    with pytest.raises(EvaluationError, match=r"another evaluation \(audio:\w+ where this one has audio:\w+\).*--overwrite"):
        evaluate(fake(), rows, config(out))
    # earlier versions did not record the audio
    scores = json.loads((out / "scores.json").read_text())
    (out / "scores.json").write_text(json.dumps([{k: v for k, v in score.items() if k != "audio"} for score in scores]))
    lalm = fake()
    with caplog.at_level("INFO", logger="simulsa"):
        evaluate(lalm, rows, config(out))
    assert lalm.calls == []
    assert f"evaluate: {out} is already complete" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="has no fcntl")
def test_a_folder_in_which_another_process_works_is_refused(make_rows: Rows, tmp_path: Path) -> None:
    rows, out = make_rows(2), tmp_path / "out"
    evaluate(fake(), rows, config(out))
    with (
        written_elsewhere(out),
        pytest.raises(EvaluationError, match=r"out: another process is evaluating into it.*another --out"),
    ):
        evaluate(fake(), rows, config(out, rollback=(5,)))
    assert evaluate(fake(), rows, config(out, rollback=(5,))).scores


def test_no_usable_row_is_an_error(make_rows: Rows) -> None:
    rows = make_rows(2)
    for row in rows:
        Path(row.audio).unlink()
    with pytest.raises(EvaluationError, match="none of the 2 rows has usable audio; see the warnings above"):
        evaluate(fake(), rows, config(None, batch_size=1, on_error="skip"))


def test_a_failed_preflight_overwrites_nothing(make_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, out = make_rows(2), tmp_path / "out"
    evaluate(fake(), rows, config(out))
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fails(*_: object) -> None:
        raise LALMError("deaf")

    monkeypatch.setattr(module, "preflight", fails)
    with pytest.raises(LALMError, match="deaf"):
        evaluate(fake(), rows, config(out, preflight=True, overwrite=True))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_skipped_rows_are_counted(make_rows: Rows) -> None:
    rows = make_rows(3)
    Path(rows[1].audio).unlink()
    with pytest.raises(EvaluationError, match=r"row 'row-1'.*no such audio file"):
        evaluate(fake(), rows, config(None))
    score = evaluate(fake(), rows, config(None, on_error="skip")).scores[0]
    assert (score["utterances"], score["skipped"]) == (2, 1)


def test_test_sets_that_cannot_be_scored(make_rows: Rows) -> None:
    one, two = make_rows(2)
    with pytest.raises(EvaluationError, match=r"de, fr.*one manifest per target language"):
        evaluate(fake(), [one, dataclasses.replace(two, target_lang="fr")], config(None))
    with pytest.raises(EvaluationError, match="row 'row-1': target_text is empty"):
        evaluate(fake(), [one, dataclasses.replace(two, target_text=" ")], config(None))
    with pytest.raises(EvaluationError, match="no rows"):
        evaluate(fake(), [], config(None))


def test_the_preflight_comes_first_and_only_when_there_is_work(
    make_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    monkeypatch.setattr(module, "preflight", lambda lalm, direction: checked.append(direction))
    for _ in range(2):
        evaluate(fake(), make_rows(2), config(tmp_path / "out", preflight=True))
    assert checked == [Direction("en", "de")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"chunk_ms": (10,)}, "chunk_ms is 10.0; it must be at least 40"),
        ({"chunk_ms": ()}, "at least one value"),
        ({"chunk_ms": 500}, "at least one value"),
        ({"rollback": (-1,)}, "rollback is -1"),
        ({"rollback": (1.5,)}, "rollback is 1.5; it must be a number of tokens"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"policy": "eos"}, "policy is 'eos'; it must be a list"),
        ({"policy": ("eos",)}, r"policy is 'eos'; it must be a policy, such as"),
        ({"policy": (Rollback(3),), "rollback": (0, 5)}, "rollback is 0 5 and policy is rollback:3; give one of them"),
        ({"on_error": "stop"}, "on_error is 'stop'; it must be one of fail, skip"),
    ],
)
def test_settings_are_checked(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(**values)


def test_yaml_and_flags_may_write_policies() -> None:
    settings = from_mapping(EvaluateConfig, {"policy": ["eos", "wait-k:2"]}, "x.yaml")
    assert [str(policy) for policy in settings.policy] == ["eos", "wait-k:2,1"]
    with pytest.raises(SettingsError, match=r"^x.yaml: policy is 'wait'; there is no 'wait', did you mean 'wait-k'"):
        from_mapping(EvaluateConfig, {"policy": ["eos", "wait"]}, "x.yaml")


def test_yaml_may_write_inf() -> None:
    settings = from_mapping(EvaluateConfig, {"chunk-ms": [500, "inf"], "rollback": [0], "out": "here"}, "x.yaml")
    assert settings.grid == [(500.0, Rollback(0)), (math.inf, Rollback(0))]
    assert settings.out == Path("here")


def test_compare_puts_evaluations_side_by_side(make_rows: Rows, tmp_path: Path) -> None:
    rows = make_rows(3)
    evaluate(fake(), rows, config(tmp_path / "a" / "run"))
    evaluate(FakeLALM(growing_script(TEXT, 8000), signature="slow"), rows, config(tmp_path / "b" / "run"))
    table = compare([tmp_path / "a" / "run", tmp_path / "b" / "run"], tmp_path / "both")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert lines[0] == ["b", "model", "k = 500 ms", "offline"]
    assert [line[:2] for line in lines[2:]] == [["0", "a/run"], ["0", "b/run"], ["3", "a/run"], ["3", "b/run"]]
    assert (tmp_path / "both" / "table.md").read_text() == table
    assert (tmp_path / "both" / "quality-latency.png").stat().st_size > 10_000
    with pytest.raises(EvaluationError, match="given twice"):
        compare([tmp_path / "a" / "run", tmp_path / "a" / ".." / "a" / "run"])
    evaluate(fake(), rows[:2], config(tmp_path / "c"))
    with pytest.raises(EvaluationError, match=r"'c' was measured on another test set .*2 utterances.* than 'run'"):
        compare([tmp_path / "a" / "run", tmp_path / "c"])
    with pytest.raises(EvaluationError, match=r"scores\.json: not found"):
        compare([tmp_path / "nowhere"])
    (tmp_path / "c" / "scores.json").write_text('[{"chunk_ms": 500}]')
    with pytest.raises(EvaluationError, match="not a list of scores"):
        compare([tmp_path / "c"])


def test_compare_refuses_other_audio_under_the_same_names(make_rows: Rows, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("old", "one", "other")]
    for folder in folders:
        rows = make_rows(2)
        if folder.name == "other":
            soundfile.write(rows[1].audio, noise(2.3, seed=7), 16_000)
        evaluate(fake(), rows, config(folder))
    scores = json.loads((folders[0] / "scores.json").read_text())
    (folders[0] / "scores.json").write_text(json.dumps([{**score, "audio": None} for score in scores]))
    compare(folders[:2])  # earlier versions did not record the audio
    with pytest.raises(EvaluationError, match=r"'other' was measured on other audio \(\w+\) than 'one' \(\w+\).*same audio"):
        compare(folders)


def worse(text: str, every: int) -> str:
    """`text` with every so many words exchanged."""
    return " ".join("falsch" if i % every == 0 else word for i, word in enumerate(text.split(), start=1))


def test_compare_marks_the_front_and_what_is_significant(
    make_rows: Rows, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [dataclasses.replace(row, target_text=TEXT) for row in make_rows(40)]
    grid = {"chunk_ms": (500, math.inf), "rollback": (0,)}
    good, bad, same = (tmp_path / name for name in ("good", "bad", "same"))
    evaluate(FakeLALM(growing_script(TEXT, 2_000)), rows, config(good, **grid))
    evaluate(FakeLALM(growing_script(worse(TEXT, 3), 2_000)), rows, config(bad, **grid))
    evaluate(FakeLALM(growing_script(TEXT, 2_000)), rows, config(same, **grid))
    lines = compare([good, bad, same], tmp_path / "out", baseline=tmp_path / "bad").splitlines()
    assert [line.count("**") for line in lines[2:5]] == [2, 0, 2], "offline is on no front"
    assert [line.count("▲") for line in lines[2:5]] == [2, 0, 2]
    assert "▲ ▼: better, worse than bad with p < 0.05 (paired bootstrap, 1000 samples)" in lines
    assert [line.split(", ")[-3:] for line in lines if line.startswith("- ")] == [
        ["good", "b = 0", "k = 500 ms"], ["same", "b = 0", "k = 500 ms"],
    ]  # fmt: skip
    assert "▼" in compare([good, bad], baseline=good).splitlines()[3]
    assert "▲" not in "".join(compare([good, same], baseline=good).splitlines()[:4]), "equal translations do not differ"
    (good / "instances-k500-b0.log").unlink()
    assert "▲" not in compare([good, bad], baseline=bad).splitlines()[2].split("|")[3]
    assert "1 of 2 settings are not tested for significance" in caplog.text
    with pytest.raises(EvaluationError, match="baseline is 'nowhere'; it must be one of the folders"):
        compare([good, bad], baseline="nowhere")


def test_significance_takes_the_tokenizer_of_the_scores(make_rows: Rows, tmp_path: Path) -> None:
    pytest.importorskip("MeCab", reason="needs simulsa[ja]")
    said = "赤い シャツ を 着た 男の人 が 自転車 に 乗って います"
    rows = [dataclasses.replace(row, target_lang="ja", target_text=said) for row in make_rows(40)]
    for name, text in (("good", said), ("bad", worse(said, 3))):
        evaluate(FakeLALM(growing_script(text, 2_000)), rows, config(tmp_path / name, chunk_ms=(500,), rollback=(0,)))
    assert "tok:ja-mecab-" in json.loads((tmp_path / "good" / "scores.json").read_text())[0]["bleu_signature"]
    assert "▼" in compare([tmp_path / "good", tmp_path / "bad"], baseline=tmp_path / "good").splitlines()[3]


def test_compare_by_command(make_rows: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        evaluate(fake(), make_rows(2), config(tmp_path / name))
    both = [str(tmp_path / name) for name in ("a", "b")]
    assert main(["compare", *both, "--baseline", both[0], "--out", str(tmp_path / "out")]) == 0
    assert "offline" in capsys.readouterr().out
    assert "better, worse than a" in (tmp_path / "out" / "table.md").read_text()
    assert main(["compare", both[0], "--baseline", both[1]]) == 1
    assert "baseline is" in capsys.readouterr().err


def test_the_front_is_what_nothing_beats() -> None:
    own = [score(500, 0, 10, 500), score(1000, 0, 12, 900), score(1500, 0, 11, 1000), score("inf", 0, 40, 3000)]
    other = [score(500, 0, 9, 500), score(1000, 0, 12, 900), score(1500, 0, 12, 950), score(2000, 0, 15, None)]
    front = pareto_front({"own": own, "other": other})
    assert [(name, chunk_ms) for name, _, chunk_ms in front] == [("own", 500), ("own", 1000), ("other", 1000)]
    assert pareto_front({"own": own}, "yaal_ms") == {}


def test_scores_from_before_the_number_format_was_recorded(make_rows: Rows, tmp_path: Path) -> None:
    evaluate(fake("fake@0"), make_rows(2), config(tmp_path / "out"))
    with pytest.raises(EvaluationError, match=r"before a model's number format was recorded.*fake@0\+float32.*--overwrite"):
        evaluate(fake("fake@0+float32"), make_rows(2), config(tmp_path / "out"))
    with pytest.raises(EvaluationError, match=r"holds another evaluation \(model:fake@0 where"):
        evaluate(fake("fake@1+float32"), make_rows(2), config(tmp_path / "out"))


def test_policies_beside_rollback(make_rows: Rows, tmp_path: Path) -> None:
    rows, out = make_rows(3), tmp_path / "out"
    texts = ("rollback:3", "wait-k:2", "alignatt:4,1", "alignatt:16", "local-agreement:2", "eos")
    policies = tuple(map(Policy.parse, texts))
    result = evaluate(fake(), rows, config(out, policy=policies))
    finite = [score for score in result.scores if score["chunk_ms"] == 500]
    assert [(score["policy"], score["rollback"]) for score in finite] == [
        ("rollback:3", 3), ("wait-k:2,1", None), ("alignatt:4,1", None), ("alignatt:16", None), ("local-agreement:2", None),
        ("eos", None),
    ]  # fmt: skip
    assert {path.name for path in out.glob("*.log")} == {
        "instances-inf-b0.log", "instances-k500-b3.log", "instances-k500-wait-k-2-1.log", "instances-k500-alignatt-4-1.log",
        "instances-k500-alignatt-16.log", "instances-k500-local-agreement-2.log", "instances-k500-eos.log",
    }  # fmt: skip
    saved = json.loads((out / "scores.json").read_text())
    assert [score["policy"] for score in saved if score["chunk_ms"] == 500] == [
        "rollback:3", "alignatt:4,1", "alignatt:16", "eos", "local-agreement:2", "wait-k:2,1",
    ]  # fmt: skip
    assert finite[1]["signature"].endswith("|k:500|policy:wait-k:2,1")
    assert finite[0]["signature"].endswith("|k:500|policy:rollback:3")
    assert {score["signature"].rpartition("|k:")[2] for score in saved if score["chunk_ms"] == "inf"} == {"inf|policy:any"}
    table = (out / "table.md").read_text()
    assert table.startswith("| policy | k = 500 ms | offline |")
    assert "| alignatt:16 |" in table
    lalm = fake()
    evaluate(lalm, rows, config(out, policy=(*policies, Policy.parse("wait-k:2,1"))))
    assert lalm.calls == [], "all is there"
    evaluate(lalm, rows, config(out, policy=policies, overwrite=True, chunk_ms=(1000,)))
    assert not list(out.glob("instances-k500*"))


def test_a_rollback_is_the_policy_of_that_name(make_rows: Rows, tmp_path: Path) -> None:
    rows = make_rows(3)
    one = evaluate(fake(), rows, config(tmp_path / "one", rollback=(3,)))
    other = evaluate(fake(), rows, config(tmp_path / "other", policy=(Rollback(3),)))
    assert one.scores == other.scores
    for name in ("scores.json", "table.md", "instances-k500-b3.log"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def score(chunk_ms: float | str, rollback: int, bleu: float, laal_ms: float | None) -> dict:
    return {"chunk_ms": chunk_ms, "rollback": rollback, "bleu": bleu, "laal_ms": laal_ms}


def test_tables_sort_settings_and_leave_gaps() -> None:
    scores = [score("inf", 0, 30, 4000), score(500, 0, 10.04, 1234), score(500, 3, 20, None)]
    lines = markdown_table(scores).splitlines()
    assert lines[0] == "| b | k = 500 ms | offline |"
    assert lines[2] == "| 0 | 10.0 @ 1.23 | 30.0 @ 4.00 |"
    assert lines[3] == "| 3 | 20.0 @ – |  |"
    assert "| a\\|b |" in comparison_table({"a|b": scores})


def test_plots_survive_settings_without_latency(tmp_path: Path) -> None:
    scores = [score("inf", 0, 30, 4000), score(500, 0, 10, 1200), score(1000, 0, 15, 1700), score(500, 3, 0, None)]
    plot_quality_latency({"one": scores, "two": scores}, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().rstrip().endswith("</svg>")
    plot_quality_latency({"silent": [score(500, 0, 0, None)]}, tmp_path / "plot.png", ("laal_ms", "yaal_ms"), front=True)


def test_a_plot_of_many_policies_names_each_kind_once(tmp_path: Path) -> None:
    scores = [{**score(500, 0, 10 + b, 1000 + b), "rollback": b} for b in range(6)]
    scores += [{**score(500, 0, 9, 900), "rollback": None, "policy": text} for text in ("eos", "wait-k:1,1", "wait-k:2,1")]
    plot_quality_latency({"one": scores, "two": scores}, tmp_path / "plot.svg", front=True)
    drawn = (tmp_path / "plot.svg").read_text()
    for label in ("one, rollback", "two, wait-k", "two, eos", "best at its latency"):
        assert drawn.count(f"<!-- {label} -->") == 1


@pytest.mark.parametrize(("batch_size", "calls"), [(1, 1), (2, 0)])
def test_a_model_is_warmed_up_before_its_computing_time_is_measured(make_rows: Rows, batch_size: int, calls: int) -> None:
    lalm, asked = fake(), []
    lalm.warm_up = lambda *given: asked.append(given)  # type: ignore[method-assign]
    rows = make_rows(3)
    evaluate(lalm, rows, config(None, batch_size=batch_size))
    assert asked == [(Direction("en", "de"), 1, max(row.length_samples() for row in rows))] * calls


def test_the_batch_follows_the_device_unless_it_is_given() -> None:
    lalm = fake()
    assert EvaluateConfig().rows_together(lalm) == 16
    lalm.device = torch.device("cuda")
    assert [EvaluateConfig(**given).rows_together(lalm) for given in ({}, {"batch_size": 3})] == [32, 3]
    with pytest.raises(ValueError, match="batch_size is 0; it must be a whole number, 1 or more"):
        EvaluateConfig(batch_size=0)
