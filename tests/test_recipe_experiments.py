"""The experiments in miniature: table, ablations and error analysis on a few captions, and what is done again and what not."""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recipes.base.synthesis import Synthesisers, trimmed
from recipes.base.voices import Speaker
from recipes.experiments import ablations, ideas, systems
from recipes.experiments.corpus import TEST
from recipes.experiments.errors import ErrorsConfig, analyse, frozen, invented, premature_stop, repeated
from recipes.experiments.ideas import IdeasConfig
from recipes.experiments.lab import rebuilding
from recipes.experiments.records import read_records
from recipes.experiments.study import StudyConfig
from recipes.experiments.systems import BASE, MANY, SFT, SIMULSA, with_references
from recipes.experiments.table import TableConfig, make_table
from recipes.experiments.workers import LabConfig
from simulsa.corpora.synthesis import synthesizer
from simulsa.evaluation.evaluate import EvaluationError
from simulsa.evaluation.instances import Instance
from simulsa.evaluation.significance import p_value
from tests.conftest import CAPTIONS

PAIRS = [pair for pair in CAPTIONS for _ in range(3)][:12]
MANY_40 = with_references(0.4)


def by_espeak(_self: Synthesisers, text: str, _speaker: Speaker, _rng: np.random.Generator) -> np.ndarray:
    """What the natural voices say here: their weights are no part of the development tools."""
    return trimmed(synthesizer().speak(text), "eSpeak NG")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabConfig]:
    data = tmp_path_factory.mktemp("captions")
    for split in ("train", "val", "test_2016_flickr"):
        for lang, column in (("en", 0), ("de", 1)):
            with gzip.open(data / f"{split}.{lang}.gz", "wt", encoding="utf-8") as file:
                file.writelines(pair[column] + "\n" for pair in PAIRS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Synthesisers, "speak", by_espeak)
        yield LabConfig(data, work=data / "work", model="tiny-en-de", known_captions=6, test_limit=4, jobs=1)


def table(lab: LabConfig, out: Path, *seeds: int) -> TableConfig:
    return TableConfig(lab, out, seeds, (TEST,), (500.0, math.inf), ("rollback:0", "rollback:3"), many_shares=(0.4,))


def results(work: Path) -> dict[Path, int]:
    """Adapters and instance logs, and when each was written."""
    return {path: path.stat().st_mtime_ns for name in ("adapter_model.safetensors", "*.log") for path in work.glob(f"*/*/{name}")}


def test_the_table_is_made_once_and_a_new_seed_adds_its_part(lab: LabConfig, tmp_path: Path) -> None:
    records = make_table(table(lab, tmp_path, 0))
    assert {record.system for record in records} == {BASE.name, SFT.name, SIMULSA.name, MANY_40.name}
    assert len(records) == 4 * 2 * 2
    assert read_records(tmp_path / "table.csv") == records
    assert all((record.p_value is None) == (record.system in (BASE.name, SFT.name)) for record in records)
    text = (tmp_path / f"table-{TEST}.md").read_text(encoding="utf-8")
    assert f"| b = 3 | {SFT.name} |" in text
    assert "k = ∞" in text
    summary = (tmp_path / f"summary-{TEST}.md").read_text(encoding="utf-8")
    assert len(summary.splitlines()) == 2 + 4
    assert summary.count("%)") == 4
    budgets = (tmp_path / f"budgets-{TEST}.md").read_text(encoding="utf-8")
    assert budgets.startswith("| LAAL at most | 0.30 s | 0.50 s |")
    scores, *differences = budgets.split("<details>")
    assert [scores.count(f"| {name} |") for name in (BASE.name, SFT.name, SIMULSA.name, MANY_40.name)] == [1] * 4
    assert [baseline in title for baseline, title in zip((BASE.name, SFT.name), differences, strict=True)] == [True] * 2
    for text in differences:
        assert [text.count(f"| {name} |") for name in (BASE.name, SFT.name, SIMULSA.name, MANY_40.name)] == [0, 0, 1, 1]
    for picture in ("table", "front"):
        assert (tmp_path / f"{picture}-{TEST}.png").read_bytes().startswith(b"\x89PNG")
    before = results(lab.work)
    again = make_table(table(lab, tmp_path, 0, 1))
    after = results(lab.work)
    assert before.items() <= after.items()
    adapters = [sum(path.suffix == ".safetensors" for path in found) for found in (before, after)]
    assert adapters[1] == adapters[0] + 3  # all systems but the base
    assert len(after) == len(before) + 4 * 3  # an adapter and three logs, one of them offline
    assert [record for record in again if record.seed == 0] == records
    *_, with_two_seeds = (tmp_path / f"budgets-{TEST}.md").read_text(encoding="utf-8").split("<details>")
    assert re.search(r"\| [+-]\d+\.\d \(\d\.\d{3}\), [+-]\d+\.\d \(\d\.\d{3}\) \|", with_two_seeds)
    # a broken entry is built again
    broken = next((lab.work / "scores").glob("*/scores.json"))
    broken.write_text("[{", encoding="utf-8")
    assert make_table(table(lab, tmp_path, 0, 1)) == again


def test_ablations_ideas_and_errors(lab: LabConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablations, "SHARES", (0.05, 0.1))
    monkeypatch.setattr(ablations, "TRUNCATIONS", ("beta-decay", "uniform"))
    monkeypatch.setattr(ablations, "TAUS", {"probability": (0.1, 0.3), "rank": (0.025,)})
    monkeypatch.setattr(ablations, "REPEATS", 2)
    monkeypatch.setattr(ideas, "CHUNKS_MS", (500.0, math.inf))
    monkeypatch.setattr(ideas, "POLICIES", ("rollback:0", "eos"))
    monkeypatch.setattr(ideas, "ideas", lambda: [systems.varied("… fewer rows", 0.2, MANY)])
    records = ablations.run_ablations(StudyConfig(lab, tmp_path))
    assert len({record.system for record in records}) == 1 + 2 + 12 + 2 + 3
    records = ideas.run_ideas(IdeasConfig(lab, tmp_path))
    assert {(record.system, record.policy, record.chunk_ms) for record in records} == {
        (system, *setting)
        for system in (BASE.name, SFT.name, "… fewer rows")
        for setting in ((policy, chunk_ms) for policy in ("rollback:0", "eos") for chunk_ms in (500.0, math.inf))
    }
    assert "| eos | … fewer rows |" in (tmp_path / "ideas.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("ablation-amount.md", "ablation-amount.png", "ablation-criterion-k500.png", "ablation-criterion-offline.png"),
        *(
            "ablation-criterion.md",
            "ablation-repetition.md",
            "ablation-truncation.md",
            "ablation-truncation.png",
            "ablations.csv",
        ),
        *("ideas.csv", "ideas.md", "ideas.png"),
    ]
    report = analyse(ErrorsConfig(lab, tmp_path, sentences=3))
    assert report.startswith("| of 3 sentences | Base |")
    assert report == (tmp_path / "errors.md").read_text(encoding="utf-8")


def test_the_command_refuses_a_missing_corpus(lab: LabConfig, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--data must be the folder"):
        make_table(TableConfig(replace(lab, data=tmp_path, work=tmp_path)))


def test_only_what_is_broken_is_built_again(tmp_path: Path) -> None:
    calls = []

    def make(overwrite: bool) -> str:
        calls.append(overwrite)
        if not overwrite:
            raise EvaluationError("broken")
        return "made"

    with pytest.raises(EvaluationError):
        rebuilding(tmp_path / "new", make)
    (tmp_path / "old").mkdir()
    assert rebuilding(tmp_path / "old", make) == "made"
    assert calls == [False, False, True]


def instance(prediction: str, delays_ms: list[float], reference: str = "ein mann geht am fluss entlang .") -> Instance:
    return Instance("a", 0, prediction, reference, "a.wav", 4000.0, tuple(delays_ms), None, 1)


def test_faults() -> None:
    assert premature_stop(instance("ein Mann.", [500, 500]))
    assert not premature_stop(instance("ein Mann.", [500, 3500]))
    assert frozen(instance("ein Mann.", [500, 500]))
    assert not frozen(instance("ein Mann geht am Fluss", [500] * 5))
    assert invented(instance("ein Hund spielt mit einem roten Ball im Schnee", [500] * 9))
    assert not invented(instance("ein Mann geht am Fluss entlang .", [500] * 7))
    assert not invented(instance("ein Hund spielt mit einem roten Ball im Schnee", [3000] * 9))
    assert repeated(instance("ein Mann Mann geht", [500] * 4))
    assert repeated(instance("ein Mann ein Mann geht", [500] * 5))
    assert not repeated(instance("sehr sehr gut", [500] * 3, "sehr sehr gut"))


def test_a_clear_difference_is_significant_and_none_is_not() -> None:
    good = [instance("ein mann geht am fluss entlang .", [500] * 7)] * 40
    bad = [instance("ein hund geht am see herum .", [500] * 7)] * 40
    assert p_value(bad, good) < 0.05
    assert p_value(good, good) > 0.5
    with pytest.raises(ValueError, match="different utterances"):
        p_value([instance("a", [1], "b")], [instance("a", [1], "c")])


def test_a_varied_system_has_the_settings_asked_for() -> None:
    assert systems.varied("x", whole_words=True).augmentation == replace(systems.CUTTING, whole_words=True)
