"""Seconds per evaluation: simulsa in lock-step versus simulstream's inference and SimulEval, with the same model and policy.

.venv-interop/bin/python -m benchmarks.toolkits --model tiny-en-de-simul          (make interop makes the environment)
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import soundfile
import tyro
import yaml

from benchmarks.setup import machine, rows_of
from simulsa.audio import SAMPLE_RATE
from simulsa.demo.speech import DATA
from simulsa.evaluation.config import EvaluateConfig
from simulsa.evaluation.evaluate import evaluate
from simulsa.evaluation.logs import read_log
from simulsa.lalm.load import Dtype, ModelConfig
from simulsa.manifest import Utterance


@dataclass(frozen=True)
class Options:
    """Which model, on which rows, with which setting."""

    model: str = "tiny-en-de-simul"
    manifest: Path = DATA / "train.jsonl"
    """rows; by default the demo's bundled training speech, of which there is more than of its test speech"""
    utterances: int = 200
    """how many rows"""
    dtype: Dtype = "auto"
    chunk_ms: int = 500
    rollback: int = 3
    batch_size: int = 32
    """of the lock-step"""
    repeats: int = 1
    """of each way, in turns; the fastest counts"""


@dataclass(frozen=True)
class Job:
    """The work, in the form that each tool needs."""

    options: Options
    folder: Path
    rows: list[Utterance]
    lalm: Any
    settings: dict[str, Any]

    def simulsa(self) -> Path:
        """Evaluate in lock-step; returns the path of the log."""
        config = EvaluateConfig(
            chunk_ms=(self.options.chunk_ms,), rollback=(self.options.rollback,), out=self.folder / "simulsa", preflight=False,
            batch_size=self.options.batch_size, overwrite=True,
        )  # fmt: skip
        evaluate(self.lalm, self.rows, config)
        return next((self.folder / "simulsa").glob("instances-*.log"))

    def simulstream(self) -> Path:
        """Do what `simulstream_inference` does after loading."""
        from simulstream.inference import run_inference
        from simulstream.metrics.logger import METRICS_LOGGER, setup_metrics_logger
        from simulstream.server.speech_processors import build_speech_processor

        log = self.folder / "simulstream.jsonl"
        log.unlink(missing_ok=True)
        setup_metrics_logger(SimpleNamespace(enabled=True, filename=str(log)))
        METRICS_LOGGER.setLevel(logging.INFO)
        chunk_s = self.options.chunk_ms / 1000
        kind = "simulsa.integrations.simulstream.SimulsaProcessor"
        processor = build_speech_processor(SimpleNamespace(type=kind, speech_chunk_size=chunk_s, **self.settings))
        run_inference(processor, [row.audio for row in self.rows], "de", "en")
        return log

    def simuleval(self) -> Path:
        """Do what `simuleval` does after loading."""
        from simuleval.cli import main as command

        values = {
            "agent-class": "simulsa.integrations.simuleval.SimulsaAgent", "settings": self.folder / "settings.yaml",
            "source-segment-size": self.options.chunk_ms, "source": self.folder / "wavs", "target": self.folder / "references",
            "output": self.folder / "simuleval",
        }  # fmt: skip
        flags = [text for name, value in values.items() for text in (f"--{name}", str(value))]
        with patch.object(sys, "argv", ["simuleval", *flags, "--no-progress-bar"]):
            command()
        return self.folder / "simuleval" / "instances.log"


def prepare(options: Options, folder: Path) -> Job:
    """Prepare WAV files, lists of them, the settings, and the model, which is loaded once for all tools."""
    rows = []
    for row in rows_of(options.manifest, options.utterances):
        path = folder / f"{row.id}.wav"
        soundfile.write(path, row.load(), SAMPLE_RATE, subtype="PCM_16")
        rows.append(replace(row, audio=str(path), start_s=0.0, duration_s=None))
    (folder / "wavs").write_text("".join(f"{row.audio}\n" for row in rows))
    (folder / "references").write_text("".join(f"{row.target_text}\n" for row in rows))
    settings = {"model": options.model, "rollback": options.rollback}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    return Job(options, folder, rows, ModelConfig(options.model, dtype=options.dtype).load(), settings)


def measured(run: Callable[[], Path]) -> tuple[float, float, Path]:
    """Wall and processor seconds of a run, and its log."""
    wall, cpu = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        log = run()
    return time.perf_counter() - wall, time.process_time() - cpu, log


def main(options: Options) -> None:
    """Print the seconds for each tool, the ratios to lock-step, and whether texts and delays are the same."""
    print(machine())
    logging.disable(logging.INFO - 1)
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(options, Path(folder))
        ways = {"simulsa": job.simulsa, "simulstream": job.simulstream, "SimulEval": job.simuleval}
        with patch.object(ModelConfig, "load", lambda _: job.lalm):  # loading is not measured
            rounds = [{name: measured(way) for name, way in ways.items()} for _ in range(options.repeats)]
        found = {name: read_log(log) for name, (_, _, log) in rounds[-1].items()}
    speech_s = sum(recording.source_length_ms or 0 for recording in found["simulsa"].recordings) / 1000
    print(f"{len(job.rows)} utterances, {speech_s:.1f} s of speech, k = {options.chunk_ms} ms, b = {options.rollback}")
    wall = {name: min(each[name][0] for each in rounds) for name in ways}
    cpu = {name: min(each[name][1] for each in rounds) for name in ways}
    for name in ways:
        print(
            f"{name:11} {wall[name]:7.1f} s ({wall[name] / wall['simulsa']:.2f} times simulsa's), "
            f"{cpu[name]:7.1f} s of processor time ({cpu[name] / cpu['simulsa']:.2f} times)"
        )
    outputs = {name: {(r.name, r.prediction, r.delays_ms) for r in log.recordings} for name, log in found.items()}
    for name in ("simulstream", "SimulEval"):
        print(f"the same text and delays as simulsa by {name}: {len(outputs['simulsa'] & outputs[name])} of {len(job.rows)}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
