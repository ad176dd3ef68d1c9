"""Shared by the integrations: settings from one flat mapping, and append-only text."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from simulsa.evaluation.instances import single_spaced
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import ModelConfig
from simulsa.settings import SettingsError, field_names, from_mapping, known_keys, shares
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.state import Update
from simulsa.streaming.stream import Stream

_LONGFORM = "longform"


@dataclasses.dataclass(frozen=True)
class Setup:
    """Settings from one flat mapping: the model, the stream, and whether to segment all speech (`longform` true), none (false),
    or only speech longer than one segment (`None`)."""

    model: ModelConfig
    stream: StreamConfig
    segments: SegmentationConfig
    longform: bool | None

    @classmethod
    def of(cls, values: Mapping[str, Any], chunk_ms: float, where: str) -> Setup:
        """Build the setup from the keys of `ModelConfig`, `StreamConfig` and, with `longform: true`, `SegmentationConfig`.

        `chunk_ms` is not among them: the tool itself decides how much audio it hands over at a time. Raises `SettingsError`,
        whose message starts with `where`, for an unknown key or an invalid value.
        """
        kinds = (ModelConfig, StreamConfig, SegmentationConfig)
        every = sorted({_LONGFORM} | field_names(*kinds) - {"chunk_ms"})
        given = known_keys(values, every, where)
        longform = given.get(_LONGFORM)
        if not isinstance(longform, bool | None):
            raise SettingsError(f"{where}: longform is {longform!r}; it must be true or false")
        model, stream, segments = shares(given, kinds)
        if segments and not longform:
            raise SettingsError(f"{where}: {min(segments)} is a long-form setting; it requires longform: true")
        return cls(
            from_mapping(ModelConfig, model, where),
            from_mapping(StreamConfig, {"chunk_ms": chunk_ms, **stream}, where),
            from_mapping(SegmentationConfig, segments, where),
            longform,
        )

    def start(self, lalm: LALM, stream: StreamConfig) -> Stream:
        """Start a stream for new speech; a client may have changed the settings in `stream`."""
        segmentation = None if self.longform is False else self.segments
        return Stream(lalm, stream, segmentation, from_start=self.longform is True)


@dataclasses.dataclass
class AppendOnlyText:
    """The part of a translation that has been handed over, with the single spacing that all scorers expect."""

    text: str = ""

    def of(self, updates: Sequence[Update]) -> str:
        """The text that the last of `updates` added to the committed text, including the space before it."""
        text = single_spaced(updates[-1].committed) if updates else self.text
        added, self.text = text[len(self.text) :], text
        return added


def pieces(text: str) -> list[str]:
    """`text` split into SentencePiece-style pieces, one per word; joining them and replacing ▁ by a space restores the text."""
    return [piece.replace(" ", "▁") for piece in re.findall(r" ?[^ ]+", text)]


def from_pieces(tokens: Sequence[str]) -> str:
    """The text that `pieces` split."""
    return "".join(tokens).replace("▁", " ")
