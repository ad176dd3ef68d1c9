"""Train the systems of the table and of the ablations together on a GPU: each pass holds a batch of every system.

python -m recipes.experiments.together --data ../shared/data/multi30k --assets .assets --work .experiments --device cuda

A GPU trains one model of this size at a fraction of its speed. The systems differ only in their rows and in their LoRA
matrices, so one model with the matrices of all of them trains them at once: on an H200, a step of 37 systems took 145 ms, and one
of 3 systems 50 ms (measured with a first version that looked embeddings up in one table). The adapters are those of `simulsa
train` up to rounding, and lie where the other experiments look for them. There are no checkpoints: an interrupted run starts
again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import get_scheduler

from recipes.command import run
from recipes.experiments import ablations
from recipes.experiments.lab import Lab
from recipes.experiments.systems import WITH_EVERY_SEED, System
from recipes.experiments.workers import LabConfig
from simulsa.files import atomic_write
from simulsa.lalm.decoder import HeardClip
from simulsa.lalm.frontend import PreparedClip
from simulsa.lalm.load import load
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.loading import loaded, processes_for
from simulsa.manifest import Utterance
from simulsa.progress import track
from simulsa.training.config import TrainConfig
from simulsa.training.examples import Example, make_examples
from simulsa.training.folder import Folder
from simulsa.training.lora import add_lora, target_modules
from simulsa.training.order import passed_examples
from simulsa.training.record import make_record
from simulsa.training.train import train_adapter
from simulsa.training.trainer import divergence

HEARD_TOGETHER = 64  # clips per encoder pass
SHARED = ("batch_size", "lora_r", "lora_alpha", "mixed_precision")  # what the systems of one run must have in common

Clip = tuple[str, float, float | None]
"""Audio file, start and duration"""

logger = logging.getLogger("simulsa")


@dataclass(frozen=True)
class TogetherConfig:
    """Which systems are trained."""

    lab: LabConfig = field(default_factory=LabConfig)
    seeds: tuple[int, ...] = (0, 1, 2)
    """seeds of + SFT, + SFT & SimulSA and the recipe `many`; the others have the first"""
    device: str = "cuda"
    """where to train"""


class GroupedLinear(nn.Module):
    """A frozen linear layer with the LoRA matrices of several systems, each for an equal share of a batch's rows.

    `down` is float32 `[systems, r, inputs]` and `up` `[systems, outputs, r]` (`lora_A` and `lora_B` of PEFT); without them the
    layer is the base's.
    """

    down: torch.Tensor | None = None
    up: torch.Tensor | None = None

    def __init__(self, linear: nn.Module, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = linear, scale

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The layer's outputs, `[rows, length, outputs]`, for inputs `[rows, length, inputs]`."""
        outputs: torch.Tensor = self.linear(inputs)
        if self.down is None or self.up is None:
            return outputs
        own = inputs.reshape(len(self.down), -1, inputs.shape[-1])
        return outputs + self.scale * (own @ self.down.mT @ self.up.mT).reshape(outputs.shape)


class Member:
    """A system in training: its order of rows, its weights as one float32 vector, its optimiser and its log."""

    def __init__(self, lalm: HuggingFaceLALM, rows: Sequence[Utterance], config: TrainConfig) -> None:
        self.rows, self.config = rows, config
        self.examples, self._left_out = make_examples(rows, lalm, config.on_error)
        self.order = passed_examples(self.examples, config)
        self.steps = config.optimiser_steps(len(self.examples))
        matrices = _matrices(add_lora(lalm.model, config))
        self.shapes = [matrix.shape for matrix in matrices]
        vector = torch.cat([matrix.detach().float().flatten() for matrix in matrices])
        self.weights = nn.Parameter(vector.to(lalm.device))
        self._optimiser = torch.optim.AdamW([self.weights], config.learning_rate, weight_decay=config.weight_decay)
        warmup = round(config.warmup_share * self.steps)
        self._scheduler: Any = get_scheduler(config.lr_scheduler, self._optimiser, warmup, self.steps)
        self._log: list[dict[str, Any]] = []

    def batch(self, step: int) -> list[Example | None]:
        """The rows of an optimiser step, counted from 0."""
        return self.order[step * self.config.batch_size : (step + 1) * self.config.batch_size]

    def update(self, loss: torch.Tensor) -> None:
        """An optimiser step, once `weights` has its gradient."""
        norm = nn.utils.clip_grad_norm_([self.weights], self.config.max_grad_norm or float("inf"))
        rate = self._scheduler.get_last_lr()[0]
        self._log.append({"loss": loss.detach(), "grad_norm": norm, "learning_rate": rate})
        self._optimiser.step()
        self._scheduler.step()
        self.weights.grad = None

    def write(self, lalm: HuggingFaceLALM) -> None:
        """Leave the last checkpoint, from which `train_adapter` makes the adapter."""
        folder, model = Folder(self.config.out), add_lora(lalm.model, self.config)
        for matrix, values in zip(_matrices(model), unflattened(self.weights.detach(), self.shapes), strict=True):
            matrix.data.copy_(values)
        record = make_record(lalm, self.rows, self.config)
        record["data"]["left_out"] = self._left_out
        folder.begin(record, overwrite=True)
        checkpoint = folder.checkpoints / f"checkpoint-{self.steps}"
        model.save_pretrained(str(checkpoint))
        every = self.config.logging_every_steps
        parts = [self._log[first : first + every] for first in range(0, self.steps, every)]
        entries = [_mean(part, min((number + 1) * every, self.steps)) for number, part in enumerate(parts)]
        with atomic_write(folder.log) as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
        with atomic_write(checkpoint / "trainer_state.json") as file:
            json.dump({"global_step": self.steps, "log_history": entries}, file)


def train_together(lab: Lab, lalm: HuggingFaceLALM, jobs: Sequence[tuple[System, int]]) -> None:
    """Train the systems with their seeds, except those whose adapters exist; `lalm` is the lab's base on a GPU.

    Raises `ValueError` if the systems' batches or matrices differ in size, or if one has dropout.
    """
    members = _members(lab, lalm, jobs)
    if not members:
        return
    heard = _hear_all(lalm, members)
    with _grouped_layers(lalm, members[0].config) as layers:
        for step in track(range(max(member.steps for member in members)), "training together"):
            _step(lalm, layers, [member for member in members if step < member.steps], heard, step)
    for member in members:
        member.write(lalm)
        train_adapter(lab.base, member.rows, member.config)  # finds the last step done


def unflattened(vectors: torch.Tensor, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
    """Matrices `[..., *shape]` from the vectors `[..., weights]` that hold one behind the other."""
    parts = torch.split(vectors, [shape.numel() for shape in shapes], -1)
    return [part.reshape(*vectors.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]


def _members(lab: Lab, lalm: HuggingFaceLALM, jobs: Sequence[tuple[System, int]]) -> list[Member]:
    members: dict[Path, Member] = {}
    for system, seed in jobs:
        if system.training is None:
            continue
        rows, config = lab.training(system, system.training, seed)
        if config.out not in members and not (config.out / "adapter_config.json").exists():
            members[config.out] = Member(lalm, rows, config)
            logger.info("%s, seed %d: %d steps", system.name, seed, members[config.out].steps)
    for name in SHARED:
        if len(found := {getattr(member.config, name) for member in members.values()}) > 1:
            raise ValueError(f"the systems have {name} {sorted(found)}; together they need one, so train them one by one")
    if any(member.config.lora_dropout for member in members.values()):
        raise ValueError("a system has lora_dropout above 0; together there is none, so train it alone")
    return list(members.values())


def _hear_all(lalm: HuggingFaceLALM, members: Sequence[Member]) -> dict[Clip, HeardClip]:
    """Every clip of the members' rows, encoded once."""
    rows = list({_clip(example.row): example for member in members for example in member.examples}.values())
    batches = [rows[first : first + HEARD_TOGETHER] for first in range(0, len(rows), HEARD_TOGETHER)]

    def prepared(batch: list[Example]) -> list[PreparedClip]:
        return [lalm.frontend.prepare(example.row.load(), example.row.direction) for example in batch]

    heard: dict[Clip, HeardClip] = {}
    clips = loaded(prepared, batches, processes_for("auto", lalm.device))
    for batch, some in zip(track(batches, "hearing"), clips, strict=True):
        with _precision(lalm, members[0].config):
            encoded = lalm.listen(some)
        heard |= {_clip(example.row): clip.detached() for example, clip in zip(batch, encoded, strict=True)}
    return heard


def _clip(row: Utterance) -> Clip:
    return row.audio, row.start_s, row.duration_s


@contextmanager
def _grouped_layers(lalm: HuggingFaceLALM, config: TrainConfig) -> Iterator[list[GroupedLinear]]:
    """Put a `GroupedLinear` in the place of every layer that LoRA adapts, in the order of the matrices."""
    places = [name.rpartition(".") for name in target_modules(lalm.model)]
    parents = [lalm.model.get_submodule(parent) for parent, _, _ in places]
    layers = []
    for parent, (_, _, name) in zip(parents, places, strict=True):
        layers.append(GroupedLinear(getattr(parent, name), config.lora_alpha / config.lora_r))
        setattr(parent, name, layers[-1])
    try:
        yield layers
    finally:
        for parent, (_, _, name), layer in zip(parents, places, layers, strict=True):
            setattr(parent, name, layer.linear)


def _step(
    lalm: HuggingFaceLALM, layers: Sequence[GroupedLinear], members: Sequence[Member], heard: dict[Clip, HeardClip], step: int
) -> None:
    """One optimiser step of each of the members, in one pass."""
    rows = [row for member in members for row in member.batch(step)]
    silent = next(row for row in rows if row is not None)  # where a batch has fewer rows, this one's audio, without an answer
    clips = [heard[_clip((row or silent).row)] for row in rows]
    answers = [[*row.target, lalm.eos_id] if row is not None else [] for row in rows]
    matrices = iter(unflattened(torch.stack([member.weights for member in members]), members[0].shapes))
    for layer in layers:
        layer.down, layer.up = next(matrices), next(matrices)
    size, config = members[0].config.batch_size, members[0].config
    logits = _logits(lalm, config, clips, answers)
    labels = torch.tensor([token for answer in answers for token in answer], device=lalm.device)
    places = torch.tensor([place for place, answer in enumerate(answers) for _ in answer], device=lalm.device)
    losses = cross_entropy(logits, labels, reduction="none")
    for layer in layers:
        layer.down = layer.up = None
    for number, member in enumerate(members):
        if share := member.config.self_distillation:
            own = slice(number * size, (number + 1) * size)
            with torch.no_grad():
                wanted = _logits(lalm, config, clips[own], answers[own]).softmax(-1)
            chosen = torch.nonzero(places // size == number).flatten()
            offline = torch.tensor([row is not None and not row.row.is_augmented for row in rows[own]], device=lalm.device)
            mixed = (1 - share) * losses[chosen] + share * divergence(wanted, logits[chosen])
            losses = losses.index_put((chosen,), torch.where(offline[places[chosen] % size], mixed, losses[chosen]))
    sums = torch.zeros(len(members), device=lalm.device).index_add(0, places // size, losses)
    means = sums / torch.bincount(places // size, minlength=len(members)).clamp(min=1)
    means.sum().backward()  # type: ignore[no-untyped-call]
    for member, loss in zip(members, means, strict=True):
        member.update(loss)


def _logits(
    lalm: HuggingFaceLALM, config: TrainConfig, clips: Sequence[HeardClip], answers: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Float32 `[tokens, vocabulary]`: what predicts each token of the answers, one answer behind the other."""
    with _precision(lalm, config):
        hidden = lalm.forward(clips, answers)
        # rows end with their answers, and the logits at position i predict token i + 1
        states = [row[len(row) - len(answer) - 1 : -1] for row, answer in zip(hidden, answers, strict=True)]
        return lalm.decoder.logits(torch.cat(states))


def _precision(lalm: HuggingFaceLALM, config: TrainConfig) -> torch.autocast:
    return torch.autocast(lalm.device.type, torch.bfloat16, enabled=config.mixed_precision)


def _matrices(model: nn.Module) -> list[nn.Parameter]:
    """The LoRA matrices of a `PeftModel`: down and up of each layer, in the order of `target_modules`."""
    layers: list[Any] = [part for part in model.modules() if hasattr(part, "lora_A")]
    return [matrix["default"].weight for layer in layers for matrix in (layer.lora_A, layer.lora_B)]


def _mean(entries: Sequence[dict[str, Any]], step: int) -> dict[str, Any]:
    """A log entry for several steps, as `simulsa train` writes it: the mean loss, and the last step's other values."""
    loss = sum(float(entry["loss"]) for entry in entries) / len(entries)
    return {**entries[-1], "loss": loss, "grad_norm": float(entries[-1]["grad_norm"]), "step": step}


def main(config: TogetherConfig) -> None:
    """Train what the table and the ablations need."""
    lab = config.lab.open()
    jobs = [(system, seed) for seed in config.seeds for system in WITH_EVERY_SEED]
    jobs += [(system, config.seeds[0]) for group in ablations.groups().values() for system in group]
    train_together(lab, load(config.lab.model, dtype="float32", device=config.device), jobs)


if __name__ == "__main__":
    run(main, TogetherConfig, __doc__)
