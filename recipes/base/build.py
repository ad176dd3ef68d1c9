"""From captions to the bundled model, in one command that resumes where it was stopped.

    python -m recipes.base.build --data ../shared/data/multi30k --assets .assets --work .base --out src/simulsa/models/tiny-en-de

`--captions 0 14500` trains on only a part of the captions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import AutoProcessor, PreTrainedTokenizerFast, Qwen2AudioForConditionalGeneration

from recipes.base.architecture import Shape, build_model, build_processor
from recipes.base.batches import Dataset, Rows
from recipes.base.features import Features, make_reading
from recipes.base.text import AUDIO, build_tokenizer
from recipes.base.training import Decoder, Stage, finished, run_stage
from recipes.base.voices import KOKORO
from recipes.command import run
from simulsa.corpora.multi30k import read_captions


@dataclass(frozen=True)
class BuildConfig:
    """Where captions, synthesisers and intermediate files are, what to train on, and where to save the model."""

    data: Path = Path("../shared/data/multi30k")
    """folder with Multi30k's captions"""
    assets: Path = Path(".assets")
    """folder that fetch.sh filled"""
    work: Path = Path(".base")
    """folder of readings (used again by every run) and checkpoints"""
    out: Path = Path("src/simulsa/models/tiny-en-de")
    """folder of the model"""
    captions: tuple[int, int] | None = None
    """the first training caption and the one behind the last; all if not given"""
    readings: tuple[str, ...] = ("mixed-0", "kokoro-0")
    """readings of the captions: the name is the seed, and begins with a synthesiser's where it alone is to speak"""
    kokoro_captions: int = 400
    """captions of a Kokoro reading, evenly spread: each takes a core about 4 s"""
    shape: Shape = field(default_factory=Shape)
    processes: int = os.cpu_count() or 1
    """synthesisers at work"""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    start: Path | None = None
    """folder of an earlier edition whose tokenizer and decoder to begin with, in place of the stage of text"""
    text_epochs: float = 6.0
    """passes over the captions' text"""
    speech_epochs: float = 12.0
    """passes over the readings"""
    tuning_epochs: float = 0.0
    """further passes in which the encoder is trained as well; on a CPU each takes several times as long"""
    encoder_rate: float = 1e-4
    """the encoder's highest learning rate in these passes"""
    batch_size: int = 32
    """rows in a step; 256 keeps a GPU busy"""
    learning_rate: float = 1e-3
    """the highest; 1.5e-3 for steps of 256 rows"""
    seed: int = 0

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of training, in order."""
        rates = (self.learning_rate, self.learning_rate)
        text = Stage("text", self.text_epochs, *rates, self.batch_size, text=1, speech=False, seed=self.seed)
        speech = replace(text, name="speech", epochs=self.speech_epochs, speech=True)
        # a decoder that already translates speech must adapt to new encoder outputs, and has much to lose
        further = replace(speech, learning_rate=2e-4, projector_rate=2e-3, warmup_steps=50)
        first = (text, speech) if self.start is None else (further,)
        if not self.tuning_epochs:
            return first
        tuning = replace(text, name="tuning", epochs=self.tuning_epochs, text=0, speech=True, encoder_rate=self.encoder_rate)
        return *first, replace(tuning, learning_rate=6e-4, projector_rate=6e-4, warmup_steps=200, decay=0.6)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints for this selection of captions."""
        return self.work / ("checkpoints" if self.captions is None else "checkpoints-{}-{}".format(*self.captions))


def build(config: BuildConfig) -> None:
    """Speak, encode, train every stage, and save; the results of an earlier run are taken from `config.work`."""
    sources, targets = (read_captions(config.data, "train", lang) for lang in ("en", "de"))
    device = torch.device(config.device)
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)  # it makes a new plan for every shape, and nearly every batch has a new one
    chosen = range(*(config.captions or (0, len(sources))))
    torch.manual_seed(config.seed)
    model, tokenizer = beginning(config, [text for i in chosen for text in (sources[i], targets[i])])
    decoder = Decoder(model, tokenizer.convert_tokens_to_ids(AUDIO)).to(device)
    print(f"decoder of {sum(p.numel() for p in decoder.parameters()) / 1e6:.1f} M parameters on {device}", flush=True)
    if finished(last := config.checkpoints / f"{config.stages[-1].name}.pt"):
        if config.stages[-1].encoder_rate:
            decoder.tune(model.model.audio_tower)
        decoder.load_state_dict(torch.load(last, weights_only=True)["decoder"])
    else:
        rows = Rows(tokenizer, sources, targets)
        for stage in config.stages:
            if tuned := stage.encoder_rate > 0:
                decoder.tune(model.model.audio_tower.to(device))
            folders = [read_aloud(config, name, sources, chosen, device) for name in config.readings if stage.speech]
            features = Features(folders, set(chosen), mels=tuned) if folders else None
            dataset = Dataset(rows, chosen, stage.text, features, model.config.audio_config.d_model)
            run_stage(decoder, stage, dataset, config.checkpoints, device)
    export(model, tokenizer, config.out)
    print(f"saved in {config.out}")


def beginning(config: BuildConfig, texts: Sequence[str]) -> tuple[Qwen2AudioForConditionalGeneration, PreTrainedTokenizerFast]:
    """The untrained model and its tokenizer, the decoder random or an earlier edition's."""
    if config.start is None:
        tokenizer = build_tokenizer(texts)
        return build_model(tokenizer, config.shape, config.assets), tokenizer
    tokenizer = AutoProcessor.from_pretrained(config.start).tokenizer
    for how_loaded in ("is_local", "local_files_only"):  # the export would include these
        tokenizer.init_kwargs.pop(how_loaded, None)
    model = build_model(tokenizer, config.shape, config.assets)
    earlier = Qwen2AudioForConditionalGeneration.from_pretrained(config.start, dtype=torch.float32)
    model.model.language_model.load_state_dict(earlier.model.language_model.state_dict())
    return model, tokenizer


def read_aloud(config: BuildConfig, name: str, captions: Sequence[str], chosen: range, device: torch.device) -> Path:
    """Make the missing shards of a reading that hold a chosen caption; returns the reading's folder."""
    numbered = list(enumerate(captions))
    if name.startswith(KOKORO):
        numbered = numbered[:: max(1, len(captions) // config.kokoro_captions)]
    folder = config.work / "readings" / name
    make_reading(name, numbered, chosen, config.assets, folder, config.processes, device)
    return folder


def export(model: Qwen2AudioForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Save the model in float16 and its processor in Hugging Face format."""
    model.lm_head.weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    for part in (model.config.text_config, model.config.audio_config):
        part.dtype = None  # the number format is stated once, for the whole model
    model.cpu().half().save_pretrained(out)
    build_processor(tokenizer).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # it is written as readable by its owner only


if __name__ == "__main__":
    run(build, BuildConfig, __doc__)
