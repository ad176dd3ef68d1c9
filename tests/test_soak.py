"""The soak benchmarks on a few minutes: all that must hold of an hour but the compute, which no test measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import simulsa
from benchmarks.quiet import Options as QuietOptions
from benchmarks.quiet import Quiet, quiet
from benchmarks.recording import Recording, Spoken, record
from benchmarks.soak import Options, Session, Soak, soak, write
from simulsa.demo.speech import DATA
from simulsa.manifest import read_manifest
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.state import Segment, Update
from simulsa.streaming.stream import Stream
from simulsa.testing import FakeLALM, FakeVAD


def test_five_minutes_through_the_embedded_model(tmp_path: Path) -> None:
    result = soak(simulsa.load("tiny-en-de-simul", device="cpu"), Options(minutes=5, chunk_ms=1000))
    assert {name: figures for name, (passed, figures) in result.checks().items() if not passed} == {}
    assert len(result.long.segments) >= 25
    write(result, tmp_path)
    assert len((tmp_path / "soak.csv").read_text().splitlines()) == 6
    assert (tmp_path / "soak.png").stat().st_size > 0


def test_a_recording_is_the_same_for_a_seed_and_has_its_sentences_where_it_says() -> None:
    one, other = record(40, seed=5), record(40, seed=5)
    assert np.array_equal(one.samples, other.samples)
    assert len(one.samples) == 40 * 16_000
    assert not np.array_equal(one.samples, record(40, seed=6).samples)
    assert len(one.sentences) >= 4
    for spoken in one.sentences:
        assert np.abs(one.audio(spoken.start_samples, spoken.end_samples) - spoken.row.load()).max() < 1e-4


@pytest.fixture
def result() -> Soak:
    """A session of one segment, in which everything holds."""
    row = read_manifest(DATA / "test.jsonl")[0]
    recording = Recording(np.zeros(96_000, dtype=np.int16), (Spoken(row, 16_000, 32_000),))

    def session(start: int) -> Session:
        done = Session(Stream(FakeLALM(lambda audio: ""), None, SegmentationConfig(), FakeVAD()), cpu_s=[0.1] * 12)
        done.segments = [Segment(0, start, start + 17_000, "Text.", True)]
        done.last = Update("Text.", "", 96_000, 0.0, True, new="", segment=None)
        return done

    return Soak(recording, 96_000, session(15_000), session(15_000), [500.0] * 12, ["Text."])


def test_the_checks_find_what_is_wrong(result: Soak) -> None:
    assert all(passed for passed, _ in result.checks().values())
    assert (result.difference, result.growth_mib) == (0, 0)

    def failing() -> set[str]:
        return {name for name, (passed, _) in result.checks().items() if not passed}

    result.references = ["Anderes."]
    assert failing() == {"text"}
    result.references, result.memory_mib[-1] = ["Text."], 551.0
    assert failing() == {"memory"}
    result.memory_mib[-1], result.fresh.segments = 500.0, [Segment(0, 15_001, 32_001, "Text.", True)]
    assert failing() == {"times"}
    result.fresh.segments = result.long.segments = [Segment(0, 50_000, 67_000, "Text.", True)]
    assert failing() == {"silence", "speech"}
    result.long.last = Update("Text. Text.", "", 95_999, 0.0, True, new="", segment=None)
    assert failing() == {"silence", "speech", "whole", "clock"}
    result.long.cpu_s = [0.12] * 12
    assert round(result.difference, 6) == 0.2


def test_two_minutes_of_quiet_beside_a_speaker() -> None:
    result = quiet(QuietOptions(minutes=2))
    assert {name: figures for name, (passed, figures) in result.checks().items() if not passed} == {}
    assert len(result.text) > 500


def test_the_checks_find_what_quiet_costs() -> None:
    result = Quiet(memory_mib=[500.0] * 20, text="Text.", reference="Text.")
    assert all(passed for passed, _ in result.checks().values())
    result.not_ready, result.memory_mib[-1], result.text = 1, 505.1, "Text"
    assert not any(passed for passed, _ in result.checks().values())
