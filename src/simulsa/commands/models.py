"""`simulsa models`: the supported families of audio-language models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulsa.commands.parsing import parse


@dataclass(frozen=True)
class Models:
    """List the known families: an example's id, audio tokens per second, the longest clip, how a GPU decodes, packages needed."""


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parse(Models, arguments, "models")
    from simulsa.lalm.families import EXTRA, FAMILIES

    rows = [("family", "example", "tokens/s", "longest clip", "CUDA graphs", "needs", "status here")]
    for family in FAMILIES:
        missing = family.missing_packages
        status = f"lacks {', '.join(missing)}" if missing else "ready"
        needs = ", ".join(family.packages) or "-"
        graphs = "yes" if family.graphs else "no"
        rows.append((family.name, family.example, f"{family.tokens_per_s:g}", family.longest, graphs, needs, status))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    listeners = " and ".join(family.name for family in FAMILIES if not family.translates)
    print(f"\n{listeners} only transcribe until they are trained to translate. Missing packages: pip install '{EXTRA}'.")
    print("Families marked yes decode with CUDA graphs on a GPU, several times faster.")
    print("All of them are tested with small models of their own classes and random weights, none with its published weights.")
    print("Models of other families are verified when loaded. See docs/models.md.")
