"""`simulsa manifest`: make and check manifests."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from simulsa.commands.parsing import UsageError, parse, show_log
from simulsa.corpora.multi30k import Multi30kConfig


@dataclass(frozen=True)
class Validate:
    """Read a manifest, open every audio file, and say what is wrong."""

    manifest: tyro.conf.Positional[Path]
    """the manifest (.jsonl)"""
    max_s: float | None = None
    """report clips longer than this many seconds, e.g. the model's window"""


@dataclass(frozen=True)
class Multi30k:
    """Speak Multi30k captions with the synthesiser and write their manifest (needs `simulsa[synthesis]`)."""

    out: Path
    """the manifest to write (.jsonl); audio goes into a folder beside it"""
    settings: Multi30kConfig = field(default_factory=Multi30kConfig)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    verbs = {"validate": _validate, "multi30k": _multi30k}
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: simulsa manifest {validate,multi30k} [OPTIONS]")
        if not arguments:
            raise UsageError("manifest needs a verb: validate or multi30k")
        return
    if arguments[0] not in verbs:
        raise UsageError(f"unknown command 'manifest {arguments[0]}'; use validate or multi30k")
    verbs[arguments[0]](arguments[1:])


def _validate(arguments: Sequence[str]) -> None:
    command = parse(Validate, arguments, "manifest validate")
    from simulsa.audio import SAMPLE_RATE, s_to_samples
    from simulsa.manifest import ManifestError, check_audio, read_manifest

    rows = read_manifest(command.manifest)
    longest = None if command.max_s is None else s_to_samples(command.max_s)
    problems = list(check_audio(rows, longest))
    for row, problem in problems:
        print(f"{row.id}: {problem}", file=sys.stderr)
    if problems:
        raise ManifestError(f"{command.manifest}: {len(problems)} of {len(rows)} rows are broken; remove or mend them")
    hours = sum(row.length_samples() for row in rows) / SAMPLE_RATE / 3600
    print(f"{command.manifest}: {len(rows)} rows, {hours:.2f} hours, all audio files open")


def _multi30k(arguments: Sequence[str]) -> None:
    command = parse(Multi30k, arguments, "manifest multi30k")
    show_log()
    from simulsa.corpora.multi30k import speak_multi30k

    rows = speak_multi30k(command.settings, command.out)
    print(f"{command.out}: {len(rows)} rows")
