"""Published numbers of the bundled models, measured again."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.experiments.document import DocumentConfig, filled
from recipes.experiments.records import read_records
from recipes.experiments.subset import CHUNKS_MS, MODELS, SENTENCES, measured

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("model", MODELS)
def test_the_bundled_models_reproduce_what_is_published(model: str) -> None:
    published = [record for record in read_records(ROOT / "docs" / "results" / "subset.csv") if record.system == model]
    assert [record.chunk_ms for record in published] == list(CHUNKS_MS)
    for before, now in zip(published, measured(model), strict=True):
        # processors round differently, which moves a few words
        assert now.bleu == pytest.approx(before.bleu, abs=1.0)
        assert now.laal_ms == pytest.approx(before.laal_ms, abs=60)
        assert now.utterances == before.utterances == SENTENCES


@pytest.mark.parametrize("page", DocumentConfig().documents, ids=str)
def test_documents_show_what_was_measured(page: Path) -> None:
    """If not: `python -m recipes.experiments.document`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text == filled(text, ROOT / DocumentConfig().results)
