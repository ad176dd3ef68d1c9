"""Copy the repository's pages to the folder that `make site` builds from: `python docs/pages.py build/pages`.

They keep their layout and are written for CommonMark. The site's parser, Python-Markdown, wants a blank line before a list, four
spaces in front of what belongs to an item, and `<details markdown>`; the copies have these. Needs the standard library only.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "C*.md", "docs/**/*", "recipes/**/README.md", "src/simulsa/models/*/README.md")
PARTS = ("results", "policies")  # folders of tables that other pages show again
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
ITEM = re.compile(r"([-*+]|\d+\.) +")


def python_markdown(text: str) -> str:
    """CommonMark as these pages use it, for Python-Markdown."""
    return "\n".join(_lines(text.replace("<details>", "<details markdown>").split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    marker, fenced, before = 0, False, ""  # width of the current item's marker; whether in a code block; the line before
    for line in lines:
        item = None if fenced else ITEM.match(line)
        fenced ^= line.lstrip().startswith("```")
        if item:
            if not marker and before.strip():
                yield ""
            marker = item.end()
        elif line.strip() and not line.startswith(" "):
            marker = 0
        yield " " * (4 - marker) + line if marker and line.startswith(" " * marker) else line
        before = line


def main(target: Path) -> None:
    """Write all pages, and the files beside them that they link to, below `target`."""
    shutil.rmtree(target, ignore_errors=True)
    for source in sorted({path for pattern in PAGES for path in ROOT.glob(pattern) if path.is_file()}):
        copy = target / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            text = python_markdown(source.read_text(encoding="utf-8"))
            copy.write_text(UNSEARCHED + text if source.parent.name in PARTS else text, encoding="utf-8")
        elif source.suffix != ".py":
            shutil.copyfile(source, copy)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
