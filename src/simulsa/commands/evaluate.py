"""`simulsa evaluate`: quality and latency over a grid of settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulsa.commands.parsing import parse, show_log, with_default
from simulsa.evaluation.config import EvaluateConfig
from simulsa.extras import require
from simulsa.integrations.ray import LOCAL_CLUSTER, RayConfig, workers_of
from simulsa.lalm.load import ModelConfig


@dataclass(frozen=True)
class Evaluate:
    """Translate a manifest simultaneously and measure BLEU, chrF and latency for each chunk size and policy."""

    manifest: Path
    """test rows (.jsonl)"""
    model: ModelConfig = field(default_factory=ModelConfig)
    settings: EvaluateConfig = field(default_factory=EvaluateConfig)
    cluster: RayConfig = field(default_factory=RayConfig)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Evaluate, with_default(arguments, "--ray", LOCAL_CLUSTER), "evaluate")
    require("evaluation", "evaluate")
    show_log()
    from rich.console import Console
    from rich.markdown import Markdown

    from simulsa.evaluation.evaluate import evaluate
    from simulsa.evaluation.report import markdown_table
    from simulsa.manifest import read_manifest

    rows = read_manifest(command.manifest)
    lalm = command.model.load()
    workers = workers_of(command.cluster, command.model, command.settings.encoder_cache_mib)
    result = evaluate(lalm, rows, command.settings, workers)
    Console().print(Markdown(markdown_table(result.scores)))
