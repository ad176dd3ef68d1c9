"""The account of what augmentation kept."""

from pathlib import Path

import pytest

from simulsa.augmentation.summary import AugmentSummary, CutBin
from simulsa.manifest import Utterance


def row(cut_ms: int, kept: int, total: int) -> Utterance:
    made_by = {"cut_samples": cut_ms * 16, "kept_tokens": kept, "total_tokens": total}
    return Utterance(f"r{cut_ms}", "r.wav", "en", "de", "x" * kept, parent_id="r", made_by=made_by)


ROWS = [row(500, 0, 10), row(999, 2, 10), row(2000, 8, 8), row(2100, 3, 12)]


def test_tokens_are_counted_by_cut_length() -> None:
    summary = AugmentSummary.of(ROWS)
    assert summary.bins == (CutBin(500, 2, 2, 20), CutBin(1000, 0, 0, 0), CutBin(1500, 0, 0, 0), CutBin(2000, 2, 11, 20))
    assert (summary.empty_rows, summary.whole_rows) == (1, 1)
    assert summary.total == CutBin(500, 4, 13, 40)
    assert summary.bins[0].kept_share == 0.1
    assert summary.bins[1].kept_share == 0.0


def test_the_table_has_a_line_per_bin_and_one_for_all() -> None:
    lines = [line.split() for line in AugmentSummary.of(ROWS).table().splitlines()]
    assert lines[1] == ["0.5–1.0", "2", "2", "20", "10%"]
    assert lines[4] == ["2.0–2.5", "2", "11", "20", "55%"]
    assert lines[5] == ["all", "4", "13", "40", "32%"]
    assert lines[6][:5] == ["1", "rows", "kept", "no", "token,"]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]])
def test_the_plot_is_a_picture(rows: list[Utterance], tmp_path: Path) -> None:
    AugmentSummary.of(rows).plot(tmp_path / "cuts.png")
    assert (tmp_path / "cuts.png").read_bytes().startswith(b"\x89PNG")


def test_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="'a' does not say its cut_samples"):
        AugmentSummary.of([Utterance("a", "a.wav", "en", "de", "x")])
    with pytest.raises(ValueError, match="no augmented rows"):
        AugmentSummary.of([])
