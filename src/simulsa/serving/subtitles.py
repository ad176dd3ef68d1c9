"""The final text as subtitles, SubRip (`srt`) and WebVTT (`vtt`), by the rule of the web page's subtitles.js.

A cue is at most two lines, seven seconds or a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from html import escape
from itertools import chain

from simulsa.audio import samples_to_s
from simulsa.streaming.state import Update

LINE = 42  # characters, as is usual for subtitles
TEXT = 2 * LINE
LONGEST_S = 7.0
SHORTEST_S = 1.0
_SENTENCE_ENDS, _CLOSING = tuple(".!?。！？…"), '"”»’)'


@dataclass(frozen=True)
class Cue:
    """Text that is final once the speech from `start_s` to `end_s` (in seconds) has been heard; `opens`: it must start a cue."""

    start_s: float
    end_s: float
    text: str
    opens: bool = False


def pieces_of(updates: Iterable[Update]) -> Iterator[Cue]:
    """The new text of each update, timed from the end of the piece before it; a segment opens a cue, not before its start."""
    end_s, index = 0.0, -1
    for update in updates:
        segment = update.segment
        if update.new and segment is not None:
            start_s = max(end_s, samples_to_s(segment.start_samples))
            yield Cue(start_s, update.audio_s, update.new, opens=segment.index != index)
            end_s, index = update.audio_s, segment.index


def joined(pieces: Iterable[Cue]) -> list[Cue]:
    """Pieces as cues; their texts together are those of the pieces."""
    cues: list[Cue] = []
    for piece in chain.from_iterable(map(_split, pieces)):
        if cues and not piece.opens and _fits(cues[-1], piece):
            cues[-1] = replace(cues[-1], end_s=piece.end_s, text=cues[-1].text + piece.text)
        else:
            # after a silence the text belongs to the end of the time that was heard for it
            cues.append(replace(piece, start_s=max(piece.start_s, piece.end_s - LONGEST_S)))
    return cues


def srt(pieces: Iterable[Cue]) -> str:
    """The pieces as cues in SubRip's format."""
    return "".join(
        f"{number}\n{timestamp(cue.start_s, ',')} --> {timestamp(cue.end_s, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(_shown(pieces), start=1)
    )


def vtt(pieces: Iterable[Cue]) -> str:
    """The pieces as cues in WebVTT's format."""
    return "WEBVTT\n\n" + "".join(
        f"{timestamp(cue.start_s)} --> {timestamp(cue.end_s)}\n{escape(cue.text, quote=False)}\n\n" for cue in _shown(pieces)
    )


def timestamp(seconds: float, point: str = ".") -> str:
    """A time in subtitle format: hours, minutes, seconds and, after `point`, milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"


def _split(piece: Cue) -> Iterator[Cue]:
    """A piece that is too long for one cue, as several; its time goes by the number of characters."""
    while len(piece.text) > TEXT:
        space = piece.text.rfind(" ", 1, TEXT + 1)
        cut = space if space > 0 else TEXT
        middle_s = piece.start_s + (piece.end_s - piece.start_s) * cut / len(piece.text)
        yield replace(piece, end_s=middle_s, text=piece.text[:cut])
        piece = Cue(middle_s, piece.end_s, piece.text[cut:])
    yield piece


def _fits(cue: Cue, piece: Cue) -> bool:
    whole_sentence = cue.text.rstrip().rstrip(_CLOSING).endswith(_SENTENCE_ENDS)
    return not whole_sentence and len((cue.text + piece.text).strip()) <= TEXT and piece.end_s - cue.start_s <= LONGEST_S


def _shown(pieces: Iterable[Cue]) -> Iterator[Cue]:
    """Cues as they are shown: each long enough to be read, none before the end of the last, and none empty."""
    free_s = 0.0
    for cue in joined(pieces):
        if text := " ".join(cue.text.split()):  # an empty line would end the cue
            start_s = max(cue.start_s, free_s)
            free_s = max(cue.end_s, start_s + SHORTEST_S)
            yield Cue(start_s, free_s, _in_lines(text))


def _in_lines(text: str) -> str:
    """A text of more than a line, broken at the space nearest to its middle."""
    spaces = [place for place, character in enumerate(text) if character == " "]
    if len(text) <= LINE or not spaces:
        return text
    middle = min(spaces, key=lambda place: abs(place - len(text) / 2))
    return f"{text[:middle]}\n{text[middle + 1 :]}"
