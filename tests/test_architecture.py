"""docs/architecture.md says where to look: what it names must be there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SOURCE = ROOT / "src" / "simulsa"


def section(heading: str) -> str:
    """The page from a heading to the next one."""
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_what_a_reader_is_sent_to_exists() -> None:
    table = section("Where to look")
    places = re.findall(r"`([\w.]+)` in `([\w/]+\.py)`", table)
    places += [(name, path) for path, name in re.findall(r"`([\w/]+\.py)` \(`([\w.]+)`\)", table)]
    assert len(places) >= 5
    for name, path in places:
        source = (SOURCE / path).read_text(encoding="utf-8")
        for part in name.split("."):
            assert re.search(rf"^\s*(class|def) {part}\b", source, re.MULTILINE), f"{name} is not in {path}"
    for path in re.findall(r"`([\w/]+\.py)`", table):
        assert (SOURCE / path).exists(), path


def test_every_package_and_module_has_a_row() -> None:
    table = section("Packages")
    rows = "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))
    names = {path.name + ("/" if path.is_dir() else "") for path in SOURCE.iterdir() if not path.name.startswith(("_", "."))}
    named = set(re.findall(r"`([\w.]+/?)`", rows))
    assert names - named == {"py.typed"} & names, sorted(names - named)
    assert all((SOURCE / name).exists() or (ROOT / name).exists() for name in named - {"docs/pages.py"}), named


def imported(path: Path) -> Iterator[str]:
    """The packages and modules of simulsa, by their first name, that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "simulsa":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("simulsa."):
            yield (node.module or "").split(".")[1]


def test_imports_point_to_the_right() -> None:
    chain = re.search(r"between the same two arrows: (cli → .*?)\.", section("Packages").replace("\n", " "))
    assert chain is not None
    level = {name: number for number, names in enumerate(chain[1].split(" → ")) for name in names.split(", ")}
    for path in SOURCE.rglob("*.py"):
        package = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if package.startswith("_"):  # version, entry point, and the names that are loaded lazily
            continue
        for other in set(imported(path)) - {package, "_version"}:
            assert level[package] < level[other], f"{path.relative_to(SOURCE)} imports {other}"
