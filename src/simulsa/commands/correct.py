"""`simulsa correct`: training rows from full stops that a tuned model sets too early."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulsa.augmentation.correct import CorrectConfig
from simulsa.commands.parsing import parse, show_log
from simulsa.lalm.load import ModelConfig


@dataclass(frozen=True)
class Correct:
    """Let a tuned model translate while the speaker talks, and make a row of each full stop that came too early."""

    manifest: Path
    """offline rows (.jsonl)"""
    out: Path
    """where the rows go (.jsonl)"""
    model: ModelConfig = field(default_factory=lambda: ModelConfig("tiny-en-de-simul"))
    judge: str = "base"
    """the model that judges by the whole audio; `base` is the one that --model, an adapter, was trained on"""
    settings: CorrectConfig = field(default_factory=CorrectConfig)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Correct, arguments, "correct")
    show_log()
    from simulsa.augmentation.correct import correct
    from simulsa.lalm.load import base_of
    from simulsa.manifest import read_manifest

    rows = read_manifest(command.manifest)
    lalm = command.model.load()
    judge_name = base_of(command.model.model) if command.judge == "base" else command.judge
    judge = dataclasses.replace(command.model, model=judge_name, instruction=lalm.instruction).load()
    correct(rows, lalm, judge, command.settings, command.out)
