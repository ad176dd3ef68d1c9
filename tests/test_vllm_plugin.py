"""vLLM's plugin as far as it goes without vLLM; tests/test_vllm.py has the real thing."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from simulsa.integrations.vllm_plugin import models

ROOT = Path(__file__).parents[1]


class Registry:
    """vLLM's, in small."""

    def __init__(self) -> None:
        self.models: dict[str, str] = {}

    def get_supported_archs(self) -> set[str]:
        return {"Qwen2AudioForConditionalGeneration", "VoxtralForConditionalGeneration", "LlamaForCausalLM"}

    def register_model(self, architecture: str, place: str) -> None:
        self.models[architecture] = place


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    fake = ModuleType("vllm")
    registry = Registry()
    fake.__version__, fake.ModelRegistry = "0.32.0+cpu", registry  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", fake)
    return registry


def test_the_entry_point_imports_nothing_heavy() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points."vllm.general_plugins"]\nsimulsa = "simulsa.integrations.vllm_plugin:register"\n' in project
    code = "import sys, simulsa.integrations.vllm_plugin; print({'torch', 'numpy', 'transformers', 'vllm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_entry_point_registers_what_this_vllm_knows(registry: Registry) -> None:
    EntryPoint("simulsa", "simulsa.integrations.vllm_plugin:register", "vllm.general_plugins").load()()
    assert set(registry.models) == {"Qwen2AudioForConditionalGeneration", "VoxtralForConditionalGeneration"}
    place = registry.models["VoxtralForConditionalGeneration"]
    assert place == "simulsa.integrations.vllm_plugin.models:VoxtralForConditionalGeneration__0_32_0_cpu"


def test_what_is_registered_is_vllms_class_with_the_placeholder_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    voxtral = ModuleType("vllm.model_executor.models.voxtral")
    voxtral.VoxtralForConditionalGeneration = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, voxtral.__name__, voxtral)
    masked = models.VoxtralForConditionalGeneration__0_32_0
    assert issubclass(masked, Model)
    assert masked.__name__ == "Model"
    logits = built(masked, SimpleNamespace(audio_token_id=2)).compute_logits(torch.zeros(3, 4))
    assert torch.equal(logits, torch.tensor([[0.0, 0.0, -torch.inf, 0.0]] * 3))


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (SimpleNamespace(thinker_config=SimpleNamespace(audio_token_id=1)), 1),
        (SimpleNamespace(audio_config=SimpleNamespace(audio_token_id=3)), 3),
        (SimpleNamespace(audio_token_id=4), None),  # an embedding that the head has no row for
        (SimpleNamespace(), None),
    ],
)
def test_the_placeholder_is_found_where_a_family_has_it(config: Any, place: int | None) -> None:
    logits = built(models.masked(Model), config).compute_logits(torch.zeros(1, 4))
    assert logits.isinf().nonzero()[:, 1].tolist() == ([] if place is None else [place])


def test_a_process_without_logits_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "compute_logits", lambda self, hidden: None)
    assert built(models.masked(Model), SimpleNamespace(audio_token_id=1)).compute_logits(torch.zeros(1, 4)) is None


def test_other_names_are_no_models() -> None:
    with pytest.raises(AttributeError, match="LlamaForCausalLM"):
        _ = models.LlamaForCausalLM


class Model:
    """A vLLM model whose logits are its hidden states."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        self.prefix = prefix

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
        return hidden.clone()


def built(kind: Any, config: Any) -> Any:
    return kind(vllm_config=SimpleNamespace(model_config=SimpleNamespace(hf_config=config)), prefix="here")
