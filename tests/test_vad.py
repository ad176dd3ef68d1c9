"""Silero VAD as it is used: one network, a state for each stream; what is no speech reaches no model."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import torch

from benchmarks.recording import music, silence
from benchmarks.recording import noise as loud_noise
from simulsa.demo.speech import DATA
from simulsa.manifest import read_manifest
from simulsa.streaming import vad
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.stream import Stream
from simulsa.streaming.vad import WINDOW_SAMPLES, SileroVAD, speech_probabilities
from simulsa.testing import FakeLALM, FakeVAD
from tests.conftest import noise


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return read_manifest(DATA / "test.jsonl")[0].load()


def windows(audio: np.ndarray) -> np.ndarray:
    return audio[: len(audio) // WINDOW_SAMPLES * WINDOW_SAMPLES].reshape(-1, WINDOW_SAMPLES)


def test_it_is_the_package_s_own_model(speech: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from silero_vad import load_silero_vad

        theirs = load_silero_vad()
    with torch.inference_mode():
        expected = [float(theirs(torch.from_numpy(window), 16_000)) for window in windows(speech)]
    ours = SileroVAD()
    assert [ours(window) for window in windows(speech)] == expected
    assert max(expected) > 0.95
    ours.reset()
    assert [ours(window) for window in windows(speech)] == expected


def test_streams_share_the_network_and_nothing_else(speech: np.ndarray) -> None:
    alone = SileroVAD()
    expected = [alone(window) for window in windows(speech)]
    one, two = SileroVAD(), SileroVAD()
    heard = []
    for window, other in zip(windows(speech), windows(noise(5)), strict=False):
        heard.append(one(window))
        two(other)
    assert heard == expected


def test_streams_heard_together_are_heard_as_alone(speech: np.ndarray) -> None:
    heard = [windows(speech), windows(noise(3)), windows(speech[8_000:])]
    alone = []
    for stream in heard:
        detector = SileroVAD()
        alone.append([detector(window) for window in stream])
    vads = [SileroVAD() for _ in heard]
    for number in range(max(map(len, heard))):
        rows = [row for row, stream in enumerate(heard) if number < len(stream)]
        found = SileroVAD.together([vads[row] for row in rows], [heard[row][number] for row in rows])
        assert found == pytest.approx([alone[row][number] for row in rows], abs=1e-4)


def test_other_detectors_beside_it(speech: np.ndarray) -> None:
    loud, quiet = windows(speech)[20], np.zeros(WINDOW_SAMPLES, dtype=np.float32)
    found = speech_probabilities([FakeVAD(), SileroVAD(), FakeVAD(), SileroVAD()], [loud, loud, quiet, quiet])
    assert found == pytest.approx([1.0, SileroVAD()(loud), 0.0, SileroVAD()(quiet)], abs=1e-4)


def test_torch_keeps_its_threads() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        sys.modules.pop("silero_vad.model", None)
        sys.modules.pop("silero_vad", None)
        vad._network.cache_clear()
        SileroVAD()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    vad._network.cache_clear()
    with pytest.raises(RuntimeError, match=r"needs the package silero_vad: pip install 'simulsa\[longform\]'"):
        Stream(FakeLALM(lambda audio: ""), None, SegmentationConfig())


@pytest.mark.parametrize("kind", [np.zeros, silence, loud_noise, music])
def test_what_is_no_speech_has_no_text_and_costs_no_pass(kind) -> None:  # type: ignore[no-untyped-def]
    seconds = 10
    audio = np.zeros(seconds * 16_000) if kind is np.zeros else kind(seconds, np.random.default_rng(0))
    lalm = FakeLALM(lambda audio: "Es ist etwas zu hören.")
    stream = Stream(lalm, None, SegmentationConfig())
    assert stream.push(audio) == []
    assert [update.committed for update in stream.finish()] == [""]
    assert lalm.calls == []


def test_speech_in_noise_is_one_segment(speech: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    audio = (
        np.concatenate([silence(1, rng), speech, silence(1, rng)])
        + 0.1 * loud_noise(2 + len(speech) / 16_000, rng)[: len(speech) + 32_000]
    )
    stream = Stream(FakeLALM(lambda audio: "Sprache."), None, SegmentationConfig())
    (segment,) = [u.segment for u in stream.push(audio) + stream.finish() if u.segment is not None and u.segment.complete]
    assert abs(segment.start_samples - 16_000) < 4_000
    assert abs(segment.end_samples - 16_000 - len(speech)) < 4_000
