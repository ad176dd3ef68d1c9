"""From text to the embedded model, in one command that resumes where it was stopped.

    python -m recipes.tiny.build --data ../shared/data/multi30k --work .tiny --out src/simulsa/models/tiny-en-de

Two cores take about five hours; on a GPU it has not been run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

from recipes.base.text import build_tokenizer
from recipes.command import run
from recipes.tiny.architecture import build_model, build_processor
from recipes.tiny.pretrain import Pretraining, Stage, checkpoint, run_stage, validation_loss
from recipes.tiny.speech import make_rendition, phoneme_inventory
from simulsa.corpora.multi30k import read_captions

STAGES = (
    Stage("hear", epochs=2, learning_rate=1e-3),
    Stage("say", epochs=1.5, learning_rate=1e-3),
    Stage("join", epochs=2.2, learning_rate=8e-4),
    Stage("polish", epochs=6, learning_rate=8e-4, label_smoothing=0.05, renditions=(2, 3, 4)),
    Stage("harden", epochs=8, learning_rate=8e-4, label_smoothing=0.1, dropout=0.2, renditions=(5, 6, 4)),
)
VALIDATION_RENDITION = 1000


@dataclass(frozen=True)
class BuildConfig:
    """Where the captions lie, where intermediate files go, and where the model goes."""

    data: Path = Path("../shared/data/multi30k")
    work: Path = Path(".tiny")
    out: Path = Path("src/simulsa/models/tiny-en-de")
    base: Path | None = None  # a saved edition to train further with the last stage alone, instead of starting from nothing
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    seed: int = 0


def export(training: Pretraining, out: Path) -> None:
    """Save the model in float16 and its processor in Hugging Face format."""
    model = training.model
    training.set_dropout(0.0)
    model.lm_head.weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    for part in (model.config.text_config, model.config.audio_config):
        part.dtype = None  # one number format for all, given once
    model.cpu().half().save_pretrained(out)
    build_processor(training.tokenizer).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # it is written for its owner only


def last_begun(stages: Sequence[Stage], folder: Path) -> int:
    """The number of the last stage that has a checkpoint, which holds all that the stages before it did; 0 without any."""
    return max((i for i, stage in enumerate(stages) if checkpoint(folder, stage).exists()), default=0)


def build(config: BuildConfig, stages: Sequence[Stage] = STAGES) -> None:
    """Speak, train every stage, and save; what an earlier run finished is taken from `config.work`."""
    sources, targets = (read_captions(config.data, "train", lang) for lang in ("en", "de"))
    validation = [read_captions(config.data, "val", lang) for lang in ("en", "de")]
    names = phoneme_inventory(sources, config.work)
    torch.manual_seed(config.seed)
    if config.base is None:
        stages = stages[last_begun(stages, config.work) :]
        tokenizer = build_tokenizer([*sources, *targets])
        model = build_model(tokenizer)
    else:
        stages = stages[-1:]
        tokenizer = AutoProcessor.from_pretrained(config.base).tokenizer
        model = Qwen2AudioForConditionalGeneration.from_pretrained(config.base, dtype=torch.float32)
    numbers = sorted({i for stage in stages for i in stage.renditions})
    renditions = {i: make_rendition(sources, i, config.work / f"train-{i}", names) for i in numbers}
    held_out = make_rendition(validation[0], VALIDATION_RENDITION, config.work / f"val-{VALIDATION_RENDITION}", names)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, training on {config.device}", flush=True)
    # the captions of val follow those of train in one numbering
    training = Pretraining(model, tokenizer, len(names), [*sources, *validation[0]], [*targets, *validation[1]], config.device)
    held_out.indices = held_out.indices + len(sources)
    for stage in stages:
        run_stage(training, stage, renditions, config.work)
        print(f"{stage.name} done, on other captions: {validation_loss(training, stage, held_out)}", flush=True)
    export(training, config.out)
    print(f"saved in {config.out}")


if __name__ == "__main__":
    run(build, BuildConfig, __doc__)
