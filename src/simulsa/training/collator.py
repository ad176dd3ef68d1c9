"""Examples to padded batches: the very prompts and padding of inference, with the target behind them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from simulsa.audio import AudioError
from simulsa.lalm.model import MIN_SAMPLES, HuggingFaceLALM, Inputs
from simulsa.manifest import Utterance, unheard
from simulsa.training.config import OnError
from simulsa.training.examples import Example

IGNORED = -100  # a label that carries no loss, by PyTorch's convention
_TEXT = ("input_ids", "attention_mask", "labels", "weights", "offline")

logger = logging.getLogger("simulsa")

_NOTHING = Example(Utterance("nothing", "", "en", "de", ""), ())


@dataclass
class Collator:
    """Load the audio of some examples and build their batch.

    The batch holds int64 `[batch, length]` `input_ids`, `attention_mask` and `labels`, padded on the left, float32 `weights` of
    the labels' losses, bool `offline` that says at each label whether its row is, and the model's audio tensors. Every row is
    prompt, target, EOS; labels are the target and EOS, and `IGNORED` elsewhere. A truncated row ends with EOS too: the model
    learns to stop where the audio ends. With an `overrun_weight`, its answer goes on with the row's rest, and every label there
    is EOS: having missed its stop, the model shall still stop rather than finish the sentence.

    Raises `AudioError` for audio that cannot be decoded; with `on_error="skip"` such a row counts for nothing: silence without
    labels, so that the batches of all other rows stay what they are.
    """

    lalm: HuggingFaceLALM
    on_error: OnError = "fail"
    simultaneous_weight: float = 1.0
    stop_weight: float = 1.0
    overrun_weight: float = 0.0
    _broken: set[str] = field(default_factory=set)

    def __call__(self, passed: Sequence[Example | None]) -> dict[str, torch.Tensor]:
        """The batch of the examples among `passed`; silence without labels when there are none."""
        examples = [example for example in passed if example is not None]
        if not examples:
            return self._batch([_NOTHING], [None])
        return self._batch(examples, [self._load(example) for example in examples])

    def _batch(self, examples: Sequence[Example], heard: Sequence[np.ndarray | None]) -> dict[str, torch.Tensor]:
        audios = [np.zeros(MIN_SAMPLES, dtype=np.float32) if audio is None else audio for audio in heard]
        overruns = [list(example.rest) if self.overrun_weight else [] for example in examples]
        answers = [[*ex.target, *overrun, self.lalm.eos_id] for ex, overrun in zip(examples, overruns, strict=True)]
        prompts, audio = self.lalm.prompts(audios, [example.direction for example in examples])
        inputs = self.lalm.pad([prompt + answer for prompt, answer in zip(prompts, answers, strict=True)], audio)
        labels = torch.full_like(inputs.ids, IGNORED)
        for row, (answer, overrun, samples) in enumerate(zip(answers, overruns, heard, strict=True)):
            if samples is not None:
                labels[row, -len(answer) :] = inputs.ids[row, -len(answer) :]
                labels[row, -len(overrun) - 1 :] = self.lalm.eos_id
        return {
            "input_ids": inputs.ids,
            "attention_mask": inputs.mask,
            "labels": labels,
            "weights": self._weights(examples, overruns, labels),
            "offline": torch.tensor([[not ex.row.is_augmented] for ex in examples], device=labels.device).expand_as(labels),
            **inputs.audio,
        }

    def _weights(self, examples: Sequence[Example], overruns: Sequence[Sequence[int]], labels: torch.Tensor) -> torch.Tensor:
        weights = torch.ones(labels.shape, dtype=torch.float32, device=labels.device)
        for row, (example, overrun) in enumerate(zip(examples, overruns, strict=True)):
            if example.row.is_augmented:
                weights[row] = self.simultaneous_weight
                weights[row, -len(overrun) - 1] *= self.stop_weight
                if overrun:
                    weights[row, -len(overrun) :] *= self.overrun_weight
        return weights

    def _load(self, example: Example) -> np.ndarray | None:
        row = example.row
        try:
            return row.load()
        except AudioError as error:
            if self.on_error == "fail":
                raise unheard(row, error) from error
            if row.id not in self._broken:
                self._broken.add(row.id)
                logger.warning("train: row %r counts for nothing: %s", row.id, error)
            return None


def model_inputs(batch: dict[str, torch.Tensor]) -> Inputs:
    """What of a batch the LALM reads."""
    audio = {name: tensor for name, tensor in batch.items() if name not in _TEXT}
    return Inputs(batch["input_ids"], batch["attention_mask"], audio)
