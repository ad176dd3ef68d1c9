"""The demo's report: one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import string
from collections.abc import Mapping
from pathlib import Path

from simulsa.evaluation.report import Evaluations, at_latency, grid
from simulsa.files import atomic_write

TEMPLATE = Path(__file__).parent / "data" / "report.html"


def write_report(path: Path, evaluations: Evaluations, pictures: Mapping[str, Path], facts: Mapping[str, str]) -> None:
    """Fill the template with the table of scores, the pictures (embedded as data URLs) and the run's facts."""
    values = {
        "table": html_table(evaluations),
        "facts": "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items()),
        **{name: _data_url(picture) for name, picture in pictures.items()},
    }
    with atomic_write(path) as file:
        file.write(string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values))


def html_table(evaluations: Evaluations) -> str:
    """BLEU @ LAAL for each rollback and model (rows) and chunk size (columns) as HTML."""
    header, *rows = grid(evaluations, lambda _, score: at_latency(score))
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _data_url(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")
