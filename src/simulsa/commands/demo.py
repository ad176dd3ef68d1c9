"""`simulsa demo`: the whole method, from an offline model to a simultaneous one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simulsa.commands.parsing import parse, show_log
from simulsa.demo.config import DemoConfig
from simulsa.extras import require

if TYPE_CHECKING:
    from rich.console import Console

    from simulsa.demo.run import DemoResult


@dataclass(frozen=True)
class Demo:
    """Make an offline model simultaneous on bundled speech and report the gain."""

    settings: DemoConfig = field(default_factory=DemoConfig)
    live: bool = True
    """at the end, translate one sentence live in the terminal"""


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Demo, arguments, "demo")
    require("the demo", "evaluate", "train")
    show_log()
    from rich.console import Console
    from rich.markdown import Markdown

    from simulsa.demo.run import run_demo

    result = run_demo(command.settings)
    console = Console()
    console.print(Markdown(result.table))
    if command.live:
        _translate_live(result, console)
    print(f"\nreport: {command.settings.out / 'report.html'}  ({result.seconds / 60:.1f} minutes)")


def _translate_live(result: DemoResult, console: Console) -> None:
    from simulsa.sources import packets
    from simulsa.streaming.config import StreamConfig
    from simulsa.streaming.stream import Stream
    from simulsa.terminal import show_final, show_live, updates_of

    console.print("\nspoken:    ", result.example.source_text, sep="")
    terminal = sys.stdout.isatty()
    stream = Stream(result.tuned, StreamConfig(chunk_ms=500, rollback=3))
    updates = updates_of(stream, packets(result.example.load(), realtime=terminal))
    (show_live if terminal else show_final)(updates, console)
