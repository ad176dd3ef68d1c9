"""A translation that grows in the terminal: committed text plain, tentative text dimmed."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

from simulsa.streaming.state import Update
from simulsa.streaming.stream import Stream


@dataclass(frozen=True)
class Totals:
    """How long the speech of a stream was, and how long the model computed."""

    audio_s: float
    compute_s: float

    @property
    def real_time_factor(self) -> float:
        """Computing time per second of speech; below 1 the model keeps up."""
        return self.compute_s / self.audio_s if self.audio_s else 0.0


def updates_of(stream: Stream, chunks: Iterable[np.ndarray], live: bool = False) -> Iterator[Update]:
    """Push a source's chunks (float32 mono `[samples]`) through a stream and finish it.

    When the model is behind a `live` source, a step hears everything that waits, so that the translation catches up.
    """
    if live:
        stream.state.chunks_at_once = sys.maxsize
    for chunk in chunks:
        yield from stream.push(chunk)
    yield from stream.finish()


def show_live(updates: Iterable[Update], console: Console) -> Totals:
    """Show a stream while it runs; the final text stays on the screen."""
    with Live(Text(), console=console, auto_refresh=False) as live:
        return _drain(_to_the_end(updates), lambda update: live.update(_styled(update), refresh=True))


def show_final(updates: Iterable[Update], console: Console) -> Totals:
    """Print only the final text, for pipes and files."""
    return _drain(_to_the_end(updates), lambda update: _print(update.committed, console) if update.final else None)


def show_json(updates: Iterable[Update], console: Console) -> Totals:
    """Print one JSON object per update: `audio_s`, `committed`, `tentative`, `compute_s`, `final`."""
    return _drain(updates, lambda update: _print(_json(update), console))


def _to_the_end(updates: Iterable[Update]) -> Iterator[Update]:
    """The updates; if they break off, first a final one with what was committed, then the error."""
    last = None
    try:
        for update in updates:
            last = update
            yield update
    except Exception:
        if last is not None and last.committed and not last.final:
            yield dataclasses.replace(last, tentative="", compute_s=0.0, final=True)
        raise


def _drain(updates: Iterable[Update], show: Callable[[Update], None]) -> Totals:
    compute_s, audio_s = 0.0, 0.0
    for update in updates:
        compute_s += update.compute_s
        audio_s = update.audio_s
        show(update)
    return Totals(audio_s, compute_s)


def _print(line: str, console: Console) -> None:
    """Write a line as it is: no wrapping, no markup; at once, for whoever reads the pipe."""
    console.file.write(line + "\n")
    console.file.flush()


def _json(update: Update) -> str:
    values = {
        "audio_s": round(update.audio_s, 3),
        "committed": update.committed,
        "tentative": update.tentative,
        "compute_s": round(update.compute_s, 4),
        "final": update.final,
    }
    return json.dumps(values, ensure_ascii=False)


def _styled(update: Update) -> Text:
    clock = Text(f"{update.audio_s:5.1f} s  ", style="cyan")
    return clock + Text(update.committed) + Text(update.tentative, style="dim italic")
