"""From the raw corpus to the paper's table 1: base, + SFT, + SFT & SimulSA, over chunk sizes and rollbacks.

python -m recipes.covost2.run --data cv-corpus/en --tables covost2 --work .covost2 --gpus 8

Every step is one simulsa command, printed before it runs (--dry-run only prints). Completed steps are skipped, and an
interrupted one resumes.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recipes.command import run
from simulsa.cli import main as simulsa

HERE = Path(__file__).parent
SYSTEMS = {"sft": "+ SFT", "simulsa": "+ SFT & SimulSA"}


@dataclass(frozen=True)
class RecipeConfig:
    """Where the corpus is, which model, and on how many GPUs."""

    data: Path
    """folder of Common Voice in the spoken language (validated.tsv, clips/)"""
    work: Path = Path(".covost2")
    """folder of manifests, adapters and scores"""
    tables: Path | None = None
    """folder of CoVoST 2's tables, if they are not in --data"""
    model: str = "Qwen/Qwen2-Audio-7B-Instruct"
    """the base"""
    source_lang: str = "en"
    target_lang: str = "zh-CN"
    gpus: int = 1
    """training runs in as many processes, augmentation and evaluation in as many Ray workers"""
    max_s: float = 30.0
    """longer rows are left out: the model's window"""
    augment: Path = HERE / "augment.yaml"
    """settings of augmentation"""
    train: Path | None = None
    """settings of training; by default those of this folder for one GPU or for eight"""
    evaluate: Path = HERE / "evaluate.yaml"
    """settings of evaluation"""
    dry_run: bool = False
    """print the commands and run none"""


def commands(config: RecipeConfig) -> Iterator[tuple[Path, list[str]]]:
    """The file that each step leaves when it is done, and the step's arguments after `simulsa`."""
    work = config.work
    for split in ("train", "test"):
        yield work / f"{split}-all.jsonl", _manifest(config, split)
        given = ["manifest", "filter", str(work / f"{split}-all.jsonl"), "--max-duration-s", f"{config.max_s:g}"]
        yield work / f"{split}.jsonl", [*given, "--out", str(work / f"{split}.jsonl")]
    offline, cut, model = str(work / "train.jsonl"), str(work / "cut.jsonl"), ["--model", config.model]
    shared = ["--ray", "local", "--ray-workers", str(config.gpus)] if config.gpus > 1 else []
    yield Path(cut), ["augment", "--manifest", offline, "--config", str(config.augment), *model, "--out", cut, *shared]
    settings = config.train or HERE / ("train-8.yaml" if config.gpus > 1 else "train-1.yaml")
    for name in SYSTEMS:
        given = ["train", "--offline", offline, "--config", str(settings), *model, "--out", str(work / name)]
        yield work / name / "adapter_config.json", [*given, *(["--augmented", cut] if name == "simulsa" else [])]
    for name in ("base", *SYSTEMS):
        given = ["evaluate", "--manifest", str(work / "test.jsonl"), "--config", str(config.evaluate), *shared]
        measured = config.model if name == "base" else str(work / name)
        yield work / "scores" / name / "table.md", [*given, "--model", measured, "--out", str(work / "scores" / name)]
    folders = [str(work / "scores" / name) for name in ("base", *SYSTEMS)]
    yield work / "table-1" / "table.md", ["compare", *folders, "--out", str(work / "table-1")]


def _manifest(config: RecipeConfig, split: str) -> list[str]:
    tables = ["--tables", str(config.tables)] if config.tables else []
    languages = ["--source-lang", config.source_lang, "--target-lang", config.target_lang]
    out = str(config.work / f"{split}-all.jsonl")
    return ["manifest", "covost2", "--data", str(config.data), *tables, *languages, "--split", split, "--out", out]


def run_recipe(config: RecipeConfig) -> None:
    """Run every step. Raises `RuntimeError` when one fails."""
    for done, arguments in commands(config):
        several = arguments[0] == "train" and config.gpus > 1
        launcher = ["torchrun", "--standalone", "--nproc-per-node", str(config.gpus), "-m"] if several else []
        print(shlex.join([*launcher, "simulsa", *arguments]), flush=True)
        if config.dry_run or done.exists():
            continue
        start = [sys.executable, "-m", "torch.distributed.run", *launcher[1:], "simulsa", *arguments]
        code = subprocess.run(start, check=False).returncode if several else simulsa(arguments)
        if code:
            raise RuntimeError(f"simulsa {arguments[0]} failed with code {code}; mend what it says and run the recipe again")


if __name__ == "__main__":
    run(run_recipe, RecipeConfig, __doc__)
