"""Strict readers of subtitle files."""

from __future__ import annotations

import re


def parse_srt(text: str) -> list[tuple[int, int, str]]:
    """The cues of an SRT file: start and end in ms, text on one line."""
    cues = []
    for number, block in enumerate(text.removesuffix("\n\n").split("\n\n"), start=1):
        head, times, *lines = block.split("\n")
        assert head == str(number)
        cues.append(_cue(times, ",", lines))
    return cues


def parse_vtt(text: str) -> list[tuple[int, int, str]]:
    """The cues of a WebVTT file."""
    head, *blocks = text.removesuffix("\n\n").split("\n\n")
    assert head == "WEBVTT"
    cues = []
    for block in blocks:
        times, *lines = block.split("\n")
        unescaped = [line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for line in lines]
        cues.append(_cue(times, ".", unescaped))
    return cues


def _cue(times: str, point: str, lines: list[str]) -> tuple[int, int, str]:
    clock = rf"(\d\d):([0-5]\d):([0-5]\d)\{point}(\d\d\d)"
    match = re.fullmatch(f"{clock} --> {clock}", times)
    assert match is not None
    assert 1 <= len(lines) <= 2
    numbers = [int(group) for group in match.groups()]
    start, end = (((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (numbers[:4], numbers[4:]))
    assert start < end
    return start, end, " ".join(lines)
