"""Training of the decoder on cached encoder outputs; a killed run resumes from its last checkpoint.

1. **text**: the captions' text is translated, which costs a third as much as a row of speech.
2. **speech**: clips are translated and transcribed in one row, mixed with rows of text.
3. **tuning**, optional: the same clips as mels, and the encoder is trained as well.

No stage ever sees truncated speech.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen2AudioForConditionalGeneration
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from recipes.base.architecture import audio_tokens, encoded
from recipes.base.batches import IGNORED, Batch, Dataset
from simulsa.files import atomic_write
from simulsa.lalm.precision import bound_plans, has_bfloat16

CHECKPOINT_EVERY_S = 120
LOG_EVERY_STEPS = 50
LOADERS, AHEAD = 4, 12  # threads that make batches, and how many are kept ready


@dataclass(frozen=True)
class Stage:
    """One stage of training. The learning rates warm up, stay constant, and decay to zero over the last `decay` of all steps; a
    run whose rates have not begun to decay may be given more epochs."""

    name: str
    epochs: float
    learning_rate: float = 1e-3
    """of the language model"""
    projector_rate: float = 1e-3
    """of the projector between encoder and language model"""
    encoder_rate: float = 0.0
    """of the encoder; 0 leaves it frozen, and the stage trains on its cached outputs"""
    batch_size: int = 32
    warmup_steps: int = 300
    decay: float = 0.4
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    dropout: float = 0.3
    text: int = 0
    """rows of text per caption and epoch, in addition to its clips"""
    speech: bool = True
    seed: int = 0

    def rates_at(self, step: int, total: int) -> tuple[float, float, float]:
        """The learning rates of a step: the projector's, the language model's, and the encoder's."""
        share = min(1.0, (step + 1) / self.warmup_steps, (total - step) / max(1.0, self.decay * total))
        return share * self.projector_rate, share * self.learning_rate, share * self.encoder_rate

    def seed_of(self, step: int) -> int:
        """The seed of a step's dropout and masks, so that a resumed run draws what an uninterrupted one does."""
        return self.seed * 1_000_003 + step

    def settings(self) -> dict[str, Any]:
        """The settings that a resumed run must share: all except its length and its decay."""
        return {name: value for name, value in asdict(self).items() if name not in ("epochs", "decay")}


class Decoder(nn.Module):
    """The trained part of the model, projector and language model, with added dropout after its sub-layers."""

    def __init__(self, model: Qwen2AudioForConditionalGeneration, audio_token: int) -> None:
        super().__init__()
        self.projector = model.model.multi_modal_projector
        self.language_model = model.model.language_model
        self.encoder: Qwen2AudioEncoder | None = None
        self.dropout = nn.Dropout(0.0)
        self.audio_token = audio_token
        for layer in self.language_model.layers:
            for sublayer in (layer.self_attn, layer.mlp):
                sublayer.register_forward_hook(self._drop)

    def tune(self, encoder: Qwen2AudioEncoder) -> None:
        """From now on train the encoder as well: batches then hold mels, and the state its weights."""
        self.encoder = encoder.requires_grad_(True)
        encoder.embed_positions.requires_grad_(False)  # they are constants

    def _drop(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        return (self.dropout(output[0]), *output[1:]) if isinstance(output, tuple) else self.dropout(output)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and labels at every position of an answer, flattened: float32 `[tokens, vocabulary]` and int64 `[tokens]`.

        In training, stretches of the speech are masked.
        """
        if self.encoder is not None and batch.mels is not None and batch.frames is not None:
            outputs = encoded(self.encoder, batch.mels, batch.frames)
            place = torch.arange(outputs.shape[1], device=outputs.device)
            batch = replace(batch, audio=outputs[place < audio_tokens(batch.frames)[:, None]])
        if self.training:
            batch = batch.time_masked(self.audio_token)
        embedding = self.language_model.embed_tokens
        inputs = embedding(batch.ids)
        audio = self.projector(batch.audio.to(self.projector.linear.weight.dtype))
        inputs = self.dropout(inputs.masked_scatter((batch.ids == self.audio_token)[..., None], audio.to(inputs.dtype)))
        hidden = self.language_model(
            inputs_embeds=inputs, attention_mask=batch.mask(), position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        # the position before a token predicts it; no answer begins a row, and the end of one answer does not predict the next
        said = batch.labels[:, 1:] != IGNORED
        return functional.linear(hidden[:, :-1][said], embedding.weight).float(), batch.labels[:, 1:][said]


def run_stage(decoder: Decoder, stage: Stage, dataset: Dataset, folder: Path, device: torch.device) -> None:
    """Train one stage to its end; picks up the checkpoint that `folder` holds and leaves a finished one there.

    A run may be resumed with more readings than it began with. Raises `ValueError` for a checkpoint with other settings.
    """
    path = folder / f"{stage.name}.pt"
    per_epoch = -(-len(dataset) // stage.batch_size)
    total = round(stage.epochs * per_epoch)
    groups: list[dict[str, Any]] = [{"params": list(part.parameters())} for part in (decoder.projector, decoder.language_model)]
    if decoder.encoder is not None:  # no decay: that would pull the pretrained weights to zero
        tuned = [weight for weight in decoder.encoder.parameters() if weight.requires_grad]
        groups.append({"params": tuned, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=stage.weight_decay, fused=device.type == "cuda")
    bound_plans()
    settings, quick = stage.settings(), has_bfloat16(device.type)
    start = restore(decoder, optimizer, path, settings)
    decoder.dropout.p = stage.dropout
    decoder.train()
    started = saved = time.monotonic()
    losses: list[torch.Tensor] = []
    for step, batch in enumerate(upcoming(dataset, stage, start, total), start):
        for group, rate in zip(optimizer.param_groups, stage.rates_at(step, total), strict=False):
            group["lr"] = rate
        torch.manual_seed(stage.seed_of(step))
        with torch.autocast(device.type, torch.bfloat16, enabled=quick):
            logits, labels = decoder(batch.to(device))
            loss = functional.cross_entropy(logits, labels, label_smoothing=stage.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        if len(losses) == LOG_EVERY_STEPS:
            speed = (step + 1 - start) * stage.batch_size / (time.monotonic() - started)
            loss_mean = float(torch.stack(losses).mean())
            print(f"{stage.name} {step + 1}/{total}  loss {loss_mean:.3f}  {speed:.0f} rows/s", flush=True)
            losses = []
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            save(decoder, optimizer, path, step + 1, settings)
            saved = time.monotonic()
    if start < total:
        save(decoder.half(), None, path, total, settings)
        decoder.float()  # so that it continues like a resumed run that finds this stage finished


def upcoming(dataset: Dataset, stage: Stage, start: int, total: int) -> Iterator[Batch]:
    """The batches of steps `start` to `total`, made by threads ahead of time."""
    with ThreadPoolExecutor(LOADERS) as loaders:
        ready: deque[Any] = deque()
        for step, items in enumerate(_items(dataset, stage, start, total), start):
            ready.append(loaders.submit(dataset.load, items, stage.seed_of(step)))
            if len(ready) > AHEAD:
                yield ready.popleft().result()
        while ready:
            yield ready.popleft().result()


def _items(dataset: Dataset, stage: Stage, start: int, total: int) -> Iterator[list[int]]:
    per_epoch = -(-len(dataset) // stage.batch_size)
    for epoch in range(start // per_epoch, -(-total // per_epoch)):
        for number, items in enumerate(dataset.batches(stage.batch_size, stage.seed + epoch), epoch * per_epoch):
            if start <= number < total:
                yield items


def restore(decoder: Decoder, optimizer: torch.optim.Optimizer, path: Path, settings: dict[str, Any]) -> int:
    """Load a checkpoint if there is one; returns the step to resume from."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    # a setting added after the checkpoint was written had its present default
    if changed := {name for name in settings if settings[name] != state["settings"].get(name, getattr(Stage, name, None))}:
        raise ValueError(f"{path} was made with other settings ({', '.join(sorted(changed))}): take them back, or another --work")
    decoder.load_state_dict(state["decoder"])
    if state["optimizer"] is not None:
        optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def finished(path: Path) -> bool:
    """Whether a stage's checkpoint is its last."""
    return path.exists() and bool(torch.load(path, map_location="cpu", weights_only=True)["finished"])


def save(decoder: Decoder, optimizer: torch.optim.Optimizer | None, path: Path, step: int, settings: dict[str, Any]) -> None:
    """Write a checkpoint atomically; the last one has no optimizer state."""
    state = {
        "decoder": decoder.state_dict(),
        "optimizer": optimizer.state_dict() if optimizer else None,
        "step": step,
        "settings": settings,
        "finished": optimizer is None,
    }
    with atomic_write(path, "wb") as file:
        torch.save(state, file)


@torch.no_grad()
def mean_loss(decoder: Decoder, dataset: Dataset, size: int, device: torch.device) -> float:
    """Cross-entropy per token over a whole dataset, without dropout."""
    decoder.eval()
    total = count = 0.0
    for items in dataset.batches(size, seed=0):
        logits, labels = decoder(dataset.load(items).to(device))
        total += float(functional.cross_entropy(logits, labels, reduction="sum"))
        count += len(labels)
    return total / count
