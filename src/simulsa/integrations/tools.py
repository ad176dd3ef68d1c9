"""Shared by the integrations: settings from one flat mapping, and append-only text."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simulsa.evaluation.instances import single_spaced
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import ModelConfig
from simulsa.languages import is_spaced
from simulsa.settings import SettingsError, field_names, from_mapping, known_keys, shares
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SEARCH_SAMPLES, SegmentationConfig, quietest
from simulsa.streaming.state import Update
from simulsa.streaming.stream import Stream
from simulsa.streaming.vad import WINDOW_SAMPLES

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

    def start(self, lalm: LALM, stream: StreamConfig) -> Speech:
        """Start a stream for new speech; a client may have changed the settings in `stream`."""
        if self.longform is None:
            return AutoSegmentedStream(lalm, stream, self.segments)
        return Stream(lalm, stream, self.segments if self.longform else None)


class AutoSegmentedStream:
    """A stream of unknown length that is segmented once it exceeds the longest segment.

    The first segment ends at the quietest point in the last second before that limit, so the audio of that second waits until
    the speech ends or continues.
    """

    def __init__(self, lalm: LALM, config: StreamConfig, segments: SegmentationConfig) -> None:
        self._lalm = lalm
        self._segments = segments
        self._short = Stream(lalm, config)
        self.config = self._short.state.config
        self._long: Stream | None = None
        self._longest = segments.longest_recording(lalm.max_samples)
        self._waiting = np.zeros(0, dtype=np.float32)
        self._said = ""  # text of the short stream

    def push(self, samples: np.ndarray) -> list[Update]:
        """Add float32 mono audio at 16 kHz, of any length; returns an update for each completed chunk."""
        if self._long is not None:
            return [self._continued(update) for update in self._long.push(samples)]
        self._waiting = np.concatenate([self._waiting, samples])
        room = self._longest - self._short.state.received_samples
        if len(self._waiting) <= room:
            return list(self._short.push(self._taken(max(0, room - SEARCH_SAMPLES))))
        self._long = Stream(self._lalm, self._short.config, self._segments)
        updates = self._short.push(self._taken(max(0, room - SEARCH_SAMPLES)))
        searched = self._waiting[: self._longest - self._short.state.received_samples]
        whole = searched[: len(searched) // WINDOW_SAMPLES * WINDOW_SAMPLES].reshape(-1, WINDOW_SAMPLES)
        updates += self._short.push(self._taken(quietest((whole**2).sum(axis=1).tolist())))
        updates += self._short.finish()
        self._said = updates[-1].committed
        return [*(dataclasses.replace(update, final=False) for update in updates), *self.push(self._taken(len(self._waiting)))]

    def finish(self) -> list[Update]:
        """End the speech; the last update is final."""
        if self._long is not None:
            return [self._continued(update) for update in self._long.finish()]
        return [*self._short.push(self._taken(len(self._waiting))), *self._short.finish()]

    def _taken(self, samples: int) -> np.ndarray:
        taken, self._waiting = self._waiting[:samples], self._waiting[samples:]
        return taken

    def _continued(self, update: Update) -> Update:
        """An update of the segmented stream, preceded by the text of the first segment."""
        spaced = self._said and is_spaced(self._short.state.config.target_lang) and update.committed
        committed = f"{self._said} {update.committed}" if spaced else self._said + update.committed
        heard = self._short.state.received_samples + update.audio_samples
        return dataclasses.replace(update, committed=committed, audio_samples=heard)


Speech = Stream | AutoSegmentedStream


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
