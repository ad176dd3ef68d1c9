"""A translation that reaches the model's limit of tokens: where it lies, and who is told."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from simulsa.audio import SAMPLE_RATE
from simulsa.evaluation.config import EvaluateConfig
from simulsa.evaluation.evaluate import evaluate
from simulsa.evaluation.instances import read_instances
from simulsa.languages import Direction
from simulsa.manifest import Utterance
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.state import Update
from simulsa.streaming.stream import Stream
from simulsa.testing import FakeLALM, FakeVAD, growing_script
from tests.conftest import noise

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

Rows = Callable[..., list[Utterance]]
TEXT = "Ein Mann in einem roten Hemd fährt Rad"


def bounded(tokens: int) -> FakeLALM:
    """It says a word for every quarter of a second, and no more than so many letters."""
    return FakeLALM(growing_script(TEXT), max_target_tokens=tokens)


@pytest.fixture
def endless(random_lalm: HuggingFaceLALM) -> HuggingFaceLALM:
    """The random model, which never says EOS, with no limit but its own."""
    lalm = copy.copy(random_lalm)
    lalm.max_target_tokens = None
    return lalm


def test_it_grows_with_the_audio_as_far_as_the_context_goes(endless: HuggingFaceLALM) -> None:
    one, two, ten = endless.hear([noise(seconds) for seconds in (1, 2, 10)], [Direction("en", "de")] * 3)
    assert endless.token_limit(one) == 256 + 32
    assert endless.token_limit(two) == 256 + 2 * 32
    assert endless._context == 512
    assert endless.token_limit(ten) == 512 - len(ten)
    assert len(ten) > 125
    endless._context = 8192
    assert endless.token_limit(ten) == 256 + 10 * 32
    endless._context = 100
    assert endless.token_limit(ten) == 1
    endless.max_target_tokens = 7
    endless._context = None
    assert endless.token_limit(ten) == 7


def test_a_translation_goes_on_behind_256_tokens(endless: HuggingFaceLALM) -> None:
    audio, direction = noise(1.0), Direction("en", "de")
    prefix = endless.encode("Zwei Hunde ") * 40
    prefix = prefix[:256]
    heard = endless.hear([audio], [direction])
    [rest] = endless.continue_(heard, [prefix])
    assert rest.truncated
    assert len(prefix) + len(rest.tokens) == endless.token_limit(heard[0]) > 256


@pytest.mark.parametrize("chunk_ms", [500, 700, float("inf")])
def test_an_update_and_the_log_say_so(chunk_ms: float, caplog: pytest.LogCaptureFixture) -> None:
    for tokens, truncated in ((12, True), (1000, False)):
        caplog.clear()
        stream = Stream(bounded(tokens), StreamConfig(chunk_ms=chunk_ms, rollback=0))
        updates = [*stream.push(noise(2.0)), *stream.finish()]
        assert updates[-1].final
        assert updates[-1].truncated is truncated
        assert [record.getMessage().partition(" for ")[0] for record in caplog.records] == [
            "a translation reached the model's limit of 12 tokens"
        ] * truncated
    assert not Update("", "", 0, 0.0, final=True).truncated


def test_a_session_without_end_remembers_it(caplog: pytest.LogCaptureFixture) -> None:
    tone, pause = np.full(2 * SAMPLE_RATE, 0.1, dtype=np.float32), np.zeros(SAMPLE_RATE, dtype=np.float32)
    speech = np.concatenate([tone, pause, tone[: SAMPLE_RATE // 2], pause])  # the second segment fits
    for tokens, truncated in ((12, True), (1000, False)):
        caplog.clear()
        stream = Stream(bounded(tokens), StreamConfig(rollback=0), SegmentationConfig(), FakeVAD())
        updates = [*stream.push(speech), *stream.finish()]
        complete = [update.truncated for update in updates if update.segment is not None and update.segment.complete]
        assert complete == [truncated, False]
        assert updates[-1].final
        assert updates[-1].truncated is truncated
        assert len(caplog.records) == truncated


def test_evaluate_counts_them(make_rows: Rows, tmp_path: Path) -> None:
    rows = [dataclasses.replace(row, target_text=TEXT) for row in make_rows(2)]
    config = EvaluateConfig(chunk_ms=(500.0,), rollback=(0,), out=tmp_path, preflight=False)
    [score] = evaluate(bounded(12), rows, config).scores
    assert score["truncated"] == 2
    assert [instance.truncated for instance in read_instances(tmp_path / "instances-k500-b0.log")] == [True, True]
    assert "truncated" in (tmp_path / "table.md").read_text()
    assert json.loads((tmp_path / "scores.json").read_text())[0]["truncated"] == 2
    [score] = evaluate(bounded(1000), rows, dataclasses.replace(config, overwrite=True)).scores
    assert score["truncated"] == 0
    assert "truncated" not in (tmp_path / "instances-k500-b0.log").read_text()
