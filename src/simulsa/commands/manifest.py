"""`simulsa manifest`: create, check, count and filter manifests."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from simulsa.commands.parsing import UsageError, parse, show_log
from simulsa.corpora.build import CorpusConfig
from simulsa.corpora.covost2 import Covost2Config, read_covost2
from simulsa.corpora.europarl_st import EuroparlStConfig, read_europarl_st
from simulsa.corpora.filters import FilterConfig
from simulsa.corpora.fleurs import FleursConfig, read_fleurs
from simulsa.corpora.hf_datasets import DatasetsConfig, read_datasets
from simulsa.corpora.lhotse_cuts import LhotseConfig, read_lhotse
from simulsa.corpora.multi30k import Multi30kConfig
from simulsa.corpora.mustc import MustcConfig, read_mustc
from simulsa.corpora.tsv import TsvConfig, read_tsv_table
from simulsa.demo.speech import DemoSpeechConfig
from simulsa.extras import optional
from simulsa.settings import check_number

CORPORA: dict[str, tuple[type[CorpusConfig], Callable[[Any], Sequence[Any]]]] = {
    "covost2": (Covost2Config, read_covost2),
    "fleurs": (FleursConfig, read_fleurs),
    "mustc": (MustcConfig, read_mustc),
    "europarl-st": (EuroparlStConfig, read_europarl_st),
    "datasets": (DatasetsConfig, read_datasets),
    "lhotse": (LhotseConfig, read_lhotse),
    "tsv": (TsvConfig, read_tsv_table),
}


@dataclass(frozen=True)
class Validate:
    """Read a manifest, open every audio file, and report errors."""

    manifest: tyro.conf.Positional[Path]
    """the manifest (.jsonl)"""
    max_s: float | None = None
    """report clips longer than this many seconds, e.g. the model's window"""

    def __post_init__(self) -> None:
        if self.max_s is not None:
            check_number(self, "max_s", lambda value: value > 0, "above 0")


@dataclass(frozen=True)
class Stats:
    """Summarise a manifest: rows, hours, and the distributions of durations and target lengths."""

    manifest: tyro.conf.Positional[Path]
    """the manifest (.jsonl)"""
    out: Path
    """folder for `stats.json` and `stats.png`"""


@dataclass(frozen=True)
class Filter:
    """Remove rows from a manifest and list each with the reason."""

    manifest: tyro.conf.Positional[Path]
    """the manifest (.jsonl)"""
    out: Path
    """the manifest to write (.jsonl); removed rows are listed in `<out>.dropped.tsv`"""
    settings: FilterConfig = field(default_factory=FilterConfig)


@dataclass(frozen=True)
class Multi30k:
    """Synthesise Multi30k captions and write their manifest (needs `simulsa[synthesis]`)."""

    out: Path
    """the manifest to write (.jsonl); audio is written to a folder beside it"""
    settings: Multi30kConfig = field(default_factory=Multi30kConfig)


@dataclass(frozen=True)
class Demo:
    """Write the bundled speech as WAV files with a manifest, to try the commands on."""

    out: Path
    """the manifest to write (.jsonl); audio is written to a folder beside it"""
    settings: DemoSpeechConfig = field(default_factory=DemoSpeechConfig)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    names = ", ".join([*VERBS, *CORPORA])
    if not arguments:
        raise UsageError(f"manifest needs a subcommand: {names}; see simulsa manifest --help")
    verb, *rest = arguments
    if verb in ("-h", "--help"):
        print(_overview())
    elif verb in CORPORA:
        _corpus(verb, rest)
    elif verb in VERBS:
        kind, run = VERBS[verb]
        run(parse(kind, rest, f"manifest {verb}"))
    else:
        raise UsageError(f"unknown subcommand 'manifest {verb}'; it must be one of {names}")


def _overview() -> str:
    kinds = {verb: kind for verb, (kind, _) in {**VERBS, **CORPORA}.items()}
    lines = [f"  {verb:<12} {(kind.__doc__ or '').strip()}" for verb, kind in kinds.items()]
    return "\n".join(
        ["usage: simulsa manifest SUBCOMMAND [OPTIONS]", "", *lines, "", "simulsa manifest SUBCOMMAND --help shows its options."]
    )


def _corpus(verb: str, arguments: Sequence[str]) -> None:
    config, read = CORPORA[verb]
    out = Annotated[Path, tyro.conf.arg(help="the manifest to write (.jsonl); removed rows are listed beside it")]
    kind = dataclasses.make_dataclass("Command", [("out", out), ("settings", config, field(default_factory=config))], frozen=True)
    kind.__doc__ = config.__doc__
    command: Any = parse(kind, arguments, f"manifest {verb}")
    show_log()
    from simulsa.corpora.build import new_output, write_corpus

    new_output(command.out, command.settings.overwrite)  # before anything is read
    rows = write_corpus(read(command.settings), command.out, command.settings)
    print(f"{command.out}: {len(rows)} rows")


def _validate(command: Validate) -> None:
    from simulsa.audio import SAMPLE_RATE, s_to_samples
    from simulsa.manifest import ManifestError, check_audio, read_manifest

    rows = read_manifest(command.manifest)
    longest = None if command.max_s is None else s_to_samples(command.max_s)
    problems = list(check_audio(rows, longest))
    for row, problem in problems:
        print(f"{row.id}: {problem}", file=sys.stderr)
    if problems:
        raise ManifestError(f"{command.manifest}: {len(problems)} of {len(rows)} rows are broken; fix or remove them")
    hours = sum(row.length_samples() for row in rows) / SAMPLE_RATE / 3600
    print(f"{command.manifest}: {len(rows)} rows, {hours:.2f} hours, all audio files open")


def _stats(command: Stats) -> None:
    optional("matplotlib", "evaluate", "the figure")
    from rich.console import Console

    from simulsa.corpora.stats import measure, stats_table, write_stats
    from simulsa.manifest import read_manifest

    measured = measure(read_manifest(command.manifest))
    write_stats(measured, command.out)
    Console().print(stats_table(measured))
    print(f"{command.out}: stats.json, stats.png")


def _filter(command: Filter) -> None:
    show_log()
    from rich.console import Console

    from simulsa.corpora.filters import filter_manifest, filter_table

    kept, dropped = filter_manifest(command.manifest, command.out, command.settings)
    Console().print(filter_table(kept, dropped))
    print(f"{command.out}: {len(kept)} rows")


def _demo(command: Demo) -> None:
    from simulsa.demo.speech import write_demo_speech

    rows = write_demo_speech(command.settings, command.out)
    print(f"{command.out}: {len(rows)} rows")


def _multi30k(command: Multi30k) -> None:
    show_log()
    from simulsa.corpora.multi30k import speak_multi30k

    rows = speak_multi30k(command.settings, command.out)
    print(f"{command.out}: {len(rows)} rows")


VERBS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "validate": (Validate, _validate),
    "stats": (Stats, _stats),
    "filter": (Filter, _filter),
    "demo": (Demo, _demo),
    "multi30k": (Multi30k, _multi30k),
}
