"""`simulsa translate`: audio files, translated while they play."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from simulsa.commands.parsing import parse
from simulsa.lalm.load import ModelConfig
from simulsa.streaming.state import StreamConfig


@dataclass(frozen=True)
class Translate:
    """Translate audio files while they play: committed text plain, tentative text dimmed."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """audio files (WAV, FLAC, OGG/Opus, MP3)"""
    model: ModelConfig = field(default_factory=lambda: ModelConfig("tiny-en-de-simul"))
    stream: StreamConfig = field(default_factory=StreamConfig)
    realtime: bool = False
    """pace the audio by the clock, as if it were spoken now"""
    json: bool = False
    """print one JSON object per update instead"""


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Translate, arguments, "translate")
    from rich.console import Console

    from simulsa.audio import load_audio
    from simulsa.commands.parsing import UsageError
    from simulsa.terminal import show_final, show_json, show_live, updates_of

    if not command.files:
        raise UsageError("translate needs at least one audio file")
    audios = [load_audio(path) for path in command.files]  # a broken file is found before the model is loaded
    lalm = command.model.load()
    console, notes = Console(), Console(stderr=True, highlight=False)
    show = show_json if command.json else show_live if sys.stdout.isatty() else show_final
    for path, audio in zip(command.files, audios, strict=True):
        if sys.stdout.isatty() and len(audios) > 1:
            console.rule(str(path), align="left")
        totals = show(updates_of(lalm, audio, command.stream, command.realtime), console)
        notes.print(
            f"{path}: {totals.audio_s:.1f} s of speech, {totals.compute_s:.2f} s computed, "
            f"real-time factor {totals.real_time_factor:.2f}",
            style="dim",
        )
