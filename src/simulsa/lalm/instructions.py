"""The text instruction of the prompt: the family's own wording, unless the user gives another."""

from __future__ import annotations

import string

from simulsa.languages import Direction, language_name

TRANSLATE = "Translate the {source} speech into {target}."
TRANSCRIBE = "Transcribe the {source} speech."
# by family name: the wording that its checkpoints were trained on, if that is published and differs
TRANSLATE_IN = {
    "Phi-4-multimodal": "Translate the audio to {target}.",
    "Granite Speech": "translate the speech to {target}",
}
TRANSCRIBE_IN = {
    "Phi-4-multimodal": "Transcribe the audio clip into text.",
    "Granite Speech": "can you transcribe the speech into a written format?",
}


def instruction(direction: Direction, family: str = "", template: str = "") -> str:
    """The instruction to translate, or to transcribe if both languages are the same.

    `template` is the user's own wording of a translation request, with `{source}` and `{target}` for the languages.
    """
    source, target = language_name(direction.source_lang), language_name(direction.target_lang)
    own, default = (TRANSCRIBE_IN, TRANSCRIBE) if source == target else (TRANSLATE_IN, TRANSLATE)
    text = own.get(family, default)
    if template and source != target:
        text = template
    return text.format(source=source, target=target)


def check_template(template: str) -> None:
    """Raise `ValueError` for a template with fields other than `{source}` and `{target}`, or with an unmatched brace."""
    rule = "it is a sentence with {source} and {target} where the languages go; other braces are doubled: {{ }}"
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ValueError(f"instruction is {template!r} ({error}); {rule}") from error
    if unknown := fields - {"source", "target"}:
        raise ValueError(f"instruction has the field {{{min(unknown)}}}; {rule}")
