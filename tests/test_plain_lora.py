"""Plain LoRA adapters are merged without PEFT, to the weights that PEFT makes."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from simulsa.lalm.adapter_weights import merged, with_adapter
from simulsa.lalm.interface import LALMError
from simulsa.lalm.load import load
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.lalm.parts import EMBEDDED_MODELS
from simulsa.lalm.plain_lora import is_plain
from simulsa.training.train import TrainConfig, train

SIMULTANEOUS = EMBEDDED_MODELS / "tiny-en-de-simul"


def with_settings(folder: Path, **changes: Any) -> Path:
    """A copy of the bundled adapter with other settings."""
    shutil.copytree(SIMULTANEOUS, folder, dirs_exist_ok=True)
    config = json.loads((SIMULTANEOUS / "adapter_config.json").read_text(encoding="utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def base() -> HuggingFaceLALM:
    return load("tiny-en-de", "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_are_those_that_peft_makes(base: HuggingFaceLALM, dtype: torch.dtype) -> None:
    ours = merged(copy.deepcopy(base.model).to(dtype), SIMULTANEOUS).state_dict()
    adapted = with_adapter(copy.deepcopy(base.model).to(dtype), SIMULTANEOUS)
    theirs = adapted.merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys()
    changed = 0
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name]), name
        changed += not torch.equal(weight, base.model.state_dict()[name].to(dtype))
    assert changed == 42  # seven matrices in each of six layers


def test_what_is_not_plain_is_left_to_peft(tmp_path: Path) -> None:
    assert is_plain(SIMULTANEOUS)
    assert is_plain(with_settings(tmp_path, lora_dropout=0.1, inference_mode=False, task_type="CAUSAL_LM"))
    for change in (
        {"peft_type": "LOHA"},
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "all"},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"o_proj": 4}},
        {"alpha_pattern": {"o_proj": 4}},
        {"layers_to_transform": [0]},
        {"target_modules": "all-linear"},
        {"target_parameters": ["experts.down_proj"]},
        {"init_lora_weights": "pissa"},
        {"fan_in_fan_out": True},
        {"of_a_later_release": True},
    ):
        assert not is_plain(with_settings(tmp_path, **change)), change


def test_peft_is_not_needed_for_it(tmp_path: Path) -> None:
    """A stand-in for an environment without the packages of training: their imports fail."""
    script = (
        "import sys\n"
        "for name in ('peft', 'accelerate', 'matplotlib', 'sacrebleu', 'omnisteval'): sys.modules[name] = None\n"
        "from simulsa.lalm.load import load\n"
        "import numpy as np\n"
        "from simulsa.lalm.interface import LALMError\nfrom simulsa.languages import Direction\n"
        "lalm = load('tiny-en-de-simul', 'cpu')\n"
        "lalm.hear([np.zeros(16000, np.float32)], [Direction('en', 'de')])\n"
        f"try: load({str(with_settings(tmp_path, use_dora=True))!r}, 'cpu')\n"
        "except LALMError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "needs the package peft: pip install 'simulsa[train]'" in done.stdout
    assert done.stdout.count("\n") == 1


def test_training_starts_from_a_base(tmp_path: Path) -> None:
    with pytest.raises(LALMError, match="carries an adapter already; train on its base model"):
        train(load("tiny-en-de-simul", "cpu"), [], TrainConfig(out=tmp_path))
