"""`simulsa translate`: audio files, translated while they play."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from simulsa.commands.parsing import parse
from simulsa.lalm.load import ModelConfig
from simulsa.streaming.segmentation import LongformConfig
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
    longform: bool = False
    """follow the speech in segments, cut at pauses, whatever its length; longer files than the model's window always are"""
    timestamps: bool = False
    """print each segment with the times of its beginning and end (includes --longform)"""
    segments: LongformConfig = field(default_factory=LongformConfig)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Translate, arguments, "translate")
    from rich.console import Console

    from simulsa.audio import load_audio, samples_to_s
    from simulsa.commands.parsing import UsageError
    from simulsa.streaming.longform import LongStream
    from simulsa.streaming.stream import Stream
    from simulsa.terminal import show_final, show_json, show_live, updates_of

    if not command.files:
        raise UsageError("translate needs at least one audio file")
    if command.json and command.timestamps:
        raise UsageError("choose --json or --timestamps; the JSON of --longform has the times of its segments")
    audios = [load_audio(path) for path in command.files]  # a broken file is found before the model is loaded
    lalm = command.model.load()
    console, notes = Console(), Console(stderr=True, highlight=False)
    for path, audio in zip(command.files, audios, strict=True):
        if sys.stdout.isatty() and len(audios) > 1:
            console.rule(str(path), align="left")
        longer = len(audio) > lalm.max_samples
        if longer:
            window = f"{samples_to_s(len(audio)):.1f} s, the model hears {samples_to_s(lalm.max_samples):.1f} s at a time"
            notes.print(f"{path}: {window}: the speech is followed in segments, cut at pauses", style="dim")
        stream: Stream | LongStream = Stream(lalm, command.stream)
        if longer or command.longform or command.timestamps:
            stream = LongStream(lalm, command.stream, command.segments)
        updates = updates_of(stream, audio, command.realtime)
        if command.json:
            totals = show_json(updates, console)
        else:
            totals = (show_live if sys.stdout.isatty() else show_final)(updates, console, command.timestamps)
        notes.print(
            f"{path}: {totals.audio_s:.1f} s of speech, {totals.compute_s:.2f} s computed, "
            f"real-time factor {totals.real_time_factor:.2f}",
            style="dim",
        )
