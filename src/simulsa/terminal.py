"""A translation that grows in the terminal: committed text plain, tentative text dimmed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

from simulsa.audio import SAMPLE_RATE, samples_to_s
from simulsa.lalm.interface import LALM
from simulsa.streaming.state import StreamConfig, Update
from simulsa.streaming.stream import Stream

PACKET_SAMPLES = SAMPLE_RATE // 25  # audio arrives in packets of 40 ms, as from a sound card


@dataclass(frozen=True)
class Totals:
    """How long the speech of a stream was, and how long the model computed."""

    audio_s: float
    compute_s: float

    @property
    def real_time_factor(self) -> float:
        """Computing time per second of speech; below 1 the model keeps up."""
        return self.compute_s / self.audio_s


def updates_of(lalm: LALM, audio: np.ndarray, config: StreamConfig, realtime: bool = False) -> Iterator[Update]:
    """Push `audio` (float32 mono `[samples]`) through a stream in small packets; `realtime` paces them by the clock."""
    stream = Stream(lalm, config)
    started = time.monotonic()
    for start in range(0, len(audio), PACKET_SAMPLES):
        packet = audio[start : start + PACKET_SAMPLES]
        if realtime:
            time.sleep(max(0.0, started + samples_to_s(start + len(packet)) - time.monotonic()))
        yield from stream.push(packet)
    yield from stream.finish()


def show_live(updates: Iterable[Update], console: Console) -> Totals:
    """Show a stream while it runs; the final text stays on the screen."""
    with Live(Text(), console=console, auto_refresh=False) as live:
        return _drain(updates, lambda update: live.update(_styled(update), refresh=True))


def show_final(updates: Iterable[Update], console: Console) -> Totals:
    """Print only the final text, for pipes and files."""
    return _drain(updates, lambda update: _print(update.committed, console) if update.final else None)


def show_json(updates: Iterable[Update], console: Console) -> Totals:
    """Print one JSON object per update: `audio_s`, `committed`, `tentative`, `compute_s`, `final`."""
    return _drain(updates, lambda update: _print(_json(update), console))


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
