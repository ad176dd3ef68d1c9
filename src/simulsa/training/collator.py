"""Examples to batches: the same prompts as at inference, with target tokens and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from simulsa.audio import AudioError
from simulsa.lalm.frontend import MIN_SAMPLES, Frontend
from simulsa.loading import OnError
from simulsa.manifest import Utterance, unheard
from simulsa.training.examples import Example

IGNORED = -100  # a label that carries no loss, by PyTorch's convention

_EMPTY_ROW = Example(Utterance("nothing", "", "en", "de", ""), ())


@dataclass
class Collator:
    """Load the audio of some examples and build their batch, without the model.

    The batch holds `clips`, a `PreparedClip` per row; `answers`, the token ids after each prompt; and for the answers' tokens,
    padded on the left, `labels` int64 `[rows, 1 + longest answer]` and `offline` bool, whether the row is offline.
    `label_indices`, int64 `[labels]`, are the labels' indices in the flattened batch. An answer is the target and EOS, which are
    also the labels. A truncated row ends with EOS too: the model learns to stop where the audio ends.

    Raises `AudioError` for audio that cannot be decoded; with `on_error="skip"` such a row becomes silence without labels, so
    that the other rows' batches do not change. `broken` maps the id of each such row to its problem.
    """

    frontend: Frontend
    eos_id: int
    on_error: OnError = "fail"

    def __call__(self, passed: Sequence[Example | None]) -> dict[str, Any]:
        """The batch of the examples in `passed`; silence without labels if there are none."""
        examples = [example for example in passed if example is not None]
        if not examples:
            return self._batch([_EMPTY_ROW], [None], {})
        broken: dict[str, str] = {}
        return self._batch(examples, [self._load(example, broken) for example in examples], broken)

    def _batch(self, examples: Sequence[Example], heard: Sequence[np.ndarray | None], broken: dict[str, str]) -> dict[str, Any]:
        audios = [np.zeros(MIN_SAMPLES, dtype=np.float32) if audio is None else audio for audio in heard]
        answers = [[*example.target, self.eos_id] for example in examples]
        # one column more than the longest answer, for the prompt's last token: Trainer does not count the first column's
        labels = torch.full((len(examples), 1 + max(map(len, answers))), IGNORED, dtype=torch.long)
        for row, (answer, samples) in enumerate(zip(answers, heard, strict=True)):
            if samples is not None:
                labels[row, -len(answer) :] = torch.tensor(answer)
        return {
            "clips": [self.frontend.keyed(audio, ex.row.direction) for audio, ex in zip(audios, examples, strict=True)],
            "answers": answers,
            "labels": labels,
            "label_indices": (labels != IGNORED).flatten().nonzero().squeeze(1),
            "offline": torch.tensor([[not ex.row.is_augmented] for ex in examples]).expand_as(labels).contiguous(),
            "broken": broken,
        }

    def _load(self, example: Example, broken: dict[str, str]) -> np.ndarray | None:
        try:
            return example.row.load()
        except AudioError as error:
            if self.on_error == "fail":
                raise unheard(example.row, error) from error
            broken[example.row.id] = str(error)
            return None
