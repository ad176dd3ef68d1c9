"""Augmentation and training of a model of the paper's size with random weights, on a GPU: rows/s, memory, share of the peak.

    python -m benchmarks.paper_size [--rows 256] [--micro-batch-size 16] [--peak-tflops 989]

The model has the shape of Qwen2-Audio-7B (recipes/covost2/estimate.py) and the embedded model's tokenizer. Without a GPU, a few
layers show that the benchmark runs: --layers 2 --tower-layers 2 --width 128 --rows 16.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from benchmarks.setup import machine, rows_of
from recipes.covost2.estimate import Device, Model
from simulsa.audio import SAMPLE_RATE
from simulsa.augmentation.augment import AugmentConfig, augment
from simulsa.lalm.load import load
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.manifest import Utterance
from simulsa.training.config import TrainConfig
from simulsa.training.train import train_adapter

HEAD_WIDTH = 128
TOKENS_PER_S, POSITIONS_PER_S = 25, 50  # of the language model and of the audio tower


@dataclass(frozen=True)
class Options:
    """The model's shape, and how much is measured."""

    layers: int = Model.layers
    tower_layers: int = 32
    width: int = Model.width
    """of the language model; the audio tower has 5/16 of it, as Qwen2-Audio's 1,280 of 4,096"""
    rows: int = 256
    """rows cut, and rows trained on"""
    micro_batch_size: int = 16
    """rows of a forward pass"""
    peak_tflops: float = Device.peak_flops / 1e12
    """the GPU's dense peak in bfloat16 (989: H100, H200)"""


def main(options: Options) -> None:
    """Build the model and print both rates."""
    if not torch.cuda.is_available() and options.layers * options.width > 4096:
        raise SystemExit("paper_size: PyTorch sees no GPU; as a trial: --layers 2 --tower-layers 2 --width 128 --rows 16")
    lalm = build(options)
    print(machine())
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in _parts(lalm).items()}
    print(", ".join(f"{name} {count / 1e9:.2f} billion parameters" for name, count in counts.items()))
    bundled = rows_of(None, options.rows)
    rows = [replace(bundled[i % len(bundled)], id=f"row-{i}") for i in range(options.rows)]
    settings = AugmentConfig(num=options.rows, batch_size=options.micro_batch_size, preflight=False)
    measure("augmentation", lambda: augment(rows, lalm, settings), lalm, rows, operations(lalm, rows, counts, 2), options)
    with tempfile.TemporaryDirectory() as folder:
        train = TrainConfig(
            out=Path(folder) / "run",
            epochs=1,
            batch_size=options.micro_batch_size,
            micro_batch_size=options.micro_batch_size,
            length_grouping=True,
            preflight=False,
        )
        # frozen weights need no gradient: 2 operations a parameter forward, 2 backward
        work = operations(lalm, rows, counts, 4)
        measure("training", lambda: train_adapter(lalm, rows, train), lalm, rows, work, options)


def build(options: Options) -> HuggingFaceLALM:
    """The model, in bfloat16 on the GPU, or in float32 on the CPU where there is none."""
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor, WhisperFeatureExtractor

    embedded = load("tiny-en-de", device="cpu").processor
    extractor = WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)
    processor = Qwen2AudioProcessor(extractor, embedded.tokenizer, chat_template=embedded.chat_template)
    tower_width = options.width * 5 // 16
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 128,
            "d_model": tower_width,
            "encoder_layers": options.tower_layers,
            "encoder_attention_heads": max(1, tower_width // 64),
            "encoder_ffn_dim": 4 * tower_width,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": Model.vocabulary,
            "hidden_size": options.width,
            "intermediate_size": round(options.width * Model.feed_forward / Model.width),
            "num_hidden_layers": options.layers,
            "num_attention_heads": max(1, options.width // HEAD_WIDTH),
            "num_key_value_heads": max(1, options.width // HEAD_WIDTH),
            "tie_word_embeddings": False,
        },
        audio_token_index=embedded.tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    cuda = torch.cuda.is_available()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if cuda else torch.float32)
    try:
        with torch.device("cuda" if cuda else "cpu"):
            model = Qwen2AudioForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(default)
    model.generation_config.eos_token_id = embedded.tokenizer.eos_token_id
    return HuggingFaceLALM(model, processor, "random-7b", "random-7b@0")


def _parts(lalm: HuggingFaceLALM) -> dict[str, torch.nn.Module]:
    whole = lalm.model.model
    return {"audio tower": whole.audio_tower, "language model": whole.language_model}


def operations(lalm: HuggingFaceLALM, rows: Sequence[Utterance], counts: dict[str, int], passes: int) -> float:
    """Operations for `rows`: `passes` a parameter and token in the language model, 2 in the tower, which only runs forward."""
    seconds = sum(row.length_samples() for row in rows) / SAMPLE_RATE
    text = sum(len(lalm.encode(row.target_text)) for row in rows)
    spoken = seconds * POSITIONS_PER_S * 2 * counts["audio tower"]
    return spoken + (seconds * TOKENS_PER_S + text) * passes * counts["language model"]


def measure(
    name: str, work: Callable[[], object], lalm: HuggingFaceLALM, rows: Sequence[Utterance], total: float, options: Options
) -> None:
    """Print rows/s, peak memory and the share of the device's peak."""
    cuda = lalm.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    work()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    line = f"{name:<14}{len(rows) / seconds:8.2f} rows/s"
    if cuda:
        share = total / seconds / (options.peak_tflops * 1e12)
        line += f"{torch.cuda.max_memory_allocated() / 1e9:8.1f} GB at most{share:8.1%} of the peak"
    print(line, flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
