"""From renditions and captions to padded training batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recipes.base.text import AUDIO, AUDIO_BEGIN, AUDIO_END, EOS, TURN
from recipes.tiny.architecture import FRAMES_PER_WINDOW
from recipes.tiny.speech import Rendition

IGNORED = -100  # the label that carries no loss


@dataclass(frozen=True)
class SpeechBatch:
    """Padded speech: `mel` float32 `[batch, 80, frames]`, `frames` int64 `[batch]`, `phonemes` int64 `[batch, frames / 2]`
    (−100 in the padding), and the captions' numbers."""

    mel: torch.Tensor
    frames: torch.Tensor
    phonemes: torch.Tensor
    captions: list[int]


def audio_tokens(frames: torch.Tensor) -> torch.Tensor:
    """Qwen2-Audio's number of audio tokens for a number of mel frames: a stride of 2, then pooling by 2."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def order(rendition: Rendition, batch_size: int, seed: int) -> list[np.ndarray]:
    """Batches of clip numbers with similar lengths, in random order: little padding, and still shuffled."""
    rng = np.random.default_rng(seed)
    noisy_length = rendition.frames * rng.uniform(0.95, 1.05, len(rendition))
    by_length = np.argsort(noisy_length, kind="stable")
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def speech_batch(rendition: Rendition, numbers: Iterable[int]) -> SpeechBatch:
    """Pad clips as the full window would: each with its own quietest value, which is what silence becomes."""
    clips = [rendition[i] for i in numbers]
    longest = max(len(clip.mel) for clip in clips)
    width = min(longest + 4 + longest % 2, FRAMES_PER_WINDOW)  # the convolutions look past the end
    mel = np.stack(
        [
            np.pad(clip.mel.astype(np.float32), ((0, width - len(clip.mel)), (0, 0)), constant_values=clip.mel.min())
            for clip in clips
        ]
    )
    phonemes = np.full((len(clips), width // 2), IGNORED, dtype=np.int64)
    for row, clip in zip(phonemes, clips, strict=True):
        row[: len(clip.phonemes)] = clip.phonemes
    frames = torch.tensor([len(clip.mel) for clip in clips])
    return SpeechBatch(torch.from_numpy(mel).transpose(1, 2), frames, torch.from_numpy(phonemes), [c.index for c in clips])


def mask_spectrogram(mel: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """SpecAugment (arXiv 1904.08779): two bands of up to 12 mel bins and two stretches of up to 10 frames set to the mean."""
    mel = mel.clone()
    mean = mel.mean(dim=(1, 2))
    for axis, widest in ((1, 12), (2, 10), (1, 12), (2, 10)):
        for row in range(len(mel)):
            width = int(torch.randint(0, widest + 1, (), generator=generator))
            start = int(torch.randint(0, max(1, mel.shape[axis] - width), (), generator=generator))
            mel[row].narrow(axis - 1, start, width).fill_(mean[row])
    return mel


class Prompts:
    """Builds token sequences `prompt + audio placeholders + instruction + target` as the processor and chat template do."""

    def __init__(self, tokenizer) -> None:  # type: ignore[no-untyped-def]
        self.tokenizer = tokenizer
        self.head = tokenizer.convert_tokens_to_ids([TURN, AUDIO_BEGIN])
        self.end_of_audio, self.end_of_turn, self.turn, self.audio = tokenizer.convert_tokens_to_ids(
            [AUDIO_END, EOS, TURN, AUDIO]
        )

    def sequences(
        self, counts: torch.Tensor, instructions: Sequence[list[int]], targets: Sequence[list[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Right-padded `input_ids` and `labels`, int64 `[batch, length]`; only the target and its end carry a label."""
        ids, labels = [], []
        for count, instruction, target in zip(counts.tolist(), instructions, targets, strict=True):
            prompt = [*self.head, *[self.audio] * count, self.end_of_audio, *instruction, self.end_of_turn, self.turn]
            answer = [*target, self.end_of_turn]
            ids.append(torch.tensor(prompt + answer))
            labels.append(torch.tensor([IGNORED] * len(prompt) + answer))
        pad = torch.nn.utils.rnn.pad_sequence
        return (
            pad(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id),
            pad(labels, batch_first=True, padding_value=IGNORED),
        )


def epochs(renditions: Sequence[Rendition], count: float, batch_size: int, seed: int) -> Iterator[tuple[Rendition, np.ndarray]]:
    """Batches for `count` passes over the captions, each pass on the next rendition; a fraction ends in mid-pass."""
    total = round(count * -(-len(renditions[0]) // batch_size))
    made = 0
    epoch = 0
    while made < total:
        rendition = renditions[epoch % len(renditions)]
        for numbers in order(rendition, batch_size, seed + epoch):
            if made == total:
                return
            yield rendition, numbers
            made += 1
        epoch += 1
