"""`simulsa compare`: several evaluations in one table and one plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from simulsa.commands.parsing import UsageError, parse, show_log


@dataclass(frozen=True)
class Compare:
    """Compare several evaluations of the same test set in one table and one quality-latency plot."""

    dirs: tyro.conf.Positional[tuple[Path, ...]]
    """folders written by `simulsa evaluate`"""
    out: Path = Path("comparison")
    """folder for `table.md` and `quality-latency.png`"""
    baseline: Path | None = None
    """one of the folders; arrows mark settings significantly better or worse than there"""


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Compare, arguments, "compare")
    if not command.dirs:
        raise UsageError("compare needs at least one folder written by simulsa evaluate")
    show_log()
    from rich.console import Console
    from rich.markdown import Markdown

    from simulsa.evaluation.compare import compare

    Console().print(Markdown(compare(command.dirs, command.out, command.baseline)))
