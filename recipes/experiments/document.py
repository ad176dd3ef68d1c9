"""Regenerate tables and figures from the CSV files and insert them into the documents, so that numbers are never typed.

    python -m recipes.experiments.document

Between `<!-- from NAME -->` and `<!-- end -->` a document holds a verbatim copy of the file NAME from docs/results.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.command import run
from recipes.experiments import ablations, ideas, table
from recipes.experiments.records import Record, read_records
from simulsa.files import atomic_write

SHOWN: dict[str, Callable[[Sequence[Record], Path], None]] = {
    "table.csv": table.show,
    "ablations.csv": ablations.show,
    "ideas.csv": ideas.show,
}
BLOCK = re.compile(r"(<!-- from (?P<name>[\w./-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class DocumentConfig:
    """Which documents, and where the results are."""

    documents: tuple[Path, ...] = (
        Path("docs/results.md"),
        Path("docs/measurements/embedded-model.md"),
        Path("docs/measurements/paper-table.md"),
        Path("docs/measurements/choices.md"),
        Path("docs/measurements/policies.md"),
        Path("docs/policies.md"),
        Path("README.md"),
        Path("src/simulsa/models/tiny-en-de/README.md"),
        Path("src/simulsa/models/tiny-en-de-simul/README.md"),
    )
    results: Path = Path("docs/results")


def filled(text: str, results: Path) -> str:
    """`text` with every block filled. Raises `FileNotFoundError` for a block whose file does not exist."""

    def block(match: re.Match[str]) -> str:
        content = (results / match["name"]).read_text(encoding="utf-8").strip()
        return f"{match[1]}{content}\n{match[3]}"

    return BLOCK.sub(block, text)


def main(config: DocumentConfig) -> None:
    """Regenerate tables and figures from the CSV files, and fill all documents."""
    for name, show in SHOWN.items():
        for path in sorted(config.results.rglob(name)):
            show(read_records(path), path.parent)
    for path in config.documents:
        text = filled(path.read_text(encoding="utf-8"), config.results)
        with atomic_write(path) as file:
            file.write(text)


if __name__ == "__main__":
    run(main, DocumentConfig, __doc__)
