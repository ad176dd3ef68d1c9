"""Published numbers: two cells of the table, measured again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recipes.tiny.experiments.corpus import TEST, unseen_rows
from recipes.tiny.experiments.records import read_records
from recipes.tiny.table import SUBSET
from simulsa.evaluation.evaluate import EvaluateConfig, evaluate
from simulsa.lalm.load import load

ROOT = Path(__file__).parents[1]
MULTI30K = Path(os.environ.get("SIMULSA_MULTI30K", ROOT.parent / "shared" / "data" / "multi30k"))


@pytest.mark.skipif(not MULTI30K.exists(), reason=f"needs captions in {MULTI30K} (or SIMULSA_MULTI30K)")
@pytest.mark.parametrize("model", ["tiny-en-de", "tiny-en-de-simul"])
def test_the_bundled_models_reproduce_a_cell_of_the_table(model: str, tmp_path: Path) -> None:
    published = read_records(ROOT / "docs" / "results" / "subset.csv")[model == "tiny-en-de-simul"]
    rows = unseen_rows(MULTI30K, tmp_path, TEST, SUBSET)
    config = EvaluateConfig((published.chunk_ms,), (published.rollback,), tmp_path / "scores", 48, preflight=False)
    [score] = evaluate(load(model, device="cpu"), rows, config).scores
    # the synthesiser is not repeatable to the sample, which moves a few words
    assert score["bleu"] == pytest.approx(published.bleu, abs=1.0)
    assert score["laal_ms"] == pytest.approx(published.laal_ms, abs=60)
    assert score["utterances"] == published.utterances == SUBSET
