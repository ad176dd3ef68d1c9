"""Fixtures: scripted and random models, small audio files, manifests. Nothing is downloaded."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import simulsa.lalm.load
from simulsa.audio import SAMPLE_RATE
from simulsa.manifest import Utterance, write_manifest
from simulsa.training.config import TrainConfig
from tests.score_logs import Lines

CAPTIONS = [
    ("A man in a red shirt rides a bicycle.", "Ein Mann in einem roten Hemd fährt Fahrrad."),
    ("Two dogs play in the snow.", "Zwei Hunde spielen im Schnee."),
    ("A woman sells fruit at a market.", "Eine Frau verkauft Obst auf einem Markt."),
    ("Children climb over a wooden fence.", "Kinder klettern über einen Holzzaun."),
]


if device := os.environ.get("SIMULSA_TEST_DEVICE"):  # `make gpu`: what the tests load on a CPU lies there, as exact as on a CPU
    _resolve = simulsa.lalm.load._resolve
    simulsa.lalm.load._resolve = lambda place, dtype: _resolve(  # type: ignore[misc]
        device if place == "cpu" else place, "float32" if dtype == "auto" else dtype
    )

    # compiling takes longer than all the rest together; what tests it asks for it
    TrainConfig.compiles = lambda config, _: config.compile == "on"  # type: ignore[method-assign]

# Every run draws the same examples (`make test`, CI), unless it looks for new ones (`make fuzz`); no test is about time.
settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", settings.get_profile("fixed"), derandomize=False, max_examples=1000)
settings.load_profile("fixed")


def examples(count: int) -> int:
    """How many examples a test draws that can afford `count` in every run."""
    return count * settings().max_examples // settings.get_profile("fixed").max_examples


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """White noise, float32 at 16 kHz."""
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


@contextlib.contextmanager
def small_disk() -> Iterator[None]:
    """Files can have 20 kB at most; Python ignores the signal, so a write fails like one on a full disk."""
    resource = pytest.importorskip("resource", reason="needs RLIMIT_FSIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(autouse=True)
def restore_log() -> Iterator[None]:
    """Commands send the library's log to standard error, which belongs to one test only."""
    logger = logging.getLogger("simulsa")
    before = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate, logger.level = before


@pytest.fixture(scope="session")
def random_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Qwen2-Audio model of the real classes with random weights (one layer each, 10 s window)."""
    import torch

    from recipes.base.architecture import Shape, build_processor, encoder_settings, random_model
    from recipes.base.text import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer([text for pair in CAPTIONS for text in pair])
    model = random_model(tokenizer, Shape(1, 256, 1024, 4, 2), encoder_settings(width=256, layers=1))
    folder = tmp_path_factory.mktemp("random-model")
    model.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def random_lalm(random_model_folder: Path):  # type: ignore[no-untyped-def]
    """The random model, loaded; it never says EOS, so its answers end at 12 tokens."""
    from simulsa.lalm.load import load

    lalm = load(str(random_model_folder), device="cpu")
    lalm.max_target_tokens = 12
    return lalm


@pytest.fixture
def make_rows(tmp_path: Path) -> Callable[..., list[Utterance]]:
    """`make_rows(count, seconds=2.0)`: rows with noise as audio, written below `tmp_path`; see `write_rows` for a manifest."""

    def make(count: int, seconds: float = 2.0) -> list[Utterance]:
        rows = []
        for i in range(count):
            path = tmp_path / "audio" / f"{i}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, noise(seconds + 0.3 * (i % 4), seed=i), SAMPLE_RATE)
            english, german = CAPTIONS[i % len(CAPTIONS)]
            rows.append(Utterance(f"row-{i}", str(path), "en", "de", german, source_text=english))
        return rows

    return make


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[[list[Utterance]], Path]:
    """Write rows as a manifest in `tmp_path`."""

    def write(rows: list[Utterance]) -> Path:
        write_manifest(tmp_path / "rows.jsonl", rows)
        return tmp_path / "rows.jsonl"

    return write


@pytest.fixture
def written(tmp_path: Path) -> Lines:
    """Write objects (or raw text) as lines of a file."""

    def write(lines: list[Any], name: str = "a.log", end: str = "\n") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + end, encoding="utf-8")
        return path

    return write
