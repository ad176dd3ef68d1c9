"""How fast a corpus becomes a manifest.

    python -m benchmarks.corpora [--clips 20000] [--segments 50000] [--jobs 8] [--folder DIR]

- clips: CoVoST 2's layout, each clip a one-second FLAC file; lengths read by one thread, by several, and from the journal of an
  interrupted run;
- segments: MuST-C's layout, one talk; most of the time goes into parsing the YAML file.
Files are warm in the page cache; on a network disk several threads gain more.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import tyro

from benchmarks.setup import machine
from simulsa.audio import SAMPLE_RATE
from simulsa.corpora.build import write_corpus
from simulsa.corpora.covost2 import Covost2Config, read_covost2
from simulsa.corpora.lengths import audio_lengths
from simulsa.corpora.mustc import MustcConfig, read_mustc

Result = TypeVar("Result")


@dataclass(frozen=True)
class Benchmark:
    """What to measure on."""

    clips: int = 20_000
    """files"""
    segments: int = 50_000
    """slices of one file"""
    jobs: int = 8
    """threads"""
    folder: Path | None = None
    """where the corpora are made, e.g. on the disk in question; by default where temporary files go"""


def main(settings: Benchmark) -> None:
    """Make the corpora, measure, remove them."""
    print(machine())
    with tempfile.TemporaryDirectory(dir=settings.folder) as name:
        _clips(Path(name), settings)
        _segments(Path(name), settings)


def _clips(folder: Path, settings: Benchmark) -> None:
    clips = folder / "cv" / "clips"
    clips.mkdir(parents=True)
    names = [f"common_voice_en_{n}.flac" for n in range(settings.clips)]
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    soundfile.write(clips / names[0], noise, SAMPLE_RATE)
    for name in names[1:]:
        (clips / name).write_bytes((clips / names[0]).read_bytes())
    _write_table(folder / "cv" / "validated.tsv", ("path", "sentence"), [(name, f"Sentence {name}.") for name in names])
    table = [(name, f"Satz {name}.", "train") for name in names]
    _write_table(folder / "cv" / "covost_v2.en_de.tsv", ("path", "translation", "split"), table)
    config = Covost2Config(data=folder / "cv", jobs=settings.jobs)
    rows = _timed("read CoVoST 2's tables", settings.clips, lambda: read_covost2(config))
    paths = [row.audio for row in rows]
    _timed("lengths, 1 thread", settings.clips, lambda: audio_lengths(paths, 1))
    _timed(f"lengths, {settings.jobs} threads", settings.clips, lambda: audio_lengths(paths, settings.jobs))
    audio_lengths(paths, settings.jobs, folder / "journal")
    _timed("lengths, remembered", settings.clips, lambda: audio_lengths(paths, settings.jobs, folder / "journal"))
    _timed("lengths and manifest", settings.clips, lambda: write_corpus(rows, folder / "cv.jsonl", config))


def _segments(folder: Path, settings: Benchmark) -> None:
    data = folder / "en-de" / "data" / "train"
    (data / "wav").mkdir(parents=True)
    (data / "txt").mkdir()
    soundfile.write(data / "wav" / "ted_1.wav", np.zeros(600 * SAMPLE_RATE, dtype=np.int16), SAMPLE_RATE)
    count = settings.segments
    line = "- {{duration: 2.5, offset: {}.08, rW: 9, uW: 0, speaker_id: spk.1, wav: ted_1.wav}}\n"
    (data / "txt" / "train.yaml").write_text("".join(line.format(n % 500) for n in range(count)))
    for lang in ("en", "de"):
        (data / "txt" / f"train.{lang}").write_text("".join(f"{lang} {n}\n" for n in range(count)))
    config = MustcConfig(data=folder / "en-de", jobs=settings.jobs)
    rows = _timed("read MuST-C's segments", count, lambda: read_mustc(config))
    _timed("lengths and manifest", count, lambda: write_corpus(rows, folder / "mustc.jsonl", config))


def _write_table(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)))


def _timed(name: str, count: int, way: Callable[[], Result]) -> Result:
    started = time.perf_counter()
    result = way()
    seconds = time.perf_counter() - started
    print(f"{name:<26}{count:>9,} rows{seconds:>9.2f} s{count / seconds:>12,.0f} rows/s")
    return result


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
