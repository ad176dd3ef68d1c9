"""What simulsa's parts in other evaluation tools share: settings from one flat mapping, and text that is only added to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from simulsa.evaluation.instances import single_spaced
from simulsa.lalm.load import ModelConfig
from simulsa.settings import from_mapping
from simulsa.streaming.state import StreamConfig, Update


def model_and_stream(values: Mapping[str, Any], chunk_ms: float, where: str) -> tuple[ModelConfig, StreamConfig]:
    """The model and the stream that `values` describe, the keys of both settings in one flat mapping.

    `chunk_ms` is not among them: the tool itself says how much audio it hands over at a time. Raises `SettingsError`, which
    begins with `where`, for an unknown key and for a value that the settings refuse.
    """
    model = {field.name for field in dataclasses.fields(ModelConfig)}
    stream = {field.name for field in dataclasses.fields(StreamConfig)} - {"chunk_ms"}
    both = dataclasses.make_dataclass("Settings", [(name, Any, None) for name in sorted(model | stream)])
    from_mapping(both, values, where)  # an unknown key is told the nearest of either
    given = {key.replace("-", "_"): value for key, value in values.items()}
    return (
        from_mapping(ModelConfig, {key: value for key, value in given.items() if key in model}, where),
        from_mapping(StreamConfig, {"chunk_ms": chunk_ms, **{k: v for k, v in given.items() if k in stream}}, where),
    )


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
