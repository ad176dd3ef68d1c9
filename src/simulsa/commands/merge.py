"""`simulsa merge`: an adapter and its base as one model folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from simulsa.commands.parsing import parse
from simulsa.lalm.load import Dtype


@dataclass(frozen=True)
class Merge:
    """Write an adapter, merged into its base, as a model folder that transformers, vLLM and others load."""

    run: tyro.conf.Positional[str]
    """adapter folder made by `simulsa train`, or `tiny-en-de-simul`"""
    out: Path
    """folder of the whole model; must not exist or be empty"""
    dtype: Dtype = "auto"
    """number format of the weights; `auto` is float32"""


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    command = parse(Merge, arguments, "merge")
    from simulsa.lalm.merge import merge

    merge(command.run, command.out, command.dtype)
    print(f"{command.out}: {command.run} and its base in one, checked against them")
