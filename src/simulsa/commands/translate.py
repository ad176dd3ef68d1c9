"""`simulsa translate`: translate audio files or a microphone live."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from simulsa.commands.parsing import UsageError, parse
from simulsa.lalm.load import ModelConfig
from simulsa.serving.client import RemoteConfig
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig

if TYPE_CHECKING:
    import numpy as np

    from simulsa.streaming.state import Update

    Translator = Callable[[Iterable[np.ndarray], bool], Iterator[Update]]  # of a source's chunks, in segments or not

DEFAULT = ModelConfig("tiny-en-de-simul")


@dataclass(frozen=True)
class Translate:
    """Translate audio files or a microphone live: committed text plain, tentative text dimmed."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """audio files (WAV, FLAC, OGG/Opus, MP3)"""
    model: ModelConfig = field(default_factory=lambda: DEFAULT)
    remote: RemoteConfig = field(default_factory=RemoteConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    realtime: bool = False
    """pace the audio in real time, as if it were being spoken"""
    mic: bool = False
    """translate the microphone until Ctrl-C"""
    mic_device: str = ""
    """number or part of the name of a microphone other than the system's default"""
    json: bool = False
    """print one JSON object per update"""
    longform: bool = False
    """long-form: split the speech into segments at pauses; always on for a microphone and for files longer than max-segment-s (or
    the model's window, if that is shorter)"""
    timestamps: bool = False
    """print each segment with its start and end time (implies --longform)"""
    segments: SegmentationConfig = field(default_factory=SegmentationConfig)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Translate, arguments, "translate")
    _check(command)
    if command.mic:
        _translate_microphone(command)
    else:
        _translate_files(command)


def _check(command: Translate) -> None:
    if command.mic and (command.files or command.realtime):
        raise UsageError("--mic excludes files and --realtime")
    if command.mic_device and not command.mic:
        raise UsageError("--mic-device needs --mic")
    if not command.files and not command.mic:
        raise UsageError("translate needs at least one audio file, or --mic")
    if command.remote.url and command.model != DEFAULT:
        raise UsageError("with --url the server's model translates; omit --model and its options")
    if command.remote.url and (command.longform or command.timestamps or command.segments != SegmentationConfig()):
        raise UsageError("with --url the server controls segmentation; omit --longform, --timestamps and their options")
    if command.json and command.timestamps:
        raise UsageError("choose --json or --timestamps; the JSON output of --longform includes segment times")


def _translate_files(command: Translate) -> None:
    from rich.console import Console

    from simulsa.audio import load_audio, samples_to_s
    from simulsa.sources import packets

    audios = [load_audio(path) for path in command.files]  # a broken file is found before the model is loaded
    translate, window = _translator(command)
    for path, audio in zip(command.files, audios, strict=True):
        if sys.stdout.isatty() and len(audios) > 1:
            Console().rule(str(path), align="left")
        longer = window is not None and command.segments.is_long(len(audio), window)
        if window is not None and longer:
            at_a_time = min(samples_to_s(window), command.segments.max_segment_s)
            lengths = f"{samples_to_s(len(audio)):.1f} s, the model hears {at_a_time:.1f} s at a time"
            _note(f"{path}: {lengths}: the speech is split into segments at pauses")
        _show(command, str(path), translate(packets(audio, command.realtime), longer))


def _translate_microphone(command: Translate) -> None:
    from simulsa.sources import Microphone, at_interrupt

    microphone = Microphone(command.mic_device)  # whether there is one is found before the model is loaded
    translate, _ = _translator(command)
    with at_interrupt(microphone.stop), microphone:
        _note(f"{microphone.name}: listening; Ctrl-C ends")
        _show(command, microphone.name, translate(microphone, True))


def _translator(command: Translate) -> tuple[Translator, int | None]:
    """What turns a source's chunks into updates, a local model or a server; and the samples of the model's window."""
    if command.remote.url:
        from simulsa.serving.client import translate_remote

        key = command.remote.key()
        return lambda chunks, _: translate_remote(command.remote.url, chunks, command.stream, key), None
    from simulsa.audio import s_to_samples
    from simulsa.streaming.stream import Stream
    from simulsa.terminal import updates_of

    lalm = command.model.load()
    lalm.warm_up(command.stream.for_model(lalm).direction, 1, s_to_samples(command.segments.max_segment_s))

    def translate(chunks: Iterable[np.ndarray], in_segments: bool) -> Iterator[Update]:
        segmented = in_segments or command.longform or command.timestamps
        return updates_of(Stream(lalm, command.stream, command.segments if segmented else None), chunks, live=command.mic)

    return translate, lalm.max_samples


def _show(command: Translate, name: str, updates: Iterable[Update]) -> None:
    from rich.console import Console

    from simulsa.terminal import show_final, show_json, show_live

    if command.json:
        totals = show_json(updates, Console())
    else:
        totals = (show_live if sys.stdout.isatty() else show_final)(updates, Console(), command.timestamps)
    _note(
        f"{name}: {totals.audio_s:.1f} s of speech, {totals.compute_s:.2f} s computed, "
        f"real-time factor {totals.real_time_factor:.2f}"
    )


def _note(text: str) -> None:
    """A dim line on standard error."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, highlight=False).print(Text(text), style="dim", soft_wrap=True)
