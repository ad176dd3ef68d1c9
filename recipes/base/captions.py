"""Captions spoken once into FLAC files, as rows of a manifest; a killed run can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from recipes.base.synthesis import Synthesisers
from recipes.base.voices import Speaker
from simulsa.audio import SAMPLE_RATE, write_flac
from simulsa.manifest import Utterance, write_manifest

MARGIN_SAMPLES = SAMPLE_RATE // 5  # of silence around an utterance


def spoken_rows(
    pairs: Sequence[tuple[str, str]], name: str, speaker_of: Callable[[int], Speaker], assets: Path, folder: Path
) -> list[Utterance]:
    """`(English, German)` captions as rows `NAME-00000`, …, the n-th by `speaker_of(n)`, with audio and manifest in `folder`.

    An existing file is not spoken again, so `name` must identify captions and speakers. Raises `UnspokenError` for a caption
    that nobody can say.
    """
    synthesisers = Synthesisers(assets)
    rows = []
    for number, (source, target) in enumerate(tqdm(pairs, name, mininterval=10)):
        speaker = speaker_of(number)
        path = folder / name / f"{number:05d}.flac"
        if not path.exists():
            speech = 0.5 * synthesisers.speak(source, speaker, np.random.default_rng(number))
            write_flac(path, np.pad(speech, MARGIN_SAMPLES))
        extra = {"voice": f"{speaker.engine}:{speaker.voice}"}
        rows.append(Utterance(f"{name}-{number:05d}", str(path), "en", "de", target, source_text=source, extra=extra))
    write_manifest(folder / f"{name}.jsonl", rows)
    return rows
