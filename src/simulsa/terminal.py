"""Live translation in the terminal: committed text plain, tentative text dimmed."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

from simulsa import strict_json
from simulsa.audio import samples_to_s
from simulsa.serving.subtitles import timestamp
from simulsa.streaming.state import Segment, Update
from simulsa.streaming.stream import Stream


@dataclass
class Totals:
    """Total duration of the speech and total computing time."""

    audio_s: float = 0.0
    compute_s: float = 0.0

    def add(self, update: Update) -> None:
        """Count the next update of a stream."""
        self.audio_s = update.audio_s
        self.compute_s += update.compute_s

    @property
    def real_time_factor(self) -> float:
        """Computing time per second of speech; below 1 the model keeps up."""
        return self.compute_s / self.audio_s if self.audio_s else 0.0


def updates_of(stream: Stream, chunks: Iterable[np.ndarray], live: bool = False) -> Iterator[Update]:
    """Push a source's chunks (float32 mono `[samples]`) through a stream and finish it.

    If the model falls behind a `live` source, a step processes all waiting chunks, so that the translation catches up.
    """
    if live:
        stream.state.chunks_at_once = sys.maxsize
    for chunk in chunks:
        yield from stream.push(chunk)
    yield from stream.finish()


def show_live(updates: Iterable[Update], console: Console, timestamps: bool = False) -> Totals:
    """Show a stream live; final text stays on the screen, one line per segment."""
    totals = Totals()
    with Live(Text(), console=console, auto_refresh=False) as live:
        for update, line in _with_lines(_to_the_end(updates), timestamps):
            totals.add(update)
            if line is not None:
                live.console.print(Text(line))
            live.update(Text() if line is not None or update.final else _styled(update), refresh=True)
    return totals


def show_final(updates: Iterable[Update], console: Console, timestamps: bool = False) -> Totals:
    """Print final text only, for pipes and files: one line per segment."""
    totals = Totals()
    for update, line in _with_lines(_to_the_end(updates), timestamps):
        totals.add(update)
        if line is not None:
            _print(line, console)
    return totals


def show_json(updates: Iterable[Update], console: Console) -> Totals:
    """Print one JSON object per update: `audio_s`, `committed` (of the segment, or of everything if there is none), `new`,
    `segment`, `tentative`, `compute_s`, `final`, `truncated`."""
    totals = Totals()
    for update in updates:
        totals.add(update)
        _print(_json(update), console)
    return totals


def _with_lines(updates: Iterable[Update], timestamps: bool) -> Iterator[tuple[Update, str | None]]:
    """Each update with the line of final text that it completes, if any: one per segment, or one of everything."""
    segmented = False
    for update in updates:
        segment, line = update.segment, None
        if segment is None:
            if update.final and update.committed and not segmented:
                line = update.committed
        else:
            segmented = True
            if segment.complete and (segment.text or update.final):
                line = segment.text
                if timestamps:
                    start_s, end_s = samples_to_s(segment.start_samples), samples_to_s(segment.end_samples)
                    line = f"[{timestamp(start_s)} --> {timestamp(end_s)}] {line}"
        yield update, line


def _to_the_end(updates: Iterable[Update]) -> Iterator[Update]:
    """Yield the updates; if they break off, yield a final one with the text committed so far, then raise the error."""
    last = None
    try:
        for update in updates:
            last = update
            yield update
    except Exception:
        if last is not None and last.committed and not last.final:
            yield _closed(last)
        raise


def _closed(last: Update) -> Update:
    """The final update that replaces the missing ones."""
    segment = last.segment
    if segment is not None:
        segment = None if segment.complete else dataclasses.replace(segment, complete=True)
    return dataclasses.replace(last, tentative="", compute_s=0.0, final=True, new="", segment=segment)


def _print(line: str, console: Console) -> None:
    """Write a line as is, without wrapping or markup, and flush it for the reader of a pipe."""
    console.file.write(line + "\n")
    console.file.flush()


def _json(update: Update) -> str:
    segment = update.segment
    values = {
        "audio_s": round(update.audio_s, 3),
        "committed": update.committed if segment is None else segment.text,
        "new": update.new,
        "segment": segment and _segment_values(segment),
        "tentative": update.tentative,
        "compute_s": round(update.compute_s, 4),
        "final": update.final,
        "truncated": update.truncated,
    }
    return strict_json.dumps(values)


def _segment_values(segment: Segment) -> dict[str, Any]:
    return {
        "index": segment.index,
        "start_s": samples_to_s(segment.start_samples),
        "end_s": samples_to_s(segment.end_samples),
        "complete": segment.complete,
    }


def _styled(update: Update) -> Text:
    clock = Text(f"{update.audio_s:5.1f} s  ", style="cyan")
    committed = update.committed if update.segment is None else update.segment.text
    tentative = update.tentative if committed else update.tentative.lstrip()
    return clock + Text(committed) + Text(tentative, style="dim italic")
