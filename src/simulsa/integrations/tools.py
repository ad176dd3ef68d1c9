"""What simulsa's parts in other evaluation tools share: settings from one flat mapping, and text that is only added to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from simulsa.evaluation.instances import single_spaced
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import ModelConfig
from simulsa.settings import SettingsError, field_names, from_mapping, known_keys, shares
from simulsa.streaming.longform import LongStream
from simulsa.streaming.segmentation import LongformConfig
from simulsa.streaming.state import StreamConfig, Update
from simulsa.streaming.stream import Stream

_LONGFORM = "longform"


@dataclasses.dataclass(frozen=True)
class Setup:
    """What one flat mapping describes: the model, the stream, and how speech of any length is cut, if it is to be."""

    model: ModelConfig
    stream: StreamConfig
    segments: LongformConfig | None

    @classmethod
    def of(cls, values: Mapping[str, Any], chunk_ms: float, where: str) -> Setup:
        """From the keys of `ModelConfig`, `StreamConfig` and, with `longform: true`, `LongformConfig`.

        `chunk_ms` is not among them: the tool itself says how much audio it hands over at a time. Raises `SettingsError`, which
        begins with `where`, for an unknown key and for a value that the settings refuse.
        """
        kinds = (ModelConfig, StreamConfig, LongformConfig)
        every = sorted({_LONGFORM} | field_names(*kinds) - {"chunk_ms"})
        given = known_keys(values, every, where)
        longform = given.get(_LONGFORM, False)
        if not isinstance(longform, bool):
            raise SettingsError(f"{where}: longform is {longform!r}; it must be true or false")
        model, stream, segments = shares(given, kinds)
        if segments and not longform:
            raise SettingsError(f"{where}: {min(segments)} is about speech of any length; it goes with longform: true")
        return cls(
            from_mapping(ModelConfig, model, where),
            from_mapping(StreamConfig, {"chunk_ms": chunk_ms, **stream}, where),
            from_mapping(LongformConfig, segments, where) if longform else None,
        )

    def start(self, lalm: LALM, stream: StreamConfig) -> Stream | LongStream:
        """New speech, with settings of the stream that a client may have changed."""
        return Stream(lalm, stream) if self.segments is None else LongStream(lalm, stream, self.segments)


@dataclasses.dataclass
class Growth:
    """What of a translation was handed over, in the spacing that every scorer counts."""

    text: str = ""

    def of(self, updates: Sequence[Update]) -> str:
        """What the last of `updates` added to the committed text, with the space before it."""
        text = single_spaced(updates[-1].committed) if updates else self.text
        added, self.text = text[len(self.text) :], text
        return added


def pieces(text: str) -> list[str]:
    """`text` in pieces as SentencePiece writes them, a word each: joined, and with ▁ read as a space, they are the text again."""
    return [piece.replace(" ", "▁") for piece in re.findall(r" ?[^ ]+", text)]


def from_pieces(tokens: Sequence[str]) -> str:
    """The text that `pieces` came from."""
    return "".join(tokens).replace("▁", " ")
