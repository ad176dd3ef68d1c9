"""The paper's recipe in miniature: CoVoST 2's layout, a random model of the real classes, every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import yaml

from recipes.covost2.estimate import Device, EstimateConfig, Model, Work, device_at_hand, training_hours, training_memory_gb
from recipes.covost2.run import RecipeConfig, commands, run_recipe
from simulsa.audio import SAMPLE_RATE
from simulsa.manifest import read_manifest
from tests.conftest import CAPTIONS, noise


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Five clips in Common Voice's layout, with a table of German translations: three rows of training, two of test."""
    data = tmp_path / "en"
    (data / "clips").mkdir(parents=True)
    sentences, table = ["client_id\tpath\tsentence"], ["path\ttranslation\tsplit\tclient_id"]
    for number, (english, german) in enumerate(CAPTIONS * 2):
        name = f"common_voice_en_{number}"
        soundfile.write(data / "clips" / f"{name}.wav", noise(0.8 + 0.1 * number, seed=number), SAMPLE_RATE)
        sentences.append(f"x\t{name}.mp3\t{english}")
        table.append(f"{name}.mp3\t{german}\t{'test' if number % 2 else 'train'}\tx")
    (data / "validated.tsv").write_text("\n".join(sentences) + "\n", encoding="utf-8")
    (data / "covost_v2.en_de.tsv").write_text("\n".join(table) + "\n", encoding="utf-8")
    return data


def settings(folder: Path, name: str, **values: object) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_the_recipe_runs_from_the_corpus_to_the_table(
    corpus: Path, random_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RecipeConfig(
        corpus,
        tmp_path / "work",
        model=str(random_model_folder),
        target_lang="de",
        augment=settings(tmp_path, "augment", num=2, preflight=False),
        train=settings(tmp_path, "train", batch_size=2, micro_batch_size=2, epochs=1, preflight=False),
        evaluate=settings(tmp_path, "evaluate", chunk_ms=[1000, "inf"], rollback=[0], preflight=False),
    )
    run_recipe(config)
    work = config.work
    assert len(read_manifest(work / "train.jsonl")) == len(CAPTIONS)
    assert all(row.is_augmented for row in read_manifest(work / "cut.jsonl"))
    kinds = [json.loads((work / name / "simulsa.json").read_text())["data"]["augmented_rows"] for name in ("sft", "simulsa")]
    assert kinds == [0, 2]
    table = (work / "table-1" / "table.md").read_text(encoding="utf-8")
    assert all(name in table for name in ("base", "sft", "simulsa"))
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    run_recipe(config)  # nothing is left to do
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()} == before
    assert capsys.readouterr().out.count("simulsa augment") == 2


def test_eight_gpus_train_by_torchrun_and_share_the_rest_by_ray(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RecipeConfig(tmp_path, gpus=8, dry_run=True)
    run_recipe(config)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" -m ")[0] for line in printed if "simulsa train " in line] == [
        "torchrun --standalone --nproc-per-node 8"
    ] * 2
    assert sum("--ray local --ray-workers 8" in line for line in printed) == 4
    assert all("train-8.yaml" in line for line in printed if "simulsa train " in line)
    assert len(list(commands(config))) == len(printed) == 11


TABLE = """# On a GPU

x86_64, 16 cores; one run of `python -m benchmarks.gpu`

Random weights: 7.12 billion parameters; bfloat16; clips of about 3 s; the peak is 312 TFLOP/s.

| what | simulsa | transformers' `generate` | limit |
|---|---|---|---|
| a further token, 1 streams | 7.5 ms | 31.0 ms | 5.2 ms |
| a further token, 16 streams | 9.5 ms | 33.0 ms | 5.2 ms |
| `augment`, further rows | 260.1 rows/s, 46.5% of the peak |  |  |
| `train`, 32 rows a pass, a pass in the middle | 115.0 rows/s, 44.5% of the peak, 38 GB |  |  |
| `train`, 640 rows, start, compiler (about 4 sizes) and checkpoint counted | 80.0 rows/s |  |  |
"""


def test_the_estimates_take_the_rates_that_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "gpu.md"
    assert device_at_hand(results) == Device()  # not there
    results.write_text(TABLE, encoding="utf-8")
    assert device_at_hand(results) == Device(80, 312e12, pytest.approx(0.445), pytest.approx(0.465), 9.5, 16)
    monkeypatch.setattr("recipes.covost2.estimate.device_at_hand.__defaults__", (results,))
    assert EstimateConfig().device.token_ms == 9.5


def test_parts_that_were_not_measured_keep_their_rates(tmp_path: Path) -> None:
    results = tmp_path / "gpu.md"
    failed = "| FAIL: `augment` (RuntimeError: CUDA error) | | | |"
    lines = [failed if line.startswith("| `augment`") else line for line in TABLE.splitlines()]
    results.write_text("\n".join(lines).replace("44.5%", "0.0%").replace("9.5 ms", "-0.2 ms"), encoding="utf-8")
    assert device_at_hand(results) == Device(peak_flops=312e12, token_ms=7.5, decoded_rows=1)
    results.write_text("# On a GPU\n", encoding="utf-8")
    assert device_at_hand(results) == Device()


def test_the_estimates_follow_from_the_shapes() -> None:
    model, work = Model(), Work()
    assert model.lora == 32 * 8 * (4 * 2 * 4096 + 3 * (4096 + 11_008))
    memory = training_memory_gb(model, work)
    assert memory["weights (bfloat16)"] == pytest.approx(16.78)
    assert sum(memory.values()) < Device().memory_gb
    assert training_hours(model, work, Device()) == pytest.approx(2 * training_hours(model, Work(epochs=1), Device()))
