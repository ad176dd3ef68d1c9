"""From cached speech and captions to padded training batches.

A row is one prompt with one or more answers: the speech comes once, followed by each instruction with its answer. These attend
to the speech and themselves but not to each other, so a clip that is both translated and transcribed costs little more than one
that is only translated. A row of text has the caption's own tokens in place of the speech.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from recipes.base.architecture import padded
from recipes.base.features import NO_CAPTION, Features, masked
from recipes.base.text import AUDIO, AUDIO_BEGIN, AUDIO_END, EOS, TRANSCRIBE, TRANSLATE, TURN

IGNORED = -100  # the label that carries no loss
PROMPT = 0  # the segment that every answer attends to
LENGTH_GRID = 8  # lengths are multiples of this, as CUDA's attention with a mask expects
MASKED_STRETCHES, MASKED_TOKENS = 2, 8  # per clip and epoch


@dataclass(frozen=True)
class Batch:
    """`ids`, `labels`, `positions`, `segments` int64 `[rows, length]`, right-padded; `audio` float16 `[audio tokens, width]` of
    all rows concatenated, in the order of the placeholders; or, for an encoder that is tuned, no `audio` but `mels` float32
    `[clips, 80, width]` and how many of their `frames` `[clips]` are real."""

    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor
    audio: torch.Tensor
    mels: torch.Tensor | None = None
    frames: torch.Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        tensors = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return replace(self, **{name: t.to(device, non_blocking=True) for name, t in tensors.items() if t is not None})

    def time_masked(self, audio_token: int) -> Batch:
        """The same with two stretches of each clip's encoder output zeroed, of up to 8 tokens (0.32 s) and a sixth of the clip.

        They are drawn from PyTorch's global generator. Where encoder outputs are cached, this is what varies for the decoder
        from epoch to epoch.
        """
        counts = (self.ids == audio_token).sum(1)
        row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        place = torch.arange(len(row), device=counts.device) - (counts.cumsum(0) - counts)[row]
        kept = torch.ones(len(row), dtype=torch.bool, device=counts.device)
        for _ in range(MASKED_STRETCHES):
            chance = torch.rand(2, len(counts)).to(counts.device)
            length = (chance[0] * ((counts // 6).clamp(max=MASKED_TOKENS) + 1)).long()
            start = (chance[1] * (counts - length + 1)).long()
            kept &= (place < start[row]) | (place >= (start + length)[row])
        return replace(self, audio=self.audio * kept[:, None])

    def mask(self) -> torch.Tensor:
        """Which position may attend to which: bool `[rows, 1, length, length]`."""
        length = self.ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.ids.device).tril()
        shared = (self.segments[:, None, :] == PROMPT) | (self.segments[:, None, :] == self.segments[:, :, None])
        return (causal & shared)[:, None]


class Rows:
    """Builds rows `prompt + audio placeholders + instruction + answer` as the processor and the chat template do."""

    def __init__(self, tokenizer: Any, sources: Sequence[str], targets: Sequence[str]) -> None:
        self.pad = int(tokenizer.pad_token_id)
        self.head = tokenizer.convert_tokens_to_ids([TURN, AUDIO_BEGIN])
        self.end_of_audio, self.end_of_turn, self.turn, self.audio = tokenizer.convert_tokens_to_ids(
            [AUDIO_END, EOS, TURN, AUDIO]
        )
        self.translate, self.transcribe = tokenizer([TRANSLATE, TRANSCRIBE]).input_ids
        self.sources: list[list[int]] = tokenizer(list(sources)).input_ids
        self.targets: list[list[int]] = tokenizer(list(targets)).input_ids

    def text(self, caption: int) -> np.ndarray:
        """The row that translates a caption's text (see `assembled`)."""
        return self.assembled(self.sources[caption], [(self.translate, self.targets[caption])])

    def speech(self, caption: int, tokens: int) -> np.ndarray:
        """The row that translates and transcribes a clip of `tokens` audio tokens; the answers are empty without speech."""
        said = caption != NO_CAPTION
        answers = [
            (self.translate, self.targets[caption] if said else []),
            (self.transcribe, self.sources[caption] if said else []),
        ]
        return self.assembled([self.audio] * tokens, answers)

    def assembled(self, content: Sequence[int], answers: Sequence[tuple[list[int], list[int]]]) -> np.ndarray:
        """Int64 `[4, length]`: ids, labels, positions, segments of a prompt's content and its `(instruction, answer)` pairs."""
        prompt = [*self.head, *content, self.end_of_audio]
        ids, labels = [*prompt], [IGNORED] * len(prompt)
        positions, segments = [np.arange(len(prompt))], [np.full(len(prompt), PROMPT)]
        for segment, (instruction, answer) in enumerate(answers, start=PROMPT + 1):
            asked, said = [*instruction, self.end_of_turn, self.turn], [*answer, self.end_of_turn]
            length = len(asked) + len(said)
            ids += asked + said
            labels += [IGNORED] * len(asked) + said
            positions.append(np.arange(len(prompt), len(prompt) + length))
            segments.append(np.full(length, segment))
        return np.stack([np.array(ids), np.array(labels), np.concatenate(positions), np.concatenate(segments)])

    def batch(self, rows: Sequence[np.ndarray], audio: Sequence[np.ndarray], width: int) -> Batch:
        """Pad rows to one length; padding is a segment of its own, to which no answer attends."""
        length = -(-max(row.shape[1] for row in rows) // LENGTH_GRID) * LENGTH_GRID
        table = np.empty((4, len(rows), length), np.int64)
        table[:] = np.array([self.pad, IGNORED, 0, -1])[:, None, None]
        for number, row in enumerate(rows):
            table[:, number, : row.shape[1]] = row
        joined = np.concatenate(audio) if audio else np.zeros((0, width), np.float16)
        ids, labels, positions, segments = torch.from_numpy(table)
        return Batch(ids, labels, positions, segments, torch.from_numpy(joined))


@dataclass(frozen=True)
class Dataset:
    """What a stage trains on: every caption's text `text` times and every clip of `features` (if there are any) once."""

    rows: Rows
    captions: Sequence[int]
    text: int
    features: Features | None
    width: int

    def __len__(self) -> int:
        return self.text * len(self.captions) + (len(self.features) if self.features else 0)

    def batches(self, size: int, seed: int) -> Iterator[list[int]]:
        """One epoch: batches of items (by number) of similar length, in random order; little padding, and still shuffled."""
        rng = np.random.default_rng(seed)
        by_length = np.argsort(self._lengths() * rng.uniform(0.95, 1.05, len(self)), kind="stable")
        chunks = [by_length[start : start + size].tolist() for start in range(0, len(by_length), size)]
        for number in rng.permutation(len(chunks)):
            yield chunks[number]

    def load(self, items: Sequence[int], seed: int = 0) -> Batch:
        """The batch of these items; the masks of mels are drawn from `seed`."""
        rows, audio = [], []
        texts = self.text * len(self.captions)
        for item in items:
            if item < texts or self.features is None:
                rows.append(self.rows.text(self.captions[item % len(self.captions)]))
            else:
                number, tokens = (int(values[item - texts]) for values in (self.features.numbers, self.features.tokens))
                rows.append(self.rows.speech(number, tokens))
                audio.append(self.features[item - texts])
        if self.features is None or not self.features.mels:
            return self.rows.batch(rows, audio, self.width)
        batch = self.rows.batch(rows, [], self.width)
        if not audio:
            return batch
        rng, frames = np.random.default_rng(seed), [len(mel) for mel in audio]
        mels = padded([masked(mel.T.astype(np.float32), len(mel), rng) for mel in audio], frames)
        return replace(batch, mels=torch.from_numpy(mels), frames=torch.tensor(frames))

    def _lengths(self) -> np.ndarray:
        text = [len(self.rows.sources[c]) + len(self.rows.targets[c]) for c in self.captions] * self.text
        if self.features is None:
            return np.array(text, float)
        said = np.array([len(s) + len(t) for s, t in zip(self.rows.sources, self.rows.targets, strict=True)] + [0])
        return np.concatenate([text, self.features.tokens + said[self.features.numbers]])  # `said` ends with NO_CAPTION's
