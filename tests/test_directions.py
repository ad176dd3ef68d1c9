"""The languages that an adapter was trained on: recorded, taken by default, and others warned of."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simulsa.cli import main
from simulsa.lalm.load import ModelConfig, load
from simulsa.lalm.parts import RECORD
from simulsa.languages import Direction
from simulsa.manifest import Utterance
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.stream import Stream
from simulsa.testing import FakeLALM, FakeVAD, growing_script
from simulsa.training.train import TrainConfig, adapted, train_adapter
from tests.conftest import noise

Rows = Callable[..., list[Utterance]]
EN_ZH, FR_ZH, EN_DE = Direction("en", "zh"), Direction("fr", "zh"), Direction("en", "de")


def trained(*directions: Direction) -> FakeLALM:
    return FakeLALM(growing_script("Ein Mann"), directions=directions)


@pytest.mark.parametrize(
    ("known", "given", "expected"),
    [
        ((), {}, ("en", "de")),
        ((), {"source_lang": "fr"}, ("fr", "de")),
        ((), {"target_lang": "fr"}, ("en", "fr")),
        ((EN_ZH, FR_ZH), {}, ("en", "zh")),
        ((EN_ZH, FR_ZH), {"source_lang": "fr-CA"}, ("fr-CA", "zh")),
        ((EN_ZH, FR_ZH), {"target_lang": "de"}, ("en", "de")),
        ((EN_ZH, FR_ZH), {"source_lang": "sw"}, ("sw", "zh")),
        ((EN_ZH,), {"source_lang": "de", "target_lang": "en"}, ("de", "en")),
    ],
)
def test_what_is_not_given_is_what_was_trained(
    known: tuple[Direction, ...], given: dict[str, Any], expected: tuple[str, str]
) -> None:
    config = StreamConfig(**given)
    lalm = trained(*known)
    streams = (Stream(lalm, config), Stream(lalm, config, SegmentationConfig(), FakeVAD()))
    assert [(stream.config.source_lang, stream.config.target_lang) for stream in streams] == [expected] * 2


def test_a_server_offers_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("starlette", reason="needs simulsa[serve]")
    from simulsa.serving.config import ServeConfig
    from simulsa.serving.service import Service

    service = Service(trained(EN_ZH), ServeConfig(), StreamConfig())
    assert (service.stream.source_lang, service.stream.target_lang) == ("en", "zh")
    asked = service.settings({"target_language": "de"}, service.stream, "form")
    assert (asked.source_lang, asked.target_lang) == ("en", "de")


def test_training_records_them_and_the_model_warns_of_others(
    random_lalm: Any, make_rows: Rows, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [dataclasses.replace(row, target_lang="zh" if i else "de") for i, row in enumerate(make_rows(3, seconds=0.5))]
    config = TrainConfig(tmp_path / "run", batch_size=4, micro_batch_size=4, epochs=1, preflight=False)
    folder = train_adapter(random_lalm, rows, config)
    assert json.loads((folder / RECORD).read_text())["directions"] == [["en", "zh"], ["en", "de"]]

    for lalm in (load(str(folder), device="cpu"), adapted(random_lalm, folder)):
        lalm.max_target_tokens = 3
        assert lalm.directions == (EN_ZH, EN_DE)
        with caplog.at_level(logging.WARNING, "simulsa"):
            caplog.clear()
            for direction in (EN_ZH, EN_DE, Direction("en-GB", "de-AT"), FR_ZH, FR_ZH):
                lalm.hear([noise(0.5)], [direction])
        assert [record.getMessage() for record in caplog.records] == [
            f"{folder} was not trained on French to Chinese, but on English to Chinese, English to German"
        ]

    monkeypatch.setattr(ModelConfig, "load", lambda _: lalm)
    asked = []
    hear = lalm.hear
    monkeypatch.setattr(lalm, "hear", lambda audios, directions: asked.extend(directions) or hear(audios, directions))
    assert main(["translate", rows[0].audio, "--model", str(folder), "--chunk-ms", "inf"]) == 0
    assert asked == [EN_ZH]


def test_a_base_says_nothing_of_its_directions(random_lalm: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert random_lalm.directions == ()
    random_lalm.hear([noise(0.5)], [FR_ZH])
    assert caplog.records == []


def test_the_embedded_adapter_knows_its_own() -> None:
    assert load("tiny-en-de-simul", device="cpu").directions == (EN_DE,)
