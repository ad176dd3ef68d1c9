"""The text instruction that goes with the audio."""

from __future__ import annotations

from simulsa.lalm.interface import Direction
from simulsa.languages import language_name

TRANSLATE = "Translate the {source} speech into {target}."
TRANSCRIBE = "Transcribe the {source} speech."
LATENCY = " Latency: {latency}."


def instruction(direction: Direction) -> str:
    """What the model is asked to do: to translate, or to transcribe where both languages are the same, and how soon."""
    source, target = language_name(direction.source_lang), language_name(direction.target_lang)
    template = TRANSCRIBE if source == target else TRANSLATE
    if direction.latency is not None:
        template += LATENCY
    return template.format(source=source, target=target, latency=direction.latency)
