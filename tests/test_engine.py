"""A model on an engine: the verbs, the commands, what is refused. The engine is scripted (tests/test_vllm.py has a real one)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from simulsa.audio import SAMPLE_RATE
from simulsa.augmentation.augment import AugmentError, augment
from simulsa.augmentation.config import AugmentConfig
from simulsa.cli import main
from simulsa.demo.speech import DATA
from simulsa.evaluation.config import EvaluateConfig
from simulsa.evaluation.evaluate import evaluate
from simulsa.files import write_json
from simulsa.integrations.tools import Setup
from simulsa.lalm.engine import UNMASKED, EngineLALM
from simulsa.lalm.interface import Heads, LALMError, Want
from simulsa.lalm.load import ModelConfig, load
from simulsa.lalm.parts import EMBEDDED_MODELS
from simulsa.languages import Direction
from simulsa.manifest import Utterance, read_manifest
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.policies import Policy
from simulsa.streaming.stream import Stream
from simulsa.training.config import TrainConfig
from simulsa.training.train import train
from tests.conftest import noise
from tests.engine_server import Scripted, engine
from tests.engine_server import impatient as impatient
from tests.lalms import sentences

EN_DE = Direction("en", "de")
LONGEST = 24  # tokens
Rows = Callable[..., list[Utterance]]
Write = Callable[[list[Utterance]], Path]


def short(lalm: Any) -> Any:
    lalm.max_target_tokens = LONGEST
    return lalm


@pytest.fixture
def make_rows() -> Rows:
    """Bundled sentences in place of noise, to which the bundled model has nothing to say."""
    return lambda count: read_manifest(DATA / "test.jsonl")[:count]


@pytest.fixture(scope="module")
def lalms() -> dict[str, Any]:
    return {name: short(load(name, "cpu")) for name in ("tiny-en-de", "tiny-en-de-simul")}


@pytest.fixture(scope="module")
def here(lalms: dict[str, Any]) -> Any:
    return lalms["tiny-en-de"]


@pytest.fixture(scope="module")
def module_server(lalms: dict[str, Any]) -> Iterator[Scripted]:
    with engine(lalms) as server:
        yield server


@pytest.fixture
def server(module_server: Scripted) -> Scripted:
    module_server.seen.clear()
    module_server.headers.clear()
    return module_server


@pytest.fixture(scope="module")
def there(module_server: Scripted) -> Any:
    return short(load("tiny-en-de", dtype="float32", engine_url=module_server.url))


# the verbs


def test_continuations_are_those_of_the_model_in_this_process(here: Any, there: Any) -> None:
    sounds = [*sentences(9, 4), np.zeros(300, np.float32), np.resize(noise(1), here.max_samples)]
    ours, theirs = (lalm.hear(sounds, [EN_DE] * len(sounds)) for lalm in (here, there))
    free = [said.tokens for said in here.continue_(ours, [[] for _ in sounds])]
    assert len({tuple(tokens) for tokens in free}) > 5  # the clips are told apart
    for share in (0.0, 0.4, 1.0):
        prefixes = [tokens[: int(share * len(tokens))] for tokens in free]
        expected = here.continue_(ours, prefixes, None, Want(log_probs=True))
        for want, said in zip(expected, there.continue_(theirs, prefixes, free, Want(log_probs=True)), strict=True):
            assert (said.tokens, said.truncated) == (want.tokens, want.truncated)
            np.testing.assert_allclose(said.log_probs, want.log_probs, atol=1e-5)
    assert there.continue_(theirs[:1], [[]])[0].log_probs is None


def test_scores_are_those_of_the_model_in_this_process(here: Any, there: Any) -> None:
    sounds = sentences(6, 4)
    targets = [here.encode(text) for text in ("Zwei Hunde spielen.", "", "Ein Mann fährt Fahrrad.", "Ja", "Nein", "ß")]
    ours, theirs = (lalm.score(lalm.hear(sounds, [EN_DE] * 6), targets) for lalm in (here, there))
    for found, expected in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-5)
        np.testing.assert_array_equal(found.ranks, expected.ranks)
        assert (found.log_probs.dtype, found.ranks.dtype) == (np.float32, np.int64)


def test_a_translation_that_has_reached_its_limit_is_truncated_without_being_asked_for(
    here: Any, there: Any, server: Scripted
) -> None:
    sound = sentences(1, 4)
    prefixes = [[7] * (LONGEST - 1), [7] * LONGEST, [7] * (LONGEST + 3)]
    for prefix in prefixes:
        (expected,) = here.continue_(here.hear(sound, [EN_DE]), [prefix])
        server.seen.clear()
        (said,) = there.continue_(there.hear(sound, [EN_DE]), [prefix], None, Want(log_probs=True))
        assert (said.tokens, said.truncated) == (expected.tokens, expected.truncated)
        assert len(said.log_probs) == len(said.tokens)
        assert len(server.seen) == (len(prefix) < LONGEST)


def test_text_and_limits_are_those_of_the_model(here: Any, there: Any) -> None:
    names = ("name", "vocabulary_size", "eos_id", "eos_ids", "max_samples", "directions", "audio_token_id")
    assert [getattr(there, name) for name in names] == [getattr(here, name) for name in names]
    tokens = there.encode("Straße")
    assert tokens == here.encode("Straße")
    assert there.decode(tokens) == "Straße"
    (clip,) = there.hear(sentences(1, 4), [EN_DE])
    assert clip.detached() is clip
    assert clip.nbytes > len(clip.audio)


def test_audio_that_does_not_fit_is_refused_here(there: Any, server: Scripted) -> None:
    with pytest.raises(LALMError, match=r"clip 1 of the batch: the clip lasts 10\.10 s"):
        there.hear([noise(1), noise(10.1)], [EN_DE] * 2)
    assert not server.seen


def test_attention_is_refused(there: Any) -> None:
    with pytest.raises(LALMError, match=r"does not return attention, .* rollback, local-agreement, wait-k, confidence or eos"):
        there.continue_(there.hear([noise(1)], [EN_DE]), [[]], None, Want(heads=Heads()))


@pytest.mark.parametrize("policy", ["local-agreement:2", "wait-k:2,1", "confidence:0.5", "eos"])
def test_the_other_policies_work(here: Any, there: Any, policy: str) -> None:
    texts = []
    for lalm in (here, there):
        stream = Stream(lalm, StreamConfig(chunk_ms=700, policy=Policy.parse(policy)))
        updates = [*stream.push(sentences(9, 4)[8]), *stream.finish()]
        texts.append([(update.committed, update.tentative) for update in updates])
    assert texts[0] == texts[1]


def test_a_server_that_hears_other_audio_is_an_error(there: Any, server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(answer: dict[str, Any]) -> dict[str, Any]:
        answer["prompt_token_ids"].remove(there.audio_token_id)
        return answer

    monkeypatch.setattr(server, "change", cut)
    with pytest.raises(LALMError, match=r"row 1 of 1: the server read \d+ tokens, 24 of them audio, where \d+, 25 of them audio"):
        there.continue_(there.hear([noise(1)], [EN_DE]), [[]])


# what a server is found to be


def test_an_exact_engine(there: Any, here: Any) -> None:
    assert isinstance(there, EngineLALM)
    assert there.exact
    assert there.approximate == ""
    assert there.signature == here.content + "+vllm-0.32.0+float32"


def test_without_the_plugin_scores_are_approximate(lalms: dict[str, Any], here: Any, make_rows: Rows) -> None:
    with engine(lalms, plugin=False) as server:
        lalm = short(load("tiny-en-de", dtype="float32", engine_url=server.url))
        assert lalm.approximate == UNMASKED
        assert lalm.exact
        assert lalm.signature == here.content + "+vllm-0.32.0+float32+approximate"
        with pytest.raises(AugmentError, match=r"are approximate: .*its plugin .*--accept-approximate"):
            augment(make_rows(2), lalm, AugmentConfig(num=2, preflight=False))
        rows = augment(make_rows(2), lalm, AugmentConfig(num=2, preflight=False, accept_approximate=True))
        assert rows[0].made_by is not None
        assert rows[0].made_by["model"] == lalm.signature


def test_a_server_in_half_precision_is_not_exact(server: Scripted, here: Any) -> None:
    lalm = load("tiny-en-de", engine_url=server.url)  # vLLM's default
    assert not lalm.exact
    assert lalm.signature.endswith("16")
    assert lalm.signature != there_in_float32(here)


def there_in_float32(here: Any) -> str:
    return f"{here.content}+vllm-0.32.0+float32"


def test_a_server_whose_answers_depend_on_the_batch_is_not_exact(lalms: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    count = 0

    def unsteady(answer: dict[str, Any]) -> dict[str, Any]:
        nonlocal count
        count += 1
        for scores in answer["prompt_logprobs"] or []:
            for score in (scores or {}).values():
                score["logprob"] += 0.1 * (count % 2)
        return answer

    with engine(lalms, change=unsteady) as server, caplog.at_level(logging.WARNING, "simulsa"):
        assert not load("tiny-en-de", dtype="float32", engine_url=server.url).exact
    assert "scores differently in a batch" in caplog.text


def test_a_deaf_server_is_refused(lalms: dict[str, Any]) -> None:
    def constant(answer: dict[str, Any]) -> dict[str, Any]:
        for scores in answer["prompt_logprobs"] or []:
            for score in (scores or {}).values():
                score["logprob"] = -1.0
        return answer

    with engine(lalms, change=constant) as server, pytest.raises(LALMError, match="the model does not hear"):
        load("tiny-en-de", engine_url=server.url)


def test_the_key_is_the_one_that_vllm_takes(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    load("tiny-en-de", engine_url=server.url)
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}


def test_a_server_with_a_smaller_context_hears_less(lalms: dict[str, Any]) -> None:
    with engine(lalms, context=256 + 50) as server:
        lalm = load("tiny-en-de", engine_url=server.url)
        assert lalm.max_samples == 2 * SAMPLE_RATE
    with engine(lalms, context=270) as server, pytest.raises(LALMError, match=r"270 tokens .* larger --max-model-len"):
        load("tiny-en-de", engine_url=server.url)


# names


def test_a_model_is_found_by_name_or_by_its_folder(lalms: dict[str, Any], here: Any) -> None:
    with engine({"served": here}, roots={"served": str(EMBEDDED_MODELS / "tiny-en-de")}) as server:
        url = server.url
        assert load(str(EMBEDDED_MODELS / "tiny-en-de"), engine_url=url).signature.startswith(str(EMBEDDED_MODELS))
        assert load("tiny-en-de", engine_url=url, engine_model="served").name == "tiny-en-de"
        with pytest.raises(LALMError, match="has no model 'tiny-en-de'; it serves 'served': choose one with --engine-model"):
            load("tiny-en-de", engine_url=url)


def test_an_adapter_is_found_by_name(lalms: dict[str, Any], server: Scripted) -> None:
    here = lalms["tiny-en-de-simul"]
    there: Any = short(load("tiny-en-de-simul", dtype="float32", engine_url=server.url))
    assert there.client.model == "tiny-en-de-simul"
    assert there.signature == here.content + "+vllm-0.32.0+float32"
    assert there.directions == here.directions
    sounds = sentences(4, 4)
    ours, theirs = (lalm.continue_(lalm.hear(sounds, [EN_DE] * 4), [[]] * 4) for lalm in (here, there))
    assert [said.tokens for said in theirs] == [said.tokens for said in ours]


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, server: Scripted) -> None:
    adapter = tmp_path / "run"
    adapter.mkdir()
    for file in (EMBEDDED_MODELS / "tiny-en-de-simul").iterdir():
        (adapter / file.name).write_bytes(file.read_bytes())
    record = json.loads((adapter / "simulsa.json").read_text(encoding="utf-8"))
    write_json(adapter / "simulsa.json", {**record, "base_signature": "tiny-en-de@000000000000+float32"})
    with pytest.raises(LALMError, match="the adapter was trained on tiny-en-de@000000000000"):
        load(str(adapter), engine_url=server.url, engine_model="tiny-en-de-simul")


def test_an_instruction_of_ones_own(lalms: dict[str, Any], server: Scripted) -> None:
    asked = "Say it in {target}."
    here, there = load("tiny-en-de", "cpu", instruction=asked), load("tiny-en-de", instruction=asked, engine_url=server.url)
    assert there.signature.startswith(here.content)
    (clip,) = there.hear([noise(1)], [EN_DE])
    assert list(clip.prompt) == here.frontend.prepare(noise(1), EN_DE).prompt


# commands


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="device 'cpu' applies to a model in this process"):
        ModelConfig(device="cpu", engine_url="http://localhost:1")
    with pytest.raises(ValueError, match="four_bit applies to a model in this process"):
        load("tiny-en-de", four_bit=True, engine_url="http://localhost:1")
    with pytest.raises(ValueError, match="give the server's address as engine_url"):
        ModelConfig(engine_model="mine")
    assert not ModelConfig(engine_url="http://localhost:1").on_gpu


@pytest.mark.parametrize("url", ["localhost:8000", "ws://host", "http://", "http://host:99999", "http://host:x", "http://[::1"])
def test_an_address_is_checked_with_the_settings(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"engine_url is .*; it must begin with http:// or https:// and name a host"):
        ModelConfig(engine_url=url)
    assert main(["translate", "a.wav", "--engine-url", url]) == 2
    assert "engine_url is" in capsys.readouterr().err


def test_training_needs_the_weights(
    there: Any, make_rows: Rows, write_rows: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Scripted
) -> None:
    with pytest.raises(LALMError, match="its weights are not in this process"):
        train(there, make_rows(2), TrainConfig(out=tmp_path / "run"))
    manifest = write_rows(make_rows(2))
    arguments = ["train", "--offline", str(manifest), "--engine-url", server.url, "--out", str(tmp_path / "run")]
    assert main(arguments) == 1
    assert "training needs gradients, which an engine does not return; remove --engine-url" in capsys.readouterr().err


def test_merging_takes_no_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "tiny-en-de-simul", "--out", str(tmp_path / "whole"), "--engine-url", "http://localhost:1"]) == 2
    assert "Unrecognized options: --engine-url" in capsys.readouterr().err


def test_other_peoples_tools_use_it_by_the_same_keys(server: Scripted) -> None:
    values = {"model": "tiny-en-de", "engine_url": server.url, "dtype": "float32", "target_lang": "de"}
    setup = Setup.of(values, 500, "settings.yaml")
    assert isinstance(setup.model.load(), EngineLALM)


def without_model(rows: list[Utterance]) -> list[dict[str, Any]]:
    plain = [{**vars(row), "made_by": {**(row.made_by or {}), "model": "", "run": ""}} for row in rows]
    return [{name: value for name, value in row.items() if name != "audio"} for row in plain]


def test_augmented_rows_are_those_of_the_model_in_this_process(
    here: Any, server: Scripted, make_rows: Rows, write_rows: Write, tmp_path: Path
) -> None:
    rows = make_rows(6)
    manifest, out = write_rows(rows), tmp_path / "there.jsonl"
    arguments = ["--manifest", str(manifest), "--out", str(out), "--num", "6", "--batch-size", "4", "--tau", "1e-4"]
    assert main(["augment", *arguments, "--engine-url", server.url, "--dtype", "float32"]) == 0
    expected = augment(rows, here, AugmentConfig(num=6, tau=1e-4))
    assert without_model(read_manifest(out)) == without_model(expected)
    assert any(row.target_tokens for row in expected)
    (signature,) = {row.made_by["model"] for row in read_manifest(out) if row.made_by}
    assert signature == there_in_float32(here)


def test_the_table_of_an_evaluation_is_the_same(here: Any, there: Any, server: Scripted, make_rows: Rows, tmp_path: Path) -> None:
    rows = make_rows(4)
    config = EvaluateConfig(chunk_ms=(1000, float("inf")), rollback=(0, 2), preflight=False)
    ours, theirs = (evaluate(lalm, rows, config).scores for lalm in (here, there))
    same = [{**score, "signature": ""} for score in ours]
    assert [{**score, "signature": ""} for score in theirs] == same
    assert f"model:{there.signature}|" in theirs[0]["signature"]


def test_a_file_is_translated(server: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", sentences(9, 4)[8], SAMPLE_RATE)
    arguments = ["translate", str(tmp_path / "a.wav"), "--json", "--model", "tiny-en-de-simul"]
    outputs = []
    for place in (["--device", "cpu"], ["--engine-url", server.url, "--dtype", "float32"]):
        assert main([*arguments, *place]) == 0
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        outputs.append([(line["committed"], line["tentative"]) for line in lines])
    assert outputs[0] == outputs[1] != []


def test_a_server_that_is_not_there(impatient: None, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1), SAMPLE_RATE)
    assert main(["translate", str(tmp_path / "a.wav"), "--engine-url", "http://127.0.0.1:9"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("simulsa translate")]
    assert "Cannot connect to host 127.0.0.1:9" in line


# a server that dies


class DiesAfter:
    """Kills a server with so many requests."""

    def __init__(self, server: Scripted, requests: int) -> None:
        self.server, self.left = server, requests

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.server.dead = True


def test_augmentation_goes_on_where_a_server_died(
    impatient: None, lalms: dict[str, Any], make_rows: Rows, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows, out = make_rows(8), tmp_path / "there.jsonl"
    config = AugmentConfig(num=8, batch_size=2, tau=1e-4, preflight=False)
    with engine(lalms) as server:
        lalm = short(load("tiny-en-de", dtype="float32", engine_url=server.url))
        server.before_answer = DiesAfter(server, 5)
        with pytest.raises(LALMError, match=r"row \d of 2: .*tried \d+ times"):
            augment(rows, lalm, config, out)
        assert [path.suffix for path in tmp_path.iterdir() if path.is_file()] == [".jsonl"]  # the journal
        assert not out.exists()
        server.dead, server.before_answer = False, lambda: None
        server.seen.clear()
        with caplog.at_level(logging.INFO, "simulsa"):
            made = augment(rows, lalm, config, out)
        assert "after 4 finished rows" in caplog.text
        assert len(server.seen) == 4
        assert without_model(made) == without_model(augment(rows, lalm, config))


def test_evaluation_goes_on_where_a_server_died(impatient: None, lalms: dict[str, Any], make_rows: Rows, tmp_path: Path) -> None:
    rows, out = make_rows(3), tmp_path / "out"
    config = EvaluateConfig(chunk_ms=(1000, 2000), rollback=(0,), out=out, preflight=False)
    with engine(lalms) as server:
        lalm = short(load("tiny-en-de", dtype="float32", engine_url=server.url))
        server.seen.clear()
        whole = evaluate(lalm, rows, EvaluateConfig(chunk_ms=(1000, 2000), rollback=(0,), preflight=False)).scores
        requests = len(server.seen)
        server.before_answer = DiesAfter(server, requests - 2)
        with pytest.raises(LALMError, match=r"tried \d+ times"):
            evaluate(lalm, rows, config)
        assert [score["chunk_ms"] for score in json.loads((out / "scores.json").read_text())] == [1000]
        server.dead, server.before_answer = False, lambda: None
        server.seen.clear()
        assert evaluate(lalm, rows, config).scores == whole
        assert 0 < len(server.seen) < requests


def test_a_server_that_restarts_is_waited_for(lalms: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from simulsa.lalm import vllm_client

    monkeypatch.setattr(vllm_client, "_FIRST_DELAY_S", 0.01)
    with engine(lalms) as server:
        lalm = short(load("tiny-en-de", engine_url=server.url))
        server.faults += [(0, b""), (503, b"starting"), (503, b"starting")]
        assert lalm.continue_(lalm.hear(sentences(1, 4), [EN_DE]), [[]])[0].tokens
