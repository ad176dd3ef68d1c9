"""What `make gpu` needs and this machine lacks, reported before any of it is imported.

python -m benchmarks.requirements
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = ("train", "evaluate")
TESTS = ("pytest", "hypothesis", "prometheus-client")


def required() -> list[str]:
    """The names of simulsa's own requirements and those of training, evaluation and the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = [*project["dependencies"], *(entry for name in EXTRAS for entry in project["optional-dependencies"][name])]
    return list(dict.fromkeys([re.split(r"[^\w.-]", entry)[0] for entry in entries] + [*TESTS]))


def missing(names: Iterable[str]) -> list[str]:
    """Which of these packages are not installed."""
    lacking = []
    for name in names:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(name)
    return lacking


def versions(names: Iterable[str]) -> str:
    """Installed packages with their versions, on one line."""
    lacking = missing(names)
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names if name not in lacking)


def main() -> int:
    """Print both lists; returns 1 if something is missing."""
    lacking = missing(required())
    print(f"Python {sys.version.split()[0]}, {versions(required())}")
    print(f"packages that are missing and must be brought as wheels: {', '.join(lacking) or 'none'}", flush=True)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
