"""`simulsa score`: score the log of any system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from simulsa.commands.parsing import parse, show_log
from simulsa.evaluation.score import ScoreConfig


@dataclass(frozen=True)
class ScoreCommand:
    """Score the log of any system that SimulEval or simulstream ran: quality, latency, degenerate text, flicker, bursts.

    docs/metrics.md defines every number and says how other tools differ.
    """

    log: tyro.conf.Positional[Path]
    """SimulEval's instances.log (simulsa's too), or simulstream's metrics log"""
    settings: ScoreConfig = field(default_factory=ScoreConfig)
    json: Path | None = None
    """also write the scores to this file"""


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(ScoreCommand, arguments, "score")
    show_log()
    from rich.console import Console
    from rich.markdown import Markdown

    from simulsa.evaluation.score import score_log
    from simulsa.evaluation.score_report import score_remarks, score_table
    from simulsa.files import write_json

    scores = score_log(command.log, command.settings)
    if command.json is not None:
        write_json(command.json, scores)
    console = Console(highlight=False)
    console.print(Markdown(score_table(scores)))
    for remark in score_remarks(scores):
        console.print(remark, style="dim", soft_wrap=True, markup=False)
