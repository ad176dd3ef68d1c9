"""simulsa in simulstream (https://github.com/hlt-mt/simulstream, version 1): a speech processor for its commands and its server.

simulstream's YAML file names this class and holds simulsa's settings; `docs/simulstream.yaml` is an example. Text is
append-only: nothing is ever deleted.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
from simulstream.server.speech_processors import IncrementalOutput, SpeechProcessor

from simulsa.audio import SAMPLE_RATE
from simulsa.integrations.tools import AppendOnlyText, Setup, from_pieces, pieces
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import ModelConfig
from simulsa.languages import is_spaced
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.state import Update

_OWN_KEYS = {"type", "speech_chunk_size", "detokenizer_type", "latency_unit", "base_speech_processor_class", "min_speech_size"}
"""what simulstream itself and its wrapper for voice activity read from the same file; the wrapper's others begin with `vad_`"""


class SimulsaProcessor(SpeechProcessor):  # type: ignore[misc]  # simulstream has no types
    """Translates each chunk from simulstream, `speech_chunk_size` seconds long: SimulSA's k.

    Processors with the same model share its weights and take turns, so a pool of them needs no extra memory.
    """

    _loaded: ClassVar[dict[ModelConfig, LALM]] = {}
    _turn: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def load_model(cls, config: SimpleNamespace) -> None:
        """Load the model named in the settings, once for all processors."""
        model = _settings(config).model
        with cls._turn:
            if model not in cls._loaded:
                cls._loaded[model] = model.load()

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__(config)
        self._setup = _settings(config)
        self._lalm = self._loaded[self._setup.model]
        self.clear()

    def set_source_language(self, language: str) -> None:
        """Override the source language of the settings until `clear`."""
        self._set(dataclasses.replace(self._config, source_lang=language))

    def set_target_language(self, language: str) -> None:
        """Override the target language of the settings until `clear`."""
        self._set(dataclasses.replace(self._config, target_lang=language))

    def process_chunk(self, waveform: np.ndarray) -> IncrementalOutput:
        """The text that float32 mono audio `[samples]` at 16 kHz adds; an incomplete chunk adds none until the end."""
        with self._turn:
            updates = self._stream.push(waveform)
        if len(waveform):
            self._heard = True
        return self._output(updates)

    def end_of_stream(self) -> IncrementalOutput:
        """The text that the end of the speech adds. Any further audio begins a new stretch of speech, as after a pause."""
        with self._turn:
            updates = self._stream.finish() if self._heard else []
        output = self._output(updates)
        self._begin()
        return output

    def tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens, including the space before the first word, if any."""
        return from_pieces(tokens)

    def clear(self) -> None:
        """Discard the speech, the text and the client's languages."""
        self._config = self._setup.stream
        self._any_text = False
        self._begin()

    def _set(self, config: StreamConfig) -> None:
        if self._heard:
            raise ValueError("the language of a stream cannot change while somebody speaks; set it before the first audio")
        self._config = config
        self._begin()

    def _begin(self) -> None:
        self._stream = self._setup.start(self._lalm, self._config)
        self._heard = False
        self._growth = AppendOnlyText()

    def _output(self, updates: Sequence[Update]) -> IncrementalOutput:
        first = not self._growth.text
        text = self._growth.of(updates)
        if first and text and self._any_text and is_spaced(self._stream.config.target_lang):
            text = " " + text  # after a pause
        self._any_text = self._any_text or bool(text)
        return IncrementalOutput(pieces(text), text, [], "")


def _settings(config: SimpleNamespace) -> Setup:
    values = {key: value for key, value in vars(config).items() if key not in _OWN_KEYS and not key.startswith("vad_")}
    size_s = getattr(config, "speech_chunk_size", None)
    # simulstream cuts int(rate * size) samples at a time; if that rounds down, it would hand over two cuts at once
    if not isinstance(size_s, (int, float)) or int(SAMPLE_RATE * size_s) / SAMPLE_RATE < size_s:
        raise ValueError(
            f"speech_chunk_size is {size_s!r}; it is the seconds between two hypotheses and must be a whole number of samples at "
            "16 kHz, such as 0.5"
        )
    return Setup.of(values, 1000 * size_s, "settings of simulsa in simulstream")
