"""LoRA in the experts of Qwen3-Omni: parameters of three dimensions, not linear layers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from simulsa.lalm.adapter_weights import merged, with_adapter
from simulsa.lalm.interface import LALMError
from simulsa.training.config import TrainConfig
from simulsa.training.lora import add_lora, shared_copy, target_parameters
from tests.families import qwen3_omni_thinker


@pytest.fixture(scope="module")
def thinker() -> Any:
    """The model alone: its processor needs torchvision."""
    torch.manual_seed(0)
    return qwen3_omni_thinker().eval()


@torch.no_grad()
def hidden(model: Any) -> torch.Tensor:
    ids = torch.arange(8).reshape(2, 4)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return model.model(input_ids=ids).last_hidden_state  # type: ignore[no-any-return]


def test_they_learn_are_saved_and_merged(thinker: Any, tmp_path: Path) -> None:
    experts = target_parameters(thinker)
    assert len(experts) == 2 * 2, "gate_up_proj and down_proj in two layers"
    before = hidden(thinker)
    model = add_lora(thinker, TrainConfig(lora_r=2))
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert sum(".experts." in name for name in learning) == 2 * len(experts)
    for name, weight in model.named_parameters():
        if ".experts." in name and "lora_B" in name:
            torch.nn.init.normal_(weight)
    after = hidden(model)
    assert (after - before).abs().max() > 1e-2
    torch.testing.assert_close(hidden(thinker), before)

    model.save_pretrained(tmp_path)
    again = with_adapter(shared_copy(thinker), tmp_path)
    torch.testing.assert_close(hidden(again), after)
    torch.testing.assert_close(hidden(merged(copy.deepcopy(thinker), tmp_path)), after, atol=1e-3, rtol=1e-3)


def test_dropout_does_not_go_with_them(thinker: Any) -> None:
    with pytest.raises(LALMError, match=r"lora_dropout is 0\.1.*Qwen3OmniMoeThinker.*set it to 0"):
        add_lora(thinker, TrainConfig(lora_dropout=0.1))
