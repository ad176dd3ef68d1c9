"""Audio to encoder input: all processing of a clip that does not need the model, so that data loader processes can do it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.cache import ClipKey, clip_key
from simulsa.lalm.families import Family, extractor_of
from simulsa.lalm.instructions import instruction
from simulsa.lalm.interface import LALMError
from simulsa.lalm.window import padded_samples
from simulsa.languages import Direction, base_language, language_name
from simulsa.manifest import too_long

if TYPE_CHECKING:
    import torch

MIN_SAMPLES = SAMPLE_RATE // 25  # 40 ms: shorter clips crash some feature extractors, so they are padded with silence
_IMAGE_MASKS = "token_type_ids"  # the suffix of masks that mark image tokens, of which there are none

logger = logging.getLogger("simulsa")


def check_lengths(clips: Sequence[np.ndarray | PreparedClip], max_samples: int) -> None:
    """Raise `LALMError` for the first clip of a batch that is longer than the model's window."""
    for number, clip in enumerate(clips):
        if len(clip) > max_samples:
            raise LALMError(too_long(f"clip {number} of the batch", len(clip), max_samples))


@dataclass(frozen=True)
class PreparedClip:
    """A clip that is ready for the encoder.

    `prompt` holds the prompt's token ids up to the start of the answer, with a placeholder for each audio token. `features` are
    the processor's audio tensors by name, float32 or bool `[windows, ...]`, of this clip alone. `key` is the clip's key in an
    encoder cache (see `clip_key`), set if there is one.
    """

    prompt: list[int]
    features: dict[str, torch.Tensor]
    samples: int
    key: ClipKey | None = None

    def __len__(self) -> int:
        return self.samples


@dataclass
class Frontend:
    """A model's processor and the instruction that goes with the audio. `instruction` is the user's own template, if any."""

    processor: Any
    family: Family
    name: str
    instruction: str = ""
    directions: tuple[Direction, ...] = ()
    """what the model was trained to translate, if that is known"""

    def __post_init__(self) -> None:
        self._warned: set[str | Direction] = set()

    def prepare(self, audio: np.ndarray, direction: Direction) -> PreparedClip:
        """Features and prompt of one clip, float32 mono `[samples]` at `SAMPLE_RATE`."""
        self.announce(direction)
        longer = audio if len(audio) >= MIN_SAMPLES else np.pad(audio, (0, MIN_SAMPLES - len(audio)))
        text = instruction(direction, self.family.name, self.instruction)
        conversation = [{"role": "user", "content": [self.family.audio_content(longer), {"type": "text", "text": text}]}]
        options: dict[str, Any] = {"text_kwargs": {"padding": True, "padding_side": "left"}}
        if self.family.pads_to_window:  # older releases of transformers warn for every clip without a given sampling rate
            length = padded_samples(len(longer), extractor_of(self.processor))
            options["audio_kwargs"] = {"max_length": length, "sampling_rate": SAMPLE_RATE}
        batch = self.processor.apply_chat_template(
            [conversation],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=options,
        )
        ids, mask = batch.pop("input_ids")[0], batch.pop("attention_mask")[0]
        # contiguous: Whisper's mask of frames is a view of one of all samples, which is larger than the features
        features = {name: tensor.contiguous() for name, tensor in batch.items() if not name.endswith(_IMAGE_MASKS)}
        return PreparedClip(ids[mask.bool()].tolist(), features, len(audio))

    def keyed(self, audio: np.ndarray, direction: Direction) -> PreparedClip:
        """The same, with the clip's key in an encoder cache."""
        return replace(self.prepare(audio, direction), key=clip_key(audio, direction))

    def announce(self, direction: Direction) -> None:
        """Warn once if the model may not suit a direction, before every loader process does."""
        self._check_language(direction)
        self._check_direction(direction)

    def encode(self, text: str) -> list[int]:
        """Text to target token ids, without special tokens."""
        return list(self.processor.tokenizer(text, add_special_tokens=False).input_ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Target token ids to text, special tokens left out; an incomplete character decodes to U+FFFD."""
        text = self.processor.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def _check_language(self, direction: Direction) -> None:
        """Warn once per source language that the family's model card does not list."""
        code = base_language(direction.source_lang)
        if not self.family.languages or code in self.family.languages or code in self._warned:
            return
        self._warned.add(code)
        known = ", ".join(sorted(map(language_name, self.family.languages)))
        logger.warning("%s: %s does not list %s speech (%s)", self.name, self.family.name, language_name(code), known)

    def _check_direction(self, direction: Direction) -> None:
        """Warn once per direction that the model was not trained on."""
        asked = _base(direction)
        if not self.directions or asked in self._warned or asked in map(_base, self.directions):
            return
        self._warned.add(asked)
        known = ", ".join(map(_in_words, dict.fromkeys(self.directions)))
        logger.warning("%s was not trained on %s, but on %s", self.name, _in_words(asked), known)


def _base(direction: Direction) -> Direction:
    """The direction without regions: American English is English."""
    return Direction(base_language(direction.source_lang), base_language(direction.target_lang))


def _in_words(direction: Direction) -> str:
    return f"{language_name(direction.source_lang)} to {language_name(direction.target_lang)}"
