"""The text instruction that goes with the audio."""

from __future__ import annotations

from simulsa.lalm.interface import Direction
from simulsa.languages import language_name

TRANSLATE = "Translate the {source} speech into {target}."
TRANSCRIBE = "Transcribe the {source} speech."


def instruction(direction: Direction) -> str:
    """What the model is asked to do: to translate, or to transcribe where both languages are the same."""
    source, target = (language_name(code) for code in direction)
    template = TRANSCRIBE if source == target else TRANSLATE
    return template.format(source=source, target=target)
