"""The demo's report: one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulsa.files import atomic_write

TEMPLATE = Path(__file__).parent / "data" / "report.html"

Scores = Sequence[Mapping[str, Any]]


def write_report(path: Path, before: Scores, after: Scores, pictures: Mapping[str, Path], facts: Mapping[str, str]) -> None:
    """Fill the template with the before/after table, the pictures (embedded as data URLs) and the run's facts."""
    values = {
        "table": html_table(before, after),
        "facts": "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items()),
        **{name: _data_url(picture) for name, picture in pictures.items()},
    }
    with atomic_write(path) as file:
        file.write(string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values))


def table_rows(before: Scores, after: Scores) -> tuple[list[str], list[list[str]]]:
    """The before/after table: header, and one row per rollback and model with `BLEU @ LAAL` cells."""
    chunks = list(dict.fromkeys(score["chunk_ms"] for score in before))
    header = ["b", "model", *(f"k = {_chunk_name(chunk)}" for chunk in chunks)]
    rows = []
    for rollback in dict.fromkeys(score["rollback"] for score in before):
        for name, scores in (("before", before), ("after", after)):
            cells = {score["chunk_ms"]: score for score in scores if score["rollback"] == rollback}
            rows.append([str(rollback), name, *(_cell(cells[chunk]) for chunk in chunks if chunk in cells)])
    return header, rows


def html_table(before: Scores, after: Scores) -> str:
    """The before/after table as HTML."""
    header, rows = table_rows(before, after)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _chunk_name(chunk: Any) -> str:
    return "∞" if str(chunk) == "inf" else f"{float(chunk):g} ms"


def _cell(score: Mapping[str, Any]) -> str:
    latency = "–" if score["laal_ms"] is None else f"{score['laal_ms'] / 1000:.2f} s"
    return f"{score['bleu']:.1f} @ {latency}"


def _data_url(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")
