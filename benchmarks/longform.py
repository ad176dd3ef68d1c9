"""How much quality is lost by having to find the sentences of a long recording, and by splitting them.

python -m benchmarks.longform --model tiny-en-de-simul
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sacrebleu
import tyro

from benchmarks.recording import Recording, Spoken, recite
from benchmarks.setup import machine, rows_of
from benchmarks.soak import translations
from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.load import load
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.state import Segment
from simulsa.streaming.stream import Stream
from simulsa.streaming.vad import WINDOW_SAMPLES, SileroVAD

STREAMS = 32  # per network call, to measure batched detection


@dataclass(frozen=True)
class Options:
    """Which model, on how many sentences."""

    model: str = "tiny-en-de-simul"
    sentences: int = 120
    chunk_ms: float = 500
    rollback: int = 3
    seed: int = 0


def matched(segments: Sequence[Segment], sentences: Sequence[Spoken]) -> Iterator[tuple[str, str]]:
    """Translations with their references; overlapping segments and sentences are merged."""
    texts: list[str] = []
    references: list[str] = []
    end = 0
    events = sorted([(s.start_samples, s.end_samples, s.text, "") for s in segments] +
                    [(s.start_samples, s.end_samples, "", s.row.target_text) for s in sentences])  # fmt: skip
    for start, last, text, reference in events:
        if start >= end and (texts or references):
            yield " ".join(filter(None, texts)), " ".join(filter(None, references))
            texts, references = [], []
        texts.append(text)
        references.append(reference)
        end = max(end, last)
    yield " ".join(filter(None, texts)), " ".join(filter(None, references))


def bleu(pairs: Sequence[tuple[str, str]]) -> float:
    """Corpus BLEU of translations and references."""
    return float(sacrebleu.corpus_bleu([text for text, _ in pairs], [[reference for _, reference in pairs]]).score)


def main(options: Options) -> None:
    """Print BLEU for sentences given one by one, and for the recording with each way of cutting it."""
    print(machine())
    lalm = load(options.model, device="cpu")
    config = StreamConfig(chunk_ms=options.chunk_ms, rollback=options.rollback)
    recording: Recording = recite(rows_of(None, options.sentences), options.seed)
    sentences = recording.sentences
    alone = translations(lalm, [recording.audio(s.start_samples, s.end_samples) for s in sentences], config)
    print(f"{len(recording.samples) / SAMPLE_RATE / 60:.1f} min, {len(sentences)} sentences, pauses of 0.1 to 2 s")
    print(f"sentence by sentence: BLEU {bleu([(text, s.row.target_text) for text, s in zip(alone, sentences, strict=True)]):.1f}")
    for longform in [*(SegmentationConfig(min_silence_ms=ms) for ms in (150, 300, 500)), SegmentationConfig(max_segment_s=2.5)]:
        stream = Stream(lalm, config, longform)
        updates = [*stream.push(recording.audio(0, len(recording.samples))), *stream.finish()]
        segments = [u.segment for u in updates if u.segment is not None and u.segment.complete]
        print(
            f"pauses from {longform.min_silence_ms:g} ms, at most {longform.max_segment_s:g} s: "
            f"{len(segments)} segments, BLEU {bleu(list(matched(segments, sentences))):.1f}",
            flush=True,
        )
    started = time.process_time()
    vad = SileroVAD()
    windows = range(0, len(recording.samples) - WINDOW_SAMPLES, WINDOW_SAMPLES)
    for start in windows:
        vad(recording.audio(start, start + WINDOW_SAMPLES))
    alone_s = time.process_time() - started
    started = time.process_time()
    crowd = [SileroVAD() for _ in range(STREAMS)]
    for start in windows:
        SileroVAD.together(crowd, [recording.audio(start, start + WINDOW_SAMPLES)] * STREAMS)
    together_s = (time.process_time() - started) / STREAMS
    print(
        f"voice activity detection: {1000 * alone_s / len(windows):.2f} ms of one core per 32 ms, "
        f"{1000 * together_s / len(windows):.3f} ms per stream with {STREAMS} streams per call"
    )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
