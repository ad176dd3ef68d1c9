"""What the paper's experiment should need: estimates from parameter counts and from rates measured on one GPU.

python -m recipes.covost2.estimate
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recipes.command import run
from simulsa.training.memory import LOGIT_BYTES, PassShape, activation_bytes

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "gpu.md"
"""What `make gpu` measured on this project's GPU, if it has run on one."""


@dataclass(frozen=True)
class Model:
    """The shape of Qwen2-Audio-7B, from its published configuration."""

    layers: int = 32
    width: int = 4096
    feed_forward: int = 11_008
    vocabulary: int = 156_032
    language_model: float = 7.75e9
    """parameters"""
    audio_tower: float = 0.64e9
    """parameters, projector included"""
    lora_r: int = 8

    @property
    def lora(self) -> float:
        """Trained parameters: two matrices for each of the seven linear layers of a decoder layer."""
        attention = 4 * self.lora_r * 2 * self.width
        feed_forward = 3 * self.lora_r * (self.width + self.feed_forward)
        return float(self.layers * (attention + feed_forward))


@dataclass(frozen=True)
class Work:
    """CoVoST 2, English to Chinese, and how it is trained and measured."""

    offline_rows: int = 232_341
    simultaneous_rows: int = 3_000
    test_rows: int = 15_531
    row_s: float = 5.6
    """mean length of a training row (364 h)"""
    tokens_per_s: float = 25
    """audio tokens"""
    text_tokens: int = 60
    """of instruction and translation"""
    epochs: float = 2
    micro_batch_size: int = 16


@dataclass(frozen=True)
class Device:
    """A GPU, and what was measured on it with random weights of the model's shape in bfloat16 (one run each, passes alone).

    These rates are from trials that preceded `make gpu`, whose own rates replace them (see `device_at_hand`).
    """

    memory_gb: float = 80
    peak_flops: float = 989e12
    """bfloat16, dense; H100 and H200"""
    training_share: float = 0.43
    """of the peak: 32 rows of 3 s a pass, decoder layers compiled, H200"""
    reading_share: float = 0.19
    """of the peak: augmentation, 48 rows of 3 s a pass, cuDNN's attention off, H200"""
    token_ms: float = 9.9
    """a decoding step as a CUDA graph, a token for each of `decoded_rows` rows"""
    decoded_rows: int = 16


def rates_in(results: Path) -> dict[str, Any]:
    """The fields of `Device` for which the table of `make gpu` has figures; a part that failed has none."""
    text = results.read_text(encoding="utf-8") if results.exists() else ""
    pass_share = r".* rows/s, ([\d.]+)% of the peak"
    found = {
        "peak_flops": (1e12, re.findall(r"the peak is ([\d.]+) TFLOP/s", text)),
        "training_share": (0.01, re.findall(rf"^\| `train`.* a pass in the middle \|{pass_share}", text, re.MULTILINE)),
        "reading_share": (0.01, re.findall(rf"^\| `augment`, further rows \|{pass_share}", text, re.MULTILINE)),
        "token_ms": (1, re.findall(r"^\| a further token, \d+ streams \| ([\d.]+) ms", text, re.MULTILINE)),
        "decoded_rows": (1, re.findall(r"^\| a further token, (\d+) streams \| [\d.]+ ms", text, re.MULTILINE)),
    }
    # the last row of "a further token" has the most streams
    return {name: unit * float(figures[-1]) for name, (unit, figures) in found.items() if figures and float(figures[-1]) > 0}


def device_at_hand(results: Path = RESULTS) -> Device:
    """The GPU, with rates measured by `make gpu` where available."""
    return replace(Device(), **rates_in(results))


@dataclass(frozen=True)
class EstimateConfig:
    """Model, work and device."""

    model: Model = field(default_factory=Model)
    work: Work = field(default_factory=Work)
    device: Device = field(default_factory=device_at_hand)


def training_memory_gb(model: Model, work: Work) -> dict[str, float]:
    """GB by kind, for rows of mean length, without gradient checkpointing, in compiled layers."""
    tokens = round(work.row_s * work.tokens_per_s + work.text_tokens)
    shape = PassShape(work.micro_batch_size, tokens, model.layers, model.width, model.feed_forward)
    labels = work.micro_batch_size * work.text_tokens / 2
    return {
        "weights (bfloat16)": 2 * (model.language_model + model.audio_tower) / 1e9,
        "adapter, gradients, AdamW (float32)": 16 * model.lora / 1e9,
        "activations": activation_bytes(shape, compiled=True) / 1e9,
        "logits and their gradients (float32)": LOGIT_BYTES * labels * model.vocabulary / 1e9,
    }


def training_hours(model: Model, work: Work, device: Device) -> float:
    """Hours of one GPU for one system: per token and parameter, 2 operations forward and 2 backward, as frozen weights need no
    gradient; the audio tower runs forward only."""
    rows = work.epochs * (work.offline_rows + work.simultaneous_rows)
    text = rows * (work.row_s * work.tokens_per_s + work.text_tokens) * 4 * model.language_model
    audio = rows * work.row_s * 50 * 2 * model.audio_tower  # 50 positions per second
    return (text + audio) / (device.peak_flops * device.training_share) / 3600


def evaluation_hours(
    model: Model, work: Work, device: Device, chunks_s: tuple[float, ...] = (0.5, 1, 1.5, 2, 3, 4, 5.6)
) -> float:
    """Hours of one GPU for one system and three rollbacks; each chunk re-reads its audio and generates the rest of the text."""
    steps = sum(max(1.0, work.row_s / chunk_s) for chunk_s in chunks_s) * 3
    read = steps * (work.row_s / 2 * work.tokens_per_s + work.text_tokens) * 2 * model.language_model
    read_s = read / (device.peak_flops * device.reading_share)
    said_s = steps * work.text_tokens / 2 * device.token_ms / 1000 / device.decoded_rows
    return work.test_rows * (read_s + said_s) / 3600


def estimate(config: EstimateConfig) -> None:
    """Print the estimates."""
    rates = sorted(rates_in(RESULTS).items())
    print("rates of trials on one H200" if not rates else f"rates of docs/results/gpu.md: {', '.join(name for name, _ in rates)}")
    memory = training_memory_gb(config.model, config.work)
    print(f"trained parameters: {config.model.lora / 1e6:.1f} million")
    for kind, gb in memory.items():
        print(f"{kind:<40}{gb:6.1f} GB")
    print(f"{'training, one GPU, in all':<40}{sum(memory.values()):6.1f} of {config.device.memory_gb:g} GB")
    hours = training_hours(config.model, config.work, config.device)
    print(f"training of one system: {hours:.1f} hours of one GPU, {hours / 8:.1f} on eight")
    hours = evaluation_hours(config.model, config.work, config.device)
    print(f"table 1 of one system: {hours:.1f} hours of one GPU, {hours / 8:.1f} on eight")


if __name__ == "__main__":
    run(estimate, EstimateConfig, __doc__)
