"""Loading models by name or folder, and what their signatures tell apart."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from simulsa.lalm.interface import LALMError
from simulsa.lalm.load import load
from simulsa.lalm.parts import RECORD, local_folder
from simulsa.lalm.signature import (
    _of_every_tensor,
    audio_signature,
    earlier_signature,
    folder_signature,
    same_audio,
    text_signature,
)
from simulsa.languages import Direction
from simulsa.manifest import Utterance
from tests.lalms import score
from tests.test_lalm import TARGETS, free, reference_inputs, sounds

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

EN_DE = Direction("en", "de")


class TestLoad:
    def test_a_name_that_leads_nowhere(self, tmp_path: Path) -> None:
        for name, problem in (("nobody/no-such-model", "cannot be loaded .*"), (str(tmp_path / "no-folder"), "no such folder")):
            with pytest.raises(LALMError, match=f"{name}: {problem}; give a Hugging Face id, a model folder") as caught:
                load(name, device="cpu")
            assert "\n" not in str(caught.value)

    def test_a_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(LALMError, match="cannot be loaded"):
            load(str(tmp_path), device="cpu")

    def test_a_model_that_only_reads(self, tmp_path: Path) -> None:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        config = Qwen2Config(
            vocab_size=50, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1
        )
        Qwen2ForCausalLM(config).save_pretrained(tmp_path)
        with pytest.raises(LALMError, match="a 'qwen2' model has no audio tower"):
            load(str(tmp_path), device="cpu")

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
    def test_a_damaged_file(self, tmp_path: Path, random_model_folder: Path, name: str) -> None:
        folder = shutil.copytree(random_model_folder, tmp_path / "model")
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(LALMError, match="cannot be loaded") as caught:
            load(str(folder), device="cpu")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["model.safetensors", "processor_config.json"])
    def test_a_missing_file(self, tmp_path: Path, random_model_folder: Path, name: str) -> None:
        folder = shutil.copytree(random_model_folder, tmp_path / "model")
        (folder / name).unlink()
        with pytest.raises(LALMError, match=str(folder)):
            load(str(folder), device="cpu")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_gpu_that_is_not_there(self, random_model_folder: Path) -> None:
        with pytest.raises(LALMError, match="'cuda:1' was requested but PyTorch finds no GPU; use --device cpu"):
            load(str(random_model_folder), device="cuda:1")

    @pytest.mark.parametrize(("given", "bound"), [(None, "128"), ("7", "7")])
    def test_plans_for_shapes_are_bounded(
        self, random_model_folder: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, bound: str
    ) -> None:
        name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
        monkeypatch.setenv(name, "")  # so that what `load` sets is undone
        monkeypatch.delenv(name) if given is None else monkeypatch.setenv(name, given)
        load(str(random_model_folder), device="cpu")
        assert os.environ[name] == bound

    def test_number_formats(self, random_model_folder: Path, random_lalm: HuggingFaceLALM) -> None:
        half = load(str(random_model_folder), device="cpu", dtype="bfloat16")
        assert (half.dtype, half.exact) == (torch.bfloat16, False)
        assert (random_lalm.dtype, random_lalm.exact) == (torch.float32, True)
        assert half.content == random_lalm.content == f"{random_model_folder}@{folder_signature(random_model_folder)}"
        assert (half.signature, random_lalm.signature) == (f"{half.content}+bfloat16", f"{half.content}+float32")
        half.max_target_tokens = 3
        assert [len(output) for output in free(half, sounds())] == [3] * 4

    def test_a_name_is_a_folder_or_a_hub_id(self, tmp_path: Path) -> None:
        assert local_folder(str(tmp_path)) == tmp_path
        assert local_folder("Qwen/Qwen2-Audio-7B-Instruct") is None
        assert local_folder("../models") is None

    def test_an_adapter_and_its_base(self, tmp_path: Path, random_model_folder: Path, random_lalm: HuggingFaceLALM) -> None:
        from peft import LoraConfig, get_peft_model

        base = load(str(random_model_folder), device="cpu")
        names = [name for name, part in base.model.named_modules() if name.endswith("q_proj") and "language_model" in name]
        peft_model = get_peft_model(base.model, LoraConfig(r=2, target_modules=names, init_lora_weights=False))
        peft_model.save_pretrained(tmp_path)
        record = {"base_model": str(random_model_folder), "base_signature": random_lalm.signature}
        (tmp_path / RECORD).write_text(json.dumps(record))

        adapted = load(str(tmp_path), device="cpu")
        target = adapted.encode(TARGETS[0])
        audio = sounds()[0]
        inputs = reference_inputs(adapted, audio)
        ids = torch.cat([inputs["input_ids"], torch.tensor([target])], dim=1)
        with torch.no_grad():
            logits = peft_model.eval()(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits[0].clone()
        logits[:, adapted.audio_token_id] = -torch.inf
        expected = logits[-len(target) - 1 : -1].log_softmax(1).gather(1, torch.tensor(target)[:, None])[:, 0]
        scores = score(adapted, [audio], [target], [EN_DE])[0].log_probs
        np.testing.assert_allclose(scores, expected.numpy(), atol=1e-4)
        assert np.abs(scores - score(random_lalm, [audio], [target], [EN_DE])[0].log_probs).max() > 1e-3

        (tmp_path / RECORD).write_text(json.dumps({**record, "base_signature": "other@0"}))
        with pytest.raises(LALMError, match=r"the adapter was trained on other@0 and .* is now"):
            load(str(tmp_path), device="cpu")

    def test_an_adapter_from_before_every_tensor_counted(
        self, adapter: Path, random_model_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("simulsa.lalm.signature._WHOLE_BELOW_BYTES", 1)
        now, before = folder_signature(random_model_folder), earlier_signature(random_model_folder)
        assert now != before
        record = {"base_model": str(random_model_folder), "base_signature": f"{random_model_folder}@{before}"}
        (adapter / RECORD).write_text(json.dumps(record))
        assert load(str(adapter), device="cpu").directions == ()
        [said] = [record.getMessage() for record in caplog.records]
        assert f'write "base_signature": "{random_model_folder}@{now}" into simulsa.json' in said
        (adapter / RECORD).write_text(json.dumps({**record, "base_signature": f"{random_model_folder}@{now}+bfloat16+4bit"}))
        caplog.clear()
        load(str(adapter), device="cpu")
        assert caplog.records == []

    def test_every_weight_of_an_adapter_finds_its_place(self, adapter: Path) -> None:
        file = adapter / "adapter_model.safetensors"
        weights = load_file(file)
        names = sorted(weights)
        load(str(adapter), device="cpu")
        for changed, message in (
            (
                {f"another.{name}": weight for name, weight in weights.items()},
                f"{len(names)} of the adapter's weights have no place",
            ),
            ({name: weights[name] for name in names[1:]}, "1 of the adapter's weights are missing from its file"),
            ({**weights, names[0]: torch.zeros(3, 3)}, "1 of the adapter's weights have another size"),
        ):
            save_file(changed, file)
            with pytest.raises(LALMError, match=message) as error:
                load(str(adapter), device="cpu")
            assert names[0].removesuffix(".weight").removeprefix("base_model.model.") in str(error.value)
            assert "\n" not in str(error.value)

    def test_an_adapter_without_a_base(self, adapter: Path) -> None:
        for change in ({"base_model_name_or_path": None}, {"base_model_name_or_path": ""}):
            settings = json.loads((adapter / "adapter_config.json").read_text())
            (adapter / "adapter_config.json").write_text(json.dumps({**settings, **change}))
            with pytest.raises(
                LALMError, match=r"adapter_config\.json names no base model \(base_model_name_or_path is .*; write there"
            ):
                load(str(adapter), device="cpu")

    @pytest.fixture
    def adapter(self, tmp_path: Path, random_model_folder: Path) -> Path:
        """Another trainer's, without a record."""
        from peft import LoraConfig, get_peft_model

        base = load(str(random_model_folder), device="cpu")
        names = [name for name, part in base.model.named_modules() if name.endswith("q_proj") and "language_model" in name]
        get_peft_model(base.model, LoraConfig(r=2, target_modules=names)).save_pretrained(tmp_path)
        return tmp_path


class TestSignature:
    def test_it_follows_the_content(self, tmp_path: Path, random_model_folder: Path) -> None:
        folder = shutil.copytree(random_model_folder, tmp_path / "model")
        before = folder_signature(folder)
        assert before == folder_signature(random_model_folder)
        (folder / "README.md").write_text("notes change nothing")
        assert folder_signature(folder) == before
        weights = bytearray((folder / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (folder / "model.safetensors").write_bytes(weights)
        assert folder_signature(folder) != before

    def test_every_tensor_of_a_large_file_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("simulsa.lalm.signature._WHOLE_BELOW_BYTES", 1)
        tensors = {
            "a": torch.zeros(2**19),
            "b": torch.zeros(7),
            "c": torch.zeros(300, 400),
            "d": torch.zeros(1, dtype=torch.int64),
        }
        written = {}
        for changed in (None, *tensors):
            for name, save in (("model.safetensors", save_file), ("pytorch_model.bin", torch.save)):
                folder = tmp_path / f"{name}-{changed}"
                folder.mkdir()
                # as a fine-tune does: all of the tensor
                save({key: weight + (1 if key == changed else 0) for key, weight in tensors.items()}, folder / name)
                written[name, changed] = folder
        for name in ("model.safetensors", "pytorch_model.bin"):
            folders = [written[name, changed] for changed in (None, *tensors)]
            assert len({folder_signature(folder) for folder in folders}) == len(folders)
            assert folder_signature(folders[0]) == folder_signature(shutil.copytree(folders[0], tmp_path / f"copy-{name}"))

    def test_fifteen_gigabytes_are_not_read(self, tmp_path: Path) -> None:
        with open(tmp_path / "model.safetensors", "wb") as file:  # a file with a hole, of no size on the disk
            spans = {
                f"layer.{i}": {"dtype": "BF16", "shape": [2**24], "data_offsets": [i * 2**25, (i + 1) * 2**25]}
                for i in range(450)
            }
            header = json.dumps(spans).encode()
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + 450 * 2**25)
        read = 0

        class Counted(io.FileIO):
            def read(self, size: int = -1) -> bytes:  # type: ignore[override]
                nonlocal read
                data = super().read(size)
                read += len(data or b"")
                return data or b""

        with Counted(tmp_path / "model.safetensors") as counted:
            parts = list(_of_every_tensor(counted))  # type: ignore[arg-type]
        assert len(parts) == 1 + 3 * 450
        assert read < 8 * 2**20

    def test_parts_are_kept_apart(self) -> None:
        assert text_signature(["ab", "c"]) != text_signature(["a", "bc"])
        assert len(text_signature(["ü"])) == 12


@pytest.mark.parametrize(
    ("recorded", "now", "same", "told"),
    [
        (None, "a1", True, False),
        ("a1", "a1", True, False),
        ("a1", "b2", False, False),
        ("a1-c3", "a1-c3", True, False),
        ("a1-c3", "b2-c3", False, False),
        ("a1-c3", "a1-d4", True, True),
        ("a1", "b2-c3", True, True),
        ("a1-c3", "b2", True, True),
        ("a1", None, True, True),
    ],
)
def test_audio_is_compared_where_the_same_files_can_be_read(
    recorded: str | None, now: str | None, same: bool, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert same_audio(recorded, now) == same
    assert ("whether the audio is the same as before is not checked" in caplog.text) == told


def test_the_audio_signature_covers_the_files_that_can_be_read(make_rows: Callable[..., list[Utterance]]) -> None:
    rows = make_rows(3)
    whole = audio_signature(rows)
    Path(rows[1].audio).unlink()
    rest = audio_signature(rows) or ""
    assert rest.partition("-")[0] == audio_signature([rows[0], rows[2]]) != whole
    Path(rows[0].audio).write_bytes(b"other")
    assert (audio_signature(rows) or "").partition("-")[2] == rest.partition("-")[2] != ""
    assert audio_signature(rows) != rest
    for place in (0, 2):
        Path(rows[place].audio).unlink()
    assert audio_signature(rows) is None
