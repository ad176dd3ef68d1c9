"""Committed text with its times as subtitles: SubRip (`srt`) and WebVTT (`vtt`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cue:
    """Text committed once the speech from `start_s` to `end_s` (in seconds) had been heard."""

    start_s: float
    end_s: float
    text: str


def srt(cues: Iterable[Cue]) -> str:
    """The cues in SubRip's format."""
    return "".join(
        f"{number}\n{timestamp(cue.start_s, ',')} --> {timestamp(cue.end_s, ',')}\n{cue.text.strip()}\n\n"
        for number, cue in enumerate(cues, start=1)
    )


def vtt(cues: Iterable[Cue]) -> str:
    """The cues in WebVTT's format."""
    return "WEBVTT\n\n" + "".join(
        f"{timestamp(cue.start_s)} --> {timestamp(cue.end_s)}\n{_escaped(cue.text.strip())}\n\n" for cue in cues
    )


def timestamp(seconds: float, point: str = ".") -> str:
    """A time in subtitle format: hours, minutes, seconds and, after `point`, milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
