"""`simulsa translate`: audio files or a microphone, translated while they are heard."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from simulsa.commands.parsing import parse
from simulsa.lalm.load import ModelConfig
from simulsa.serving.client import RemoteConfig
from simulsa.streaming.state import StreamConfig

if TYPE_CHECKING:
    import numpy as np

    from simulsa.streaming.state import Update

    Translator = Callable[[Iterable[np.ndarray]], Iterator[Update]]

DEFAULT = ModelConfig("tiny-en-de-simul")


@dataclass(frozen=True)
class Translate:
    """Translate audio files or a microphone while they are heard: committed text plain, tentative text dimmed."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """audio files (WAV, FLAC, OGG/Opus, MP3)"""
    model: ModelConfig = field(default_factory=lambda: DEFAULT)
    remote: RemoteConfig = field(default_factory=RemoteConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    realtime: bool = False
    """pace the audio by the clock, as if it were spoken now"""
    mic: bool = False
    """translate what the microphone hears, until Ctrl-C"""
    mic_device: str = ""
    """number or part of the name of another microphone than the system's default"""
    json: bool = False
    """print one JSON object per update instead"""


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Translate, arguments, "translate")
    _check(command)
    if command.mic:
        _translate_microphone(command)
    else:
        _translate_files(command)


def _check(command: Translate) -> None:
    from simulsa.commands.parsing import UsageError

    if command.mic and (command.files or command.realtime):
        raise UsageError("--mic goes with neither files nor --realtime")
    if command.mic_device and not command.mic:
        raise UsageError("--mic-device needs --mic")
    if not command.files and not command.mic:
        raise UsageError("translate needs at least one audio file, or --mic")
    if command.remote.url and command.model != DEFAULT:
        raise UsageError("with --url the server's model translates; leave out --model and what belongs to it")


def _translate_files(command: Translate) -> None:
    from rich.console import Console

    from simulsa.audio import load_audio
    from simulsa.sources import packets

    audios = [load_audio(path) for path in command.files]  # a broken file is found before the model is loaded
    translate = _translator(command)
    for path, audio in zip(command.files, audios, strict=True):
        if sys.stdout.isatty() and len(audios) > 1:
            Console().rule(str(path), align="left")
        _show(command, str(path), translate(packets(audio, command.realtime)))


def _translate_microphone(command: Translate) -> None:
    from simulsa.sources import Microphone, at_interrupt

    microphone = Microphone(command.mic_device)  # whether there is one is found before the model is loaded
    translate = _translator(command)
    with at_interrupt(microphone.stop), microphone:
        _note(f"{microphone.name}: listening; Ctrl-C ends")
        _show(command, microphone.name, translate(microphone))


def _translator(command: Translate) -> Translator:
    """What makes updates of a source's chunks: a model here or a server."""
    if command.remote.url:
        from simulsa.serving.client import translate_remote

        key = command.remote.key()
        return lambda chunks: translate_remote(command.remote.url, chunks, command.stream, key)
    from simulsa.streaming.stream import Stream
    from simulsa.terminal import updates_of

    lalm = command.model.load()
    return lambda chunks: updates_of(Stream(lalm, command.stream), chunks, live=command.mic)


def _show(command: Translate, name: str, updates: Iterable[Update]) -> None:
    from rich.console import Console

    from simulsa.terminal import show_final, show_json, show_live

    show = show_json if command.json else show_live if sys.stdout.isatty() else show_final
    totals = show(updates, Console())
    _note(
        f"{name}: {totals.audio_s:.1f} s of speech, {totals.compute_s:.2f} s computed, "
        f"real-time factor {totals.real_time_factor:.2f}"
    )


def _note(text: str) -> None:
    """A dim line on standard error."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, highlight=False).print(Text(text), style="dim")
