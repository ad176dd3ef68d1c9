"""The recipe that measures policies: its tables, on scripted models."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recipes.experiments.document import filled
from recipes.policies.alignment import monotonicity
from recipes.policies.run import MODELS, POLICIES, budget_table, write_results
from simulsa.evaluation.config import EvaluateConfig
from simulsa.evaluation.evaluate import evaluate
from simulsa.manifest import Utterance
from simulsa.streaming.policies import Policy, parse_policy
from simulsa.testing import FakeLALM, growing_script

TEXT = "Ein Mann in einem roten Hemd fährt Fahrrad und noch viel mehr"

CHOSEN = (Policy.parse("eos"), Policy.parse("wait-k:1,1"))


@pytest.fixture
def folders(make_rows: Callable[..., list[Utterance]], tmp_path: Path) -> list[Path]:
    """Two evaluations: the second model hears twice as fast."""
    rows = make_rows(3)
    for name, samples_per_word in zip(MODELS, (4_000, 2_000), strict=True):
        config = EvaluateConfig((500, 1000, math.inf), policy=CHOSEN, out=tmp_path / name, preflight=False)
        evaluate(FakeLALM(growing_script(TEXT, samples_per_word)), rows, config)
    return [tmp_path / name for name in MODELS]


def test_all_results_are_written(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_results(folders, out)
    assert {path.name for path in out.iterdir()} == {"policies.csv", "table.md", "quality-latency.png", "budgets.md"}
    with open(out / "policies.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 2 * 3
    assert {(line["policy"], line["chunk_ms"]) for line in lines} == {
        (policy, chunk) for policy in ("eos", "wait-k:1,1") for chunk in ("500", "1000", "inf")
    }
    assert {line["front"] for line in lines if line["chunk_ms"] == "inf"} == {"0"}
    assert "1" in {line["front"] for line in lines}
    assert "better, worse than tiny-en-de with" in (out / "table.md").read_text(encoding="utf-8")
    assert filled("<!-- from out/budgets.md -->\n<!-- end -->", tmp_path).count("\n") == 2 + 7 + 1


def test_the_best_of_each_model_by_latency(folders: list[Path]) -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in budget_table(*folders).splitlines()]
    assert lines[0] == ["LAAL at most", "tiny-en-de", "tiny-en-de-simul, eos", "tiny-en-de-simul", "p"]
    last = lines[-1]
    assert last[0] == "2.50 s"
    assert "(eos, k = " in last[2]
    assert float(last[4]) <= 1
    best = [float(cell.split()[0]) for cell in last[1:4]]
    assert best[2] >= best[1]


def test_every_policy_of_the_recipe_exists() -> None:
    assert len({parse_policy(text) for text in POLICIES}) == len(POLICIES)


def test_monotonicity() -> None:
    diagonal = np.eye(5, dtype=np.float32)
    assert monotonicity(diagonal) == pytest.approx(1)
    assert monotonicity(diagonal[::-1]) == pytest.approx(-1)
    assert monotonicity(diagonal[[0, 0, 1, 1]]) == pytest.approx(0.894, abs=1e-3)
    assert monotonicity(diagonal[[2, 2, 2]]) == 0
