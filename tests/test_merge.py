"""`simulsa merge`: a whole model that behaves as the adapter on its base does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulsa.cli import main
from simulsa.lalm.interface import LALMError
from simulsa.lalm.load import load
from simulsa.lalm.merge import merge
from simulsa.lalm.parts import EMBEDDED_MODELS
from simulsa.languages import Direction
from tests.conftest import noise
from tests.lalms import continue_, score

EN_DE = Direction("en", "de")


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merge") / "merged"
    assert main(["merge", "tiny-en-de-simul", "--out", str(out)]) == 0
    return out


def test_the_whole_model_is_the_adapter_on_its_base(merged: Path) -> None:
    whole_model, adapter, base = load(str(merged), "cpu"), load("tiny-en-de-simul", "cpu"), load("tiny-en-de", "cpu")
    clips = [noise(seconds, seed=7) for seconds in (0.7, 2.0, 4.5)]
    targets, directions = [base.encode("Zwei Hunde spielen im Schnee.")] * 3, [EN_DE] * 3
    assert continue_(whole_model, clips, [[]] * 3, directions) == continue_(adapter, clips, [[]] * 3, directions)
    for ours, theirs, untrained in zip(
        *(score(lalm, clips, targets, directions) for lalm in (whole_model, adapter, base)), strict=True
    ):
        np.testing.assert_allclose(ours.log_probs, theirs.log_probs, atol=1e-4)
        assert np.abs(ours.log_probs - untrained.log_probs).max() > 0.1


def test_others_find_a_model_as_any_other(merged: Path) -> None:
    from safetensors import safe_open
    from transformers import AutoProcessor, GenerationConfig, Qwen2AudioForConditionalGeneration

    with safe_open(merged / "model.safetensors", "pt") as weights:  # type: ignore[no-untyped-call]
        names = list(weights.keys())
    assert not [name for name in names if "lora" in name or "base_layer" in name or "base_model" in name]
    model, report = Qwen2AudioForConditionalGeneration.from_pretrained(merged, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not hasattr(model, "peft_config")
    assert AutoProcessor.from_pretrained(merged).chat_template
    assert GenerationConfig.from_pretrained(merged).eos_token_id == 2
    assert not (merged / "adapter_config.json").exists()
    base = EMBEDDED_MODELS / "tiny-en-de"
    for name in ("chat_template.jinja", "processor_config.json", "tokenizer.json", "generation_config.json"):
        assert (merged / name).read_text(encoding="utf-8") == (base / name).read_text(encoding="utf-8")


def test_it_is_written_where_the_whole_model_comes_from(merged: Path) -> None:
    record = json.loads((merged / "simulsa.json").read_text(encoding="utf-8"))
    assert record["merged_from"] == load("tiny-en-de-simul", "cpu").signature
    assert record["training"]["base_model"] == "tiny-en-de"


def test_the_whole_model_is_asked_as_the_adapter_was_trained(tmp_path: Path) -> None:
    adapter = tmp_path / "run"
    adapter.mkdir()
    for file in (EMBEDDED_MODELS / "tiny-en-de-simul").iterdir():
        (adapter / file.name).write_bytes(file.read_bytes())
    asked = "Say it in {target}."
    base = load("tiny-en-de", "cpu", instruction=asked)
    record = json.loads((adapter / "simulsa.json").read_text(encoding="utf-8"))
    changes = {"instruction": asked, "base_signature": base.signature, "directions": [["en", "de"]]}
    (adapter / "simulsa.json").write_text(json.dumps({**record, **changes}), encoding="utf-8")
    merge(str(adapter), tmp_path / "whole")
    whole_model = load(str(tmp_path / "whole"), "cpu")
    assert whole_model.instruction == asked
    assert whole_model.directions == (EN_DE,)
    assert whole_model.frontend.prepare(noise(1), EN_DE).prompt == base.frontend.prepare(noise(1), EN_DE).prompt
    other = load(str(tmp_path / "whole"), "cpu", instruction="Translate into {target}.")
    assert other.instruction == "Translate into {target}."
    assert other.content != whole_model.content


def test_half_precision_is_half_as_large(tmp_path: Path, merged: Path) -> None:
    merge("tiny-en-de-simul", tmp_path / "half", "bfloat16")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", merged)]
    assert sizes[0] / sizes[1] == pytest.approx(0.5, abs=0.01)


def test_what_is_no_adapter_cannot_be_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "tiny-en-de", "--out", str(tmp_path / "merged")]) == 1
    assert "'tiny-en-de' is not an adapter folder" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_a_folder_that_is_taken_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(LALMError, match="exists already; choose another --out"):
        merge("tiny-en-de-simul", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_model_that_behaves_differently_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(model: str, *arguments: Any) -> Any:
        return load(model if model == "tiny-en-de-simul" else "tiny-en-de", *arguments)

    monkeypatch.setattr("simulsa.lalm.merge.load", other)
    (tmp_path / "out").mkdir()
    with pytest.raises(LALMError, match=r"translates differently \(log-probabilities by .* nats\)"):
        merge("tiny-en-de-simul", tmp_path / "out")
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]
