"""Mels and encoder outputs of spoken captions, computed once and kept on disk.

A *reading* is every caption spoken once, each by a speaker and under conditions drawn from a seed made of the reading's name and
the caption's number. It is a folder of shards, each complete or absent, so a killed run can be resumed and training can start
on the shards that exist. While the encoder is frozen, its outputs are all that training needs; tuning it takes the mels.
"""

from __future__ import annotations

import multiprocessing
import zlib
from collections import deque
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from recipes.base.architecture import FRAMES_PER_WINDOW, HOP_SAMPLES, build_encoder, build_extractor, encode
from recipes.base.conditions import record, without_speech
from recipes.base.synthesis import Synthesisers, UnspokenError
from recipes.base.voices import ENGINES, training_speaker
from simulsa.audio import SAMPLE_RATE
from simulsa.files import atomic_write

SHARD_CAPTIONS = 256
WITHOUT_SPEECH_SHARE = 0.03  # additional clips of silence, noise or music, per caption
NO_CAPTION = -1  # the caption number of clips without speech
LONGEST_SAMPLES = int(9.7 * SAMPLE_RATE)
BATCH = 16
MASK_BINS, MASK_FRAMES = 12, 20  # SpecAugment (arXiv 1904.08779): the widest band and the longest stretch, two of each
OTHERS = 12  # clips kept for babble
OUTPUTS, MELS = ".npy", ".mels.npy"  # a shard's arrays


@dataclass(frozen=True)
class ReadingJob:
    """What a worker needs to make a shard."""

    name: str
    captions: tuple[tuple[int, str], ...]
    assets: Path
    path: Path


@dataclass(frozen=True)
class HeardClip:
    """A clip's caption, its float32 mel `[80, frames or more]` without and with masks, and how many frames are real."""

    number: int
    mel: np.ndarray
    masked: np.ndarray
    frames: int


def make_reading(
    name: str,
    captions: Sequence[tuple[int, str]],
    chosen: Container[int],
    assets: Path,
    folder: Path,
    processes: int,
    device: torch.device,
) -> None:
    """Speak `(number, caption)` pairs in worker processes and encode them on `device` into `folder`.

    Shards that exist, and those without a `chosen` caption, are skipped. A reading whose name begins with a synthesiser's, such
    as "kokoro-0", is spoken by that one alone, any other by the mix.
    """
    jobs = []
    for start in range(0, len(captions), SHARD_CAPTIONS):
        path, part = folder / f"{start // SHARD_CAPTIONS:04d}.npz", captions[start : start + SHARD_CAPTIONS]
        if not path.exists() and any(number in chosen for number, _ in part):
            jobs.append(ReadingJob(name, tuple(part), assets, path))
    if not jobs:
        return
    folder.mkdir(parents=True, exist_ok=True)
    encoder = build_encoder(assets).to(device)
    with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
        shards = pool.imap(heard_clips, jobs)
        for job, clips in zip(jobs, tqdm(shards, f"reading {name}", total=len(jobs), mininterval=5), strict=True):
            write_shard(job.path, clips, encoder)


def heard_clips(job: ReadingJob) -> list[HeardClip]:
    """The mels of a shard's clips."""
    extractor, clips = build_extractor(), []
    for number, samples, rng in spoken(job):
        mel, frames = mel_of(extractor, samples)
        clips.append(HeardClip(number, mel, masked(mel, frames, rng), frames))
    return clips


def write_shard(path: Path, clips: Sequence[HeardClip], encoder: Qwen2AudioEncoder) -> None:
    """Write one shard: `numbers` int32, `tokens` and `frames` int16 of each clip, and beside it all outputs for the masked mels,
    float16 `[tokens, width]`, and all mels without masks, float16 `[frames, 80]`."""
    outputs: list[np.ndarray] = [np.zeros(0)] * len(clips)
    by_length = sorted(range(len(clips)), key=lambda i: clips[i].frames)
    for start in range(0, len(clips), BATCH):
        chosen = by_length[start : start + BATCH]
        encoded = encode(encoder, [clips[i].masked for i in chosen], [clips[i].frames for i in chosen])
        for i, output in zip(chosen, encoded, strict=True):
            outputs[i] = output.half().numpy()
    mels = [clip.mel.T[: clip.frames].astype(np.float16) for clip in clips]
    for kind, arrays in ((OUTPUTS, outputs), (MELS, mels)):
        with atomic_write(path.with_suffix(kind), "wb") as file:
            np.save(file, np.concatenate(arrays))
    with atomic_write(path, "wb") as file:  # last: it marks the shard complete
        numbers = np.array([clip.number for clip in clips], np.int32)
        tokens, frames = (np.array([len(array) for array in arrays], np.int16) for arrays in (outputs, mels))
        np.savez(file, numbers=numbers, tokens=tokens, frames=frames)


def spoken(job: ReadingJob) -> Iterator[tuple[int, np.ndarray, np.random.Generator]]:
    """The shard's clips, each with its random generator. Captions that nobody could say, or that last longer than the window,
    are left out, and their numbers printed."""
    synthesisers, others = Synthesisers(job.assets), deque[np.ndarray](maxlen=OTHERS)
    engine = next((engine for engine in ENGINES if job.name.startswith(engine)), None)
    for number, caption in job.captions:
        rng = np.random.default_rng([zlib.crc32(job.name.encode()), number])
        try:
            speech = synthesisers.speak(caption, training_speaker(rng, engine), rng)
        except UnspokenError as error:
            print(f"{job.name}: caption {number} is left out: {error}", flush=True)
            continue
        samples = record(speech, others, rng)
        others.append(speech)
        if len(samples) <= LONGEST_SAMPLES:
            yield number, samples, rng
        else:
            print(f"{job.name}: caption {number} is left out: it lasts {len(samples) / SAMPLE_RATE:.1f} s", flush=True)
        if rng.random() < WITHOUT_SPEECH_SHARE:
            yield NO_CAPTION, without_speech(rng.uniform(0.3, 9), rng), rng


def mel_of(extractor, samples: np.ndarray) -> tuple[np.ndarray, int]:  # type: ignore[no-untyped-def]
    """Float32 `[80, frames or more]` of a clip as the model's own front end gives it, and how many of its frames are real:
    silence follows them, as far as the encoder's convolutions look."""
    frames = min(-(-len(samples) // HOP_SAMPLES), FRAMES_PER_WINDOW)
    padded = min(len(samples) + 1000, FRAMES_PER_WINDOW * HOP_SAMPLES)
    features = extractor(
        samples, sampling_rate=SAMPLE_RATE, padding="max_length", max_length=padded, truncation=True, return_tensors="np"
    )
    mel: np.ndarray = features.input_features[0]
    return mel, frames


def masked(mel: np.ndarray, frames: int, rng: np.random.Generator) -> np.ndarray:
    """A mel `[80, frames or more]` under SpecAugment's masks, which hide bands and stretches of its real frames."""
    mel, mean = mel.copy(), mel.mean(dtype=np.float32)
    for _ in range(2):
        width, length = int(rng.integers(MASK_BINS + 1)), int(rng.integers(min(MASK_FRAMES, frames // 4) + 1))
        band, start = int(rng.integers(len(mel) - width + 1)), int(rng.integers(frames - length + 1))
        mel[band : band + width, :frames] = mean
        mel[:, start : start + length] = mean
    return mel


class Features:
    """Every finished shard of some readings, memory-mapped: `features[i]` is a clip's float16 `[tokens, width]`, or its mel
    `[frames, 80]`."""

    def __init__(self, folders: Sequence[Path], wanted: set[int] | None = None, mels: bool = False) -> None:
        """Map the clips of captions in `wanted` (all if not given), and those without speech.

        Raises `FileNotFoundError` if there are no shards, or none with mels.
        """
        self.mels = mels
        self._arrays: list[np.ndarray] = []
        shard, start, tokens, lengths, numbers = [], [], [], [], []
        for path in (path for folder in folders for path in sorted(folder.glob("*.npz"))):
            index = np.load(path)
            if mels and "frames" not in index:
                raise FileNotFoundError(f"{path} was made without mels: delete {path.parent}, so that it is made again")
            tokens.append(index["tokens"].astype(np.int64))
            lengths.append(index["frames"].astype(np.int64) if mels else tokens[-1])
            numbers.append(index["numbers"].astype(np.int64))
            start.append(np.cumsum(lengths[-1]) - lengths[-1])
            shard.append(np.full(len(tokens[-1]), len(self._arrays)))
            self._arrays.append(np.load(path.with_suffix(MELS if mels else OUTPUTS), mmap_mode="r"))
        if not self._arrays:
            raise FileNotFoundError(f"no finished shards in {', '.join(map(str, folders))}")
        every = np.concatenate(numbers)
        kept = np.isin(every, [*wanted, NO_CAPTION]) if wanted is not None else np.ones(len(every), bool)
        self.numbers, self.tokens = every[kept], np.concatenate(tokens)[kept]
        self.lengths = np.concatenate(lengths)[kept]
        self._shard, self._start = np.concatenate(shard)[kept], np.concatenate(start)[kept]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> np.ndarray:
        return np.asarray(self._arrays[self._shard[i]][self._start[i] : self._start[i] + self.lengths[i]])
