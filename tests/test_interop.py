"""simulsa inside simulstream and SimulEval: their own commands on the bundled speech, against simulsa's evaluation."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE
from simulsa.cli import main
from simulsa.demo.speech import DATA
from simulsa.evaluation.diagnostics import flicker
from simulsa.evaluation.instances import Instance, read_instances
from simulsa.evaluation.logs import read_log
from simulsa.evaluation.score import ScoreConfig, score_log
from simulsa.integrations.tools import AppendOnlyText, from_pieces, pieces
from simulsa.manifest import Utterance, read_manifest, write_manifest
from simulsa.settings import SettingsError
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.state import Update
from simulsa.streaming.stream import Stream
from simulsa.testing import FakeLALM, growing_script
from tests.conftest import examples

DOCS = Path(__file__).parents[1] / "docs"
CHUNK_MS, ROLLBACK = 500, 3


@pytest.fixture(autouse=True)
def _quiet_tools() -> Iterator[None]:
    """Both tools set the root logger up when they are imported."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five bundled clips as WAV files, lists of them and of their references, a manifest.

    The third is a whole number of chunks long; in the last, a comma comes a chunk later than the word before it.
    """
    folder = tmp_path_factory.mktemp("interop")
    rows: list[Utterance] = []
    bundled = read_manifest(DATA / "test.jsonl")
    for row in (*bundled[:4], bundled[13]):
        audio = row.load()
        if len(rows) == 2:
            audio = audio[: len(audio) // 8000 * 8000]
        path = folder / f"{row.id}.wav"
        soundfile.write(path, audio, SAMPLE_RATE, subtype="PCM_16")
        rows.append(dataclasses.replace(row, audio=str(path), start_s=0.0, duration_s=None))
    write_manifest(folder / "rows.jsonl", rows)
    (folder / "wavs.txt").write_text("".join(f"{row.audio}\n" for row in rows))
    (folder / "references.txt").write_text("".join(f"{row.target_text}\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def scores(folder: Path) -> dict[str, Any]:
    """Of `simulsa evaluate`, in lock-step."""
    arguments = ["--model", "tiny-en-de-simul", "--chunk-ms", str(CHUNK_MS), "--rollback", str(ROLLBACK)]
    logger = logging.getLogger("simulsa")
    before = logger.handlers, logger.propagate, logger.level
    assert main(["evaluate", "--manifest", str(folder / "rows.jsonl"), "--out", str(folder / "ours"), *arguments]) == 0
    logger.handlers, logger.propagate, logger.level = before
    (only,) = json.loads((folder / "ours" / "scores.json").read_text())
    return dict(only)


@pytest.fixture(scope="module")
def our_log(folder: Path, scores: dict[str, Any]) -> Path:
    (log,) = (folder / "ours").glob("instances-*.log")
    return log


@pytest.fixture(scope="module")
def ours(our_log: Path) -> list[Instance]:
    return read_instances(our_log)


@pytest.fixture(scope="module")
def simulstream_log(folder: Path) -> Path:
    """What simulstream's inference command logs with the settings in the documentation."""
    pytest.importorskip("simulstream", reason="needs simulsa[simulstream]")
    from simulstream.inference import cli_main
    from simulstream.metrics.logger import METRICS_LOGGER

    METRICS_LOGGER.setLevel(logging.INFO)  # it has the root's level, which pytest's handlers keep simulstream from setting
    log = folder / "simulstream.jsonl"
    _command(
        cli_main, "--speech-processor-config", DOCS / "simulstream.yaml", "--wav-list-file", folder / "wavs.txt",
        "--tgt-lang", "de", "--src-lang", "en", "--metrics-log-file", log,
    )  # fmt: skip
    METRICS_LOGGER.handlers.clear()
    return log


@pytest.fixture(scope="module")
def simuleval_out(folder: Path) -> Path:
    """What SimulEval's command writes with the settings in the documentation."""
    pytest.importorskip("simuleval", reason="SimulEval is not installed here: make interop")
    from simuleval.cli import main as simuleval

    out = folder / "simuleval"
    _command(
        simuleval, "--agent-class", "simulsa.integrations.simuleval.SimulsaAgent", "--settings", DOCS / "simuleval.yaml",
        "--source-segment-size", CHUNK_MS, "--source", folder / "wavs.txt", "--target", folder / "references.txt",
        "--output", out, "--latency-metrics", "AL", "LAAL", "AP", "DAL", "--no-progress-bar",
    )  # fmt: skip
    return out


def _command(run: Callable[[], object], *arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, arguments)])
        run()


# all three ----------------------------------------------------------------------------------------------------------------------
def test_the_three_toolkits_agree(folder: Path, simulstream_log: Path, simuleval_out: Path, our_log: Path) -> None:
    """By the text, the delays and every score that does not count computing time, read with one reader."""
    logs = {"simulsa": our_log, "SimulEval": simuleval_out / "instances.log", "simulstream": simulstream_log}
    read = {tool: read_log(path) for tool, path in logs.items()}
    assert {log.tool for log in read.values()} == set(logs)
    for recordings in zip(*(log.recordings for log in read.values()), strict=True):
        assert len({(found.name, found.prediction, found.delays_ms, found.source_length_ms) for found in recordings}) == 1
    scores = [score_log(path, ScoreConfig(folder / "rows.jsonl")) for path in logs.values()]
    same = [key for key in scores[0] if key not in ("log", "tool", "elapsed", "notes")]
    assert {"bleu", "laal_ms", "yaal_ms", "normalised_erasure"} <= set(same)
    assert [{key: found[key] for key in same} for found in scores] == [{key: scores[0][key] for key in same}] * 3
    assert all(found["ca_laal_ms"] > found["laal_ms"] for found in scores[1:])


# simulstream --------------------------------------------------------------------------------------------------------------------
def test_simulstream_gives_the_same_text_and_delays(simulstream_log: Path, ours: list[Instance]) -> None:
    from simulstream.config import yaml_config
    from simulstream.metrics.readers import LogReader

    outputs = LogReader(yaml_config(str(DOCS / "simulstream.yaml")), str(simulstream_log)).final_outputs_and_latencies()
    assert list(outputs) == [instance.id for instance in ours]
    for instance, output in zip(ours, outputs.values(), strict=True):
        assert output.final_text == instance.prediction
        assert np.round(1000 * np.array(output.ideal_delays), 6).tolist() == list(instance.delays_ms)


def test_simulstream_counts_no_flicker(simulstream_log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from simulstream.metrics.stats import cli_main

    _command(cli_main, "--eval-config", DOCS / "simulstream.yaml", "--log-file", simulstream_log)
    stats = json.loads(capsys.readouterr().out.removeprefix("Stats: "))
    assert stats["normalized_erasure"]["value"] == 0
    assert stats["real_time_factor"]["value"] > 0


def test_simulstream_scores_latency(
    folder: Path, simulstream_log: Path, scores: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mweralign", reason="simulstream's scorers need mweralign: make interop")
    from simulstream.metrics.score_latency import cli_main

    # a segment per recording: nothing to align, so StreamLAAL is LAAL
    segments = [
        {"wav": wav, "offset": 0.0, "duration": soundfile.info(wav).frames / SAMPLE_RATE}
        for wav in (folder / "wavs.txt").read_text().split()
    ]
    (folder / "segments.yaml").write_text(yaml.safe_dump(segments))
    _command(
        cli_main, "--eval-config", DOCS / "simulstream.yaml", "--log-file", simulstream_log, "--scorer", "stream_laal",
        "--audio-definition", folder / "segments.yaml", "--reference", folder / "references.txt",
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert f"ideal_latency={scores['laal_ms'] / 1000:.6f}"[:-1] in printed


def test_simulstream_serves_it(folder: Path, ours: list[Instance]) -> None:
    """To a client that sends 100 ms at a time, and to simulstream's own, which sends the last 100 ms twice."""
    pytest.importorskip("simulstream", reason="needs simulsa[simulstream]")
    import websockets
    from simulstream.client.wav_reader_client import stream_wav_files
    from simulstream.config import yaml_config
    from simulstream.metrics.logger import METRICS_LOGGER, setup_metrics_logger
    from simulstream.server.websocket_server import SpeechProcessorPool, connection_handler_factory
    from websockets.asyncio.server import serve

    wav = ours[0].source

    async def said(uri: str) -> str:
        async with websockets.connect(uri) as client:
            await client.send(json.dumps({"sample_rate": SAMPLE_RATE, "source_lang": "en", "target_lang": "de"}))
            samples = soundfile.read(wav, dtype="int16")[0]
            for start in range(0, len(samples), 1600):
                await client.send(samples[start : start + 1600].tobytes())
            await client.send(json.dumps({"end_of_stream": True}))
            text = ""
            while "end_of_processing" not in (message := json.loads(await client.recv())):
                assert message["deleted"] == ""
                text += message["new"]
        return text

    async def run() -> str:
        server_settings = yaml_config(str(DOCS / "simulstream-server.yaml"))
        pool = SpeechProcessorPool(
            yaml_config(str(DOCS / "simulstream.yaml")), server_settings.pool_size, server_settings.acquire_timeout
        )
        async with serve(connection_handler_factory(pool), "127.0.0.1", 0) as server:
            uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            text = await said(uri)
            METRICS_LOGGER.setLevel(logging.INFO)
            setup_metrics_logger(SimpleNamespace(enabled=server_settings.metrics.enabled, filename=str(folder / "served.jsonl")))
            await stream_wav_files(uri, [wav], 100, "de", "en")
            METRICS_LOGGER.handlers.clear()
        return text

    assert asyncio.run(run()) == ours[0].prediction
    (recording,) = read_log(folder / "served.jsonl").recordings
    assert recording.name == ours[0].id
    early = sum(delay < ours[0].source_length_ms for delay in ours[0].delays_ms)
    assert recording.prediction.split()[:early] == ours[0].prediction.split()[:early]
    assert recording.delays_ms[:early] == ours[0].delays_ms[:early]


@given(data=st.data(), unit=st.sampled_from(["word", "char"]))
@settings(max_examples=examples(100), deadline=None)
def test_simulstreams_reader_and_ours_agree_on_any_log(data: st.DataObject, unit: str, tmp_path_factory: Any) -> None:
    pytest.importorskip("simulstream", reason="needs simulsa[simulstream]")
    from simulstream.metrics.readers import LogReader
    from simulstream.metrics.stats import NormalizedErasure

    tokens: list[str] = []
    lines: list[dict[str, Any]] = [{"id": 0, "metadata": {"wav_name": "a.wav"}}]
    for step in range(1, data.draw(st.integers(1, 8)) + 1):
        deleted = tokens[len(tokens) - data.draw(st.integers(0, len(tokens))) :]
        new = data.draw(st.lists(st.sampled_from(["▁a", "▁bb", "c", "d"]), max_size=4))
        tokens = tokens[: len(tokens) - len(deleted)] + new
        times = {"total_audio_processed": 0.5 * step, "computation_time": 0.125}
        lines.append({"id": 0, **times, "generated_tokens": new, "deleted_tokens": deleted})
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    theirs = LogReader(SimpleNamespace(detokenizer_type="simuleval", latency_unit="spm"), str(path), unit)
    (recording,) = read_log(path, unit, tokens="sentencepiece").recordings
    output = theirs.final_outputs_and_latencies()["a"]
    assert recording.prediction == output.final_text
    assert recording.delays_ms == tuple(1000 * delay for delay in output.ideal_delays)
    assert recording.elapsed_ms == tuple(1000 * delay for delay in output.computational_aware_delays)
    if recording.delays_ms:
        assert flicker([recording])["normalised_erasure"] == NormalizedErasure().compute(theirs)


def processor(script: str = "Ein Mann fährt Rad", lang: str = "de", **config: Any) -> Any:
    pytest.importorskip("simulstream", reason="needs simulsa[simulstream]")
    from simulsa.integrations.simulstream import SimulsaProcessor
    from simulsa.lalm.load import ModelConfig

    values = SimpleNamespace(type="…", speech_chunk_size=0.5, target_lang=lang, rollback=0, **config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelConfig, "load", lambda _: FakeLALM(growing_script(script)))
        patch.setattr(SimulsaProcessor, "_loaded", {})
        SimulsaProcessor.load_model(values)
        return SimulsaProcessor(values)


def chunk(samples: int = 8000) -> np.ndarray:
    return np.zeros(samples, dtype=np.float32)


def test_a_pause_between_two_stretches_of_speech_is_a_space() -> None:
    speech = processor()
    assert speech.process_chunk(chunk()).new_string == "Ein Mann"
    last = speech.end_of_stream()
    assert (last.new_tokens, last.new_string) == ([], "")
    again = speech.process_chunk(chunk())
    assert (again.new_tokens, again.new_string) == (["▁Ein", "▁Mann"], " Ein Mann")
    assert speech.tokens_to_string(again.new_tokens) == again.new_string
    speech.end_of_stream()
    speech.clear()
    assert speech.process_chunk(chunk()).new_string == "Ein Mann"


def test_simulstreams_wrapper_cuts_a_talk_at_its_pauses() -> None:
    pytest.importorskip("silero_vad", reason="simulstream's wrapper for voice activity needs silero-vad")
    pytest.importorskip("simulstream", reason="needs simulsa[simulstream]")
    from simulstream.server.message_processor import MessageProcessor
    from simulstream.server.speech_processors import build_speech_processor

    from simulsa.integrations.simulstream import SimulsaProcessor
    from simulsa.lalm.load import ModelConfig

    spoken = (talk() * 32767).astype(np.int16)
    wrapper = "simulstream.server.speech_processors.vad_wrapper.VADWrapperSpeechProcessor"
    base = "simulsa.integrations.simulstream.SimulsaProcessor"
    values = SimpleNamespace(type=wrapper, base_speech_processor_class=base, speech_chunk_size=0.5, rollback=0)
    values.vad_min_silence_duration_ms = 500  # a natural voice pauses for a tenth of a second within a sentence
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelConfig, "load", lambda _: FakeLALM(growing_script("Ein Mann fährt Rad")))
        patch.setattr(SimulsaProcessor, "_loaded", {})
        speech = MessageProcessor(0, build_speech_processor(values))
        outputs = [speech.process_speech(spoken[start : start + 8000].tobytes()) for start in range(0, len(spoken), 8000)]
        outputs.append(speech.end_of_stream())
    assert "".join(output.new_string for output in outputs if output) == "Ein Mann fährt Rad Ein Mann fährt Rad"


def talk() -> np.ndarray:
    """Two sentences between pauses."""
    pause = np.zeros(24_000, dtype=np.float32)
    first, second = (row.load() for row in read_manifest(DATA / "test.jsonl")[:2])
    return np.concatenate([pause, first, pause, second, pause])


def followed(samples: np.ndarray) -> str:
    """What `Stream` says to it."""
    stream = Stream(FakeLALM(growing_script("Ein Mann fährt Rad")), StreamConfig(rollback=0), SegmentationConfig())
    stream.push(samples)
    return stream.finish()[-1].committed


def test_a_talk_longer_than_the_window_is_followed_with_longform() -> None:
    pytest.importorskip("silero_vad", reason="long-form streaming needs silero-vad")
    samples = talk()
    speech = processor(longform=True, min_silence_ms=500)
    for _ in range(2):
        outputs = [speech.process_chunk(samples[start : start + 8_000]) for start in range(0, len(samples), 8_000)]
        outputs.append(speech.end_of_stream())
        speech.clear()
        assert "".join(output.new_string for output in outputs) == followed(samples) == "Ein Mann fährt Rad Ein Mann fährt Rad"
        assert sum(bool(output.new_tokens) for output in outputs) >= 4
        assert from_pieces([token for output in outputs for token in output.new_tokens]) == followed(samples)


def test_segments_go_with_longform() -> None:
    with pytest.raises(SettingsError, match="min_silence_ms is a long-form setting; it requires longform: true"):
        processor(min_silence_ms=300)
    with pytest.raises(SettingsError, match="longform is 'yes'; it must be true or false"):
        processor(longform="yes")
    with pytest.raises(SettingsError, match="min_silence_ms is 1"):
        processor(longform=True, min_silence_ms=1)


def test_nothing_said_is_nothing_written() -> None:
    speech = processor()
    assert speech.end_of_stream().new_tokens == []
    assert speech.process_chunk(chunk(100)).new_tokens == []


def test_languages_come_before_the_speech_and_go_with_the_client() -> None:
    speech = processor()
    speech.set_target_language("fr")
    speech.set_source_language("es")
    assert (speech._stream.config.source_lang, speech._stream.config.target_lang) == ("es", "fr")
    speech.process_chunk(chunk(10))
    with pytest.raises(ValueError, match="before the first audio"):
        speech.set_target_language("de")
    speech.clear()
    assert (speech._stream.config.source_lang, speech._stream.config.target_lang) == ("en", "de")
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        speech.set_target_language("xx")


@pytest.mark.parametrize("size", [None, "0.5", 0.04333, 1.001])
def test_a_chunk_of_broken_samples_is_refused(size: object) -> None:
    pytest.importorskip("simulstream", reason="needs simulsa[simulstream]")
    from simulsa.integrations.simulstream import SimulsaProcessor

    with pytest.raises(ValueError, match=r"speech_chunk_size is .* whole number of samples"):
        SimulsaProcessor.load_model(SimpleNamespace(type="…", speech_chunk_size=size))


def test_an_unknown_setting_names_the_nearest_and_the_wrapper_for_pauses_keeps_its_own() -> None:
    with pytest.raises(SettingsError, match=r"unknown key 'modle'; did you mean 'model'\?"):
        processor(modle="tiny-en-de")
    assert processor(vad_threshold=0.4, base_speech_processor_class="…", min_speech_size=1).speech_chunk_size == 0.5


# SimulEval ----------------------------------------------------------------------------------------------------------------------
def test_simuleval_gives_the_same_text_delays_and_scores(
    simuleval_out: Path, ours: list[Instance], scores: dict[str, Any]
) -> None:
    lines = [json.loads(line) for line in (simuleval_out / "instances.log").read_text().splitlines()]
    assert [line["index"] for line in lines] == [instance.index for instance in ours]
    for line, instance in zip(lines, ours, strict=True):
        assert line["prediction"] == instance.prediction
        assert line["delays"] == list(instance.delays_ms)
        assert line["source_length"] == instance.source_length_ms
        assert all(done >= heard for done, heard in zip(line["elapsed"], line["delays"], strict=True))
    with open(simuleval_out / "scores.tsv", encoding="utf-8") as file:
        (theirs,) = csv.DictReader(file, delimiter="\t")
    for name, key in {"BLEU": "bleu", "AL": "al_ms", "LAAL": "laal_ms", "AP": "ap", "DAL": "dal_ms"}.items():
        assert float(theirs[name]) == round(scores[key], 3), name


def agent(tmp_path: Path, segment_ms: int = 500, text: str = "rollback: 0") -> Any:
    pytest.importorskip("simuleval", reason="SimulEval is not installed here: make interop")
    from simulsa.integrations.simuleval import SimulsaAgent
    from simulsa.lalm.load import ModelConfig

    (tmp_path / "settings.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelConfig, "load", lambda _: FakeLALM(growing_script("Ein Mann fährt Rad")))
        return SimulsaAgent(SimpleNamespace(settings=str(tmp_path / "settings.yaml"), source_segment_size=segment_ms))


def segment(**values: Any) -> Any:
    from simuleval.data.segments import SpeechSegment

    return SpeechSegment(**{"content": [0.0] * 8000, "sample_rate": SAMPLE_RATE, "tgt_lang": "de", **values})


def test_the_agent_writes_what_each_segment_added(tmp_path: Path) -> None:
    translator = agent(tmp_path)
    for _ in range(2):
        outputs = [translator.pushpop(segment(finished=finished)) for finished in (False, True)]
        assert [output.content for output in outputs] == ["Ein Mann", " fährt Rad"]
        assert [output.finished for output in outputs] == [False, True]
        translator.reset()


def test_the_agent_follows_a_talk_with_longform(tmp_path: Path) -> None:
    samples = talk()
    translator = agent(tmp_path, text="longform: true\nrollback: 0")
    chunks = [samples[start : start + 8_000].tolist() for start in range(0, len(samples), 8_000)]
    outputs = [translator.pushpop(segment(content=chunk)) for chunk in chunks[:-1]]
    outputs.append(translator.pushpop(segment(content=chunks[-1], finished=True)))
    assert "".join(output.content for output in outputs if output.content) == followed(samples)
    assert outputs[-1].finished


def test_the_agent_refuses_what_it_cannot_hear(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at 44100 Hz; 16000 is needed"):
        agent(tmp_path).pushpop(segment(sample_rate=44100))
    with pytest.raises(SettingsError, match="--source-segment-size is 1 ms"):
        agent(tmp_path, segment_ms=1)
    with pytest.raises(SettingsError, match=r"settings\.yaml: unknown key 'chunk_ms'"):
        agent(tmp_path, text="chunk_ms: 500")


# what both share ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "Ein Mann", " fährt", "rad .", "你好 世界"])
def test_pieces_are_the_text_again(text: str) -> None:
    assert from_pieces(pieces(text)) == text


def test_growth_is_what_scorers_count() -> None:
    growth = AppendOnlyText()
    added = [growth.of([Update(text, "", 0, 0.0, False)]) for text in ("Ein ", "Ein \n Mann", "Ein \n Mann.")]
    assert added == ["Ein", " Mann", "."]
    assert growth.of([]) == ""


def test_the_settings_in_the_documentation_are_the_same_for_both() -> None:
    theirs, agents = (yaml.safe_load((DOCS / name).read_text()) for name in ("simulstream.yaml", "simuleval.yaml"))
    assert agents.items() <= theirs.items()
