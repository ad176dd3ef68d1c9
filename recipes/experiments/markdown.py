"""Records as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from recipes.experiments.records import Cell, Record, cell, of_setting
from simulsa.evaluation.instances import chunk_name
from simulsa.evaluation.significance import SIGNIFICANT


def main_table(records: Sequence[Record]) -> str:
    """BLEU with its spread over the seeds, and LAAL, for each policy and system (rows) and k (columns).

    An arrow means that every seed is significantly better or worse than + SFT.
    """
    return _grid(records, _with_arrow)


def details_table(records: Sequence[Record]) -> str:
    """The other numbers of each cell: chrF, YAAL, and how many words were final before the speech ended."""
    table = _grid(records, _details)
    return f"<details><summary>chrF, YAAL in seconds, words before the end of speech</summary>\n\n{table}\n</details>\n"


def summary_table(records: Sequence[Record]) -> str:
    """The main table at b = 0, where the model alone decides, with BLEU also as a share of the same model's offline BLEU."""
    return _grid([record for record in records if record.policy == "rollback:0"], _with_share)


def policy_name(policy: str) -> str:
    """A policy's name in the tables; rollback is written as in the paper."""
    return policy.replace("rollback:", "b = ")


def _grid(records: Sequence[Record], show: Callable[[Cell, Cell | None, Cell | None], str]) -> str:
    chunks = sorted({record.chunk_ms for record in records})
    systems = list(dict.fromkeys(record.system for record in records))
    lines = [["policy", "model", *(f"k = {'∞' if math.isinf(chunk) else chunk_name(chunk)}" for chunk in chunks)]]
    for policy in dict.fromkeys(record.policy for record in records):
        for system in systems:
            cells = []
            for chunk in chunks:
                own = of_setting(records, system, chunk, policy)
                others = [of_setting(records, "+ SFT", chunk, policy), of_setting(records, system, math.inf, policy)]
                cells.append(show(cell(own), *(cell(other) if other else None for other in others)) if own else "")
            if any(cells):
                lines.append([policy_name(policy), system, *cells])
    rule = "|" + " --- |" * len(lines[0])
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([rows[0], rule, *rows[1:]]) + "\n"


def bleu_at_laal(own: Cell) -> str:
    """BLEU with its spread over the seeds, and LAAL in seconds."""
    spread = f" ± {own.spread:.1f}" if own.spread else ""
    return f"{own.bleu:.1f}{spread} @ {_seconds(own.laal_ms)}"


def _with_arrow(own: Cell, sft: Cell | None, _offline: Cell | None) -> str:
    arrow = ""
    if sft is not None and own.p_values and max(own.p_values) < SIGNIFICANT:
        arrow = " ▲" if own.bleu > sft.bleu else " ▼"
    return f"{bleu_at_laal(own)}{arrow}"


def _with_share(own: Cell, sft: Cell | None, offline: Cell | None) -> str:
    share = f" ({own.bleu / offline.bleu:.0%})" if offline and offline.bleu and offline != own else ""
    return f"{_with_arrow(own, sft, offline)}{share}"


def _details(own: Cell, _sft: Cell | None, _offline: Cell | None) -> str:
    share = "–" if own.early_share is None else f"{own.early_share:.0%}"
    return f"{own.chrf:.1f}, {_seconds(own.yaal_ms)}, {share}"


def _seconds(value_ms: float | None) -> str:
    return "–" if value_ms is None else f"{value_ms / 1000:.2f}"
