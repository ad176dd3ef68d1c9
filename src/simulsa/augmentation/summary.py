"""Summary of an augmentation: how much of the translations was kept, by the length of the truncated audio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simulsa.audio import ms_to_samples
from simulsa.files import atomic_write
from simulsa.manifest import Utterance

BIN_MS = 500


@dataclass(frozen=True)
class CutBin:
    """The rows whose cut audio lasts from `start_ms` to just below `start_ms + BIN_MS`, and their target tokens."""

    start_ms: int
    rows: int
    kept_tokens: int
    total_tokens: int

    @property
    def kept_share(self) -> float:
        """Kept of all target tokens, 0 to 1."""
        return self.kept_tokens / self.total_tokens if self.total_tokens else 0.0


@dataclass(frozen=True)
class AugmentSummary:
    """Bins by cut length, without gaps from first to last, and counts of the rows that kept nothing or everything."""

    bins: tuple[CutBin, ...]
    empty_rows: int
    whole_rows: int

    @classmethod
    def of(cls, rows: Sequence[Utterance]) -> AugmentSummary:
        """Sum up augmented rows. Raises `ValueError` when one was not made by `augment` or there are none."""
        facts = [_facts(row) for row in rows]
        if not facts:
            raise ValueError("no augmented rows to summarise; run augment first")
        numbers = [cut // ms_to_samples(BIN_MS) for cut, _, _ in facts]
        bins = []
        for number in range(min(numbers), max(numbers) + 1):
            inside = [fact for fact, own in zip(facts, numbers, strict=True) if own == number]
            bins.append(CutBin(number * BIN_MS, len(inside), sum(kept for _, kept, _ in inside), sum(n for *_, n in inside)))
        empty = sum(kept == 0 for _, kept, _ in facts)
        whole = sum(kept == total > 0 for _, kept, total in facts)
        return cls(tuple(bins), empty, whole)

    @property
    def total(self) -> CutBin:
        """All rows together."""
        return CutBin(
            self.bins[0].start_ms,
            sum(part.rows for part in self.bins),
            sum(part.kept_tokens for part in self.bins),
            sum(part.total_tokens for part in self.bins),
        )

    def table(self) -> str:
        """Plain text: a line per bin, then all rows."""
        lines = [f"{'cut (s)':<11}{'rows':>7}{'kept':>9}{'of tokens':>11}{'share':>8}"]
        lines += [_line(f"{part.start_ms / 1000:.1f}–{(part.start_ms + BIN_MS) / 1000:.1f}", part) for part in self.bins]
        lines += [_line("all", self.total), f"{self.empty_rows} rows kept no token, {self.whole_rows} kept the whole translation"]
        return "\n".join(lines)

    def plot(self, path: Path) -> None:
        """Draw cut lengths as a histogram and the kept share as a line (PNG)."""
        from matplotlib.figure import Figure  # not pyplot: no global state, no display
        from matplotlib.ticker import PercentFormatter

        centres = [(part.start_ms + BIN_MS / 2) / 1000 for part in self.bins]
        figure = Figure(figsize=(7, 4), layout="constrained")
        rows = figure.subplots()
        rows.bar(centres, [part.rows for part in self.bins], width=0.92 * BIN_MS / 1000, color="#9db8d9", label="rows")
        rows.set(
            xlabel="audio kept (s)", ylabel="rows", title=f"{self.total.rows} cuts, {self.total.kept_share:.0%} of tokens kept"
        )
        share = rows.twinx()
        filled = [(centre, part.kept_share) for centre, part in zip(centres, self.bins, strict=True) if part.rows]
        share.plot(*zip(*filled, strict=True), color="#b3402a", marker="o", label="kept tokens")
        share.set(ylabel="kept target tokens", ylim=(0, 1.05))
        share.yaxis.set_major_formatter(PercentFormatter(1))
        rows.spines["top"].set_visible(False)
        share.spines["top"].set_visible(False)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        with atomic_write(path, "wb") as file:
            figure.savefig(file, format="png", dpi=150)


def _facts(row: Utterance) -> tuple[int, int, int]:
    """Cut length in samples, kept and total target tokens."""
    made_by = row.made_by or {}
    try:
        return int(made_by["cut_samples"]), int(made_by["kept_tokens"]), int(made_by["total_tokens"])
    except KeyError as error:
        raise ValueError(f"row {row.id!r} does not say its {error.args[0]}; only rows made by augment can be summed up") from None


def _line(name: str, part: CutBin) -> str:
    return f"{name:<11}{part.rows:>7}{part.kept_tokens:>9}{part.total_tokens:>11}{part.kept_share:>8.0%}"
