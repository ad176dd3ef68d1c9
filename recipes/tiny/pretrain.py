"""Offline pre-training of the embedded model, in stages that each resume from their last checkpoint.

1. **hear**: the encoder alone. A phoneme classifier at its middle layer (frame labels come free with synthesised speech) and a
   CTC loss over the transcript's BPE tokens at its top. Both heads are thrown away afterwards.
2. **say**: the language model on the frozen encoder, to translate and to transcribe whole utterances.
3. **join**: everything together, with the hearing losses kept as an auxiliary.
4. **polish**: the same for longer, on readings by other voices.
5. **harden**: again on other readings, with dropout, because by then the captions are known by heart.

No stage ever sees truncated speech.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen2AudioForConditionalGeneration

from recipes.base.text import TRANSCRIBE, TRANSLATE
from recipes.tiny.batches import IGNORED, Prompts, SpeechBatch, audio_tokens, epochs, mask_spectrogram, speech_batch
from recipes.tiny.speech import Rendition
from simulsa.lalm.precision import has_bfloat16

CHECKPOINT_EVERY_S = 120
LOG_EVERY_STEPS = 50


@dataclass(frozen=True)
class Stage:
    """One stage of pre-training: what it trains and for how long."""

    name: str
    epochs: float
    learning_rate: float
    batch_size: int = 32
    weight_decay: float = 0.05
    warmup_share: float = 0.05
    label_smoothing: float = 0.1
    dropout: float = 0.0  # of embeddings and sub-layers; the encoder's is half of it
    transcribe_share: float = 0.25
    renditions: tuple[int, ...] = (0, 1)  # the readings that the passes take in turn
    seed: int = 0

    @property
    def trains_encoder(self) -> bool:
        """Whether the encoder's weights change."""
        return self.name != "say"

    @property
    def trains_language_model(self) -> bool:
        """Whether the language model's weights change."""
        return self.name != "hear"


def drop_outputs(dropout: nn.Dropout, *sublayers: nn.Module) -> None:
    """Put dropout behind sub-layers whose classes have none."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return (dropout(output[0]), *output[1:]) if isinstance(output, tuple) else dropout(output)

    for sublayer in sublayers:
        sublayer.register_forward_hook(hook)


class Encoder(nn.Module):
    """The model's audio tower run on trimmed batches, with two heads for pre-training.

    The tower itself insists on the full window; here the padding is left out, which is several times faster and gives the
    same values where there is speech (attention is masked and the convolutions see silence behind the end).
    """

    def __init__(self, model: Qwen2AudioForConditionalGeneration, phonemes: int) -> None:
        super().__init__()
        self.tower = model.model.audio_tower
        width = self.tower.config.d_model
        self.phoneme_head = nn.Linear(width, phonemes)
        self.ctc_head = nn.Linear(width, model.config.text_config.vocab_size)
        self.dropout = nn.Dropout(0.0)
        for layer in self.tower.layers:
            drop_outputs(self.dropout, layer.self_attn, layer.fc2)

    def forward(self, mel: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(top, middle)`: float `[batch, tokens, width]` after pooling, and `[batch, positions, width]` of the middle layer."""
        tower = self.tower
        hidden = functional.gelu(tower.conv2(functional.gelu(tower.conv1(mel)))).transpose(1, 2)
        hidden = self.dropout(hidden + tower.embed_positions.weight[: hidden.shape[1]])
        positions = (frames - 1) // 2 + 1
        mask = (torch.arange(hidden.shape[1], device=mel.device)[None, :] < positions[:, None])[:, None, None, :]
        middle = hidden
        for number, layer in enumerate(tower.layers):
            hidden = layer(hidden, mask)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            if number == len(tower.layers) // 2 - 1:
                middle = hidden
        top = tower.layer_norm(tower.avg_pooler(hidden.transpose(1, 2)).transpose(1, 2))
        return top, middle


class Pretraining:
    """The model, its training heads, and the losses of the stages."""

    def __init__(
        self,
        model: Qwen2AudioForConditionalGeneration,
        tokenizer: Any,
        phonemes: int,
        sources: list[str],
        targets: list[str],
        device: str,
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.model.lm_head.weight = self.model.get_input_embeddings().weight  # tied while training
        self.encoder = Encoder(model, phonemes).to(self.device)
        self.dropout = nn.Dropout(0.0)
        for layer in self.model.model.language_model.layers:
            drop_outputs(self.dropout, layer.self_attn, layer.mlp)
        self.tokenizer = tokenizer
        self.prompts = Prompts(tokenizer)
        self.source_ids: list[list[int]] = tokenizer(sources).input_ids
        self.target_ids: list[list[int]] = tokenizer(targets).input_ids
        self.lowercase_ids: list[list[int]] = tokenizer([text.lower().strip(" .") for text in sources]).input_ids
        self.instructions = tokenizer([TRANSLATE, TRANSCRIBE]).input_ids

    def hear_loss(self, top: torch.Tensor, middle: torch.Tensor, batch: SpeechBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Phoneme cross-entropy plus CTC per token, of the encoder's two outputs."""
        phoneme_logits = self.encoder.phoneme_head(middle).float()
        phoneme_loss = functional.cross_entropy(phoneme_logits.flatten(0, 1), batch.phonemes.flatten(), ignore_index=IGNORED)
        ctc_loss = self.ctc_loss(top, batch)
        known = batch.phonemes != IGNORED
        accuracy = (phoneme_logits.argmax(-1) == batch.phonemes)[known].float().mean()
        return phoneme_loss + ctc_loss, {"phoneme_accuracy": float(accuracy), "ctc": ctc_loss.item()}

    def ctc_loss(self, top: torch.Tensor, batch: SpeechBatch) -> torch.Tensor:
        """CTC over lower-cased transcripts; the padding token serves as the blank."""
        log_probs = self.encoder.ctc_head(top).float().log_softmax(-1).transpose(0, 1)
        ids = [self.lowercase_ids[caption] for caption in batch.captions]
        lengths = torch.tensor([len(row) for row in ids])
        flat = torch.tensor([token for row in ids for token in row])
        return functional.ctc_loss(
            log_probs, flat, audio_tokens(batch.frames.cpu()), lengths, blank=self.tokenizer.pad_token_id, zero_infinity=True
        )

    def loss(self, batch: SpeechBatch, stage: Stage, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        """The stage's loss, and numbers to log: hearing, saying, or saying with half of the hearing loss beside."""
        training = torch.is_grad_enabled()
        self.set_dropout(stage.dropout * training)
        with torch.set_grad_enabled(stage.trains_encoder and training):
            top, middle = self.encoder(batch.mel, batch.frames)
        if not stage.trains_language_model:
            return self.hear_loss(top, middle, batch)
        loss, numbers = self.say_loss(top, batch, stage, rng)
        if stage.trains_encoder:
            hearing, more = self.hear_loss(top, middle, batch)
            return loss + 0.5 * hearing, {**numbers, **more}
        return loss, numbers

    def set_dropout(self, share: float) -> None:
        """The share of values that are dropped in the language model; half of it in the encoder."""
        self.dropout.p, self.encoder.dropout.p = share, share / 2

    def say_loss(
        self, top: torch.Tensor, batch: SpeechBatch, stage: Stage, rng: np.random.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Cross-entropy of the translation or transcript given the whole utterance."""
        transcribe = rng.random(len(batch.captions)) < stage.transcribe_share
        texts = [self.source_ids if t else self.target_ids for t in transcribe]
        targets = [text[caption] for text, caption in zip(texts, batch.captions, strict=True)]
        logits, labels = self.answer_logits(top, batch.frames, [self.instructions[int(t)] for t in transcribe], targets)
        loss = functional.cross_entropy(logits, labels, label_smoothing=stage.label_smoothing)
        plain = float(functional.cross_entropy(logits.detach(), labels)) if stage.label_smoothing else loss.item()
        return loss, {"cross_entropy": plain}

    def answer_logits(
        self, top: torch.Tensor, frames: torch.Tensor, instructions: list[list[int]], targets: list[list[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and labels at every target position, flattened: `[tokens, vocabulary]` and `[tokens]`."""
        counts = audio_tokens(frames)
        ids, labels = (part.to(self.device) for part in self.prompts.sequences(counts, instructions, targets))
        audio = self.model.model.multi_modal_projector(top)
        audio = audio[torch.arange(audio.shape[1], device=self.device)[None, :] < counts[:, None].to(self.device)]
        embeds = self.model.get_input_embeddings()(ids)
        embeds = self.dropout(embeds.masked_scatter((ids == self.prompts.audio)[..., None], audio.to(embeds.dtype)))
        attention = (ids != self.tokenizer.pad_token_id).long()
        hidden = self.model.model.language_model(inputs_embeds=embeds, attention_mask=attention, use_cache=False)
        answer = labels[:, 1:] != IGNORED
        return self.model.lm_head(hidden.last_hidden_state[:, :-1][answer]).float(), labels[:, 1:][answer]

    def to_device(self, batch: SpeechBatch) -> SpeechBatch:
        """The batch's tensors on the training device."""
        mel, frames, phonemes = (part.to(self.device) for part in (batch.mel, batch.frames, batch.phonemes))
        return SpeechBatch(mel, frames, phonemes, batch.captions)


def learning_rate_at(step: int, total: int, warmup_share: float) -> float:
    """Linear warm-up, then a cosine to zero, as a share of the peak rate."""
    warmup = max(1, round(total * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def checkpoint(folder: Path, stage: Stage) -> Path:
    """Where a stage keeps its checkpoint."""
    return folder / f"{stage.name}.pt"


def run_stage(training: Pretraining, stage: Stage, renditions: dict[int, Rendition], folder: Path) -> None:
    """Train one stage to its end; picks up a checkpoint that `folder` holds and leaves a finished one there."""
    path = checkpoint(folder, stage)
    batches = list(epochs([renditions[i] for i in stage.renditions], stage.epochs, stage.batch_size, stage.seed))
    modules = trained_modules(training, stage)
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    parameters = list({id(p): p for p in parameters}.values())
    optimizer = torch.optim.AdamW(parameters, lr=stage.learning_rate, weight_decay=stage.weight_decay, betas=(0.9, 0.98))
    start = restore(training, optimizer, path, len(batches))
    loss_of = loss_function(training, stage)
    started = saved = time.monotonic()
    sums: dict[str, float] = {}
    for step in range(start, len(batches)):
        rendition, numbers = batches[step]
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * learning_rate_at(step, len(batches), stage.warmup_share)
        loss, numbers_to_log = loss_of(speech_batch(rendition, numbers), step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        for key, value in {"loss": loss.item(), **numbers_to_log}.items():
            sums[key] = sums.get(key, 0.0) + value
        if (step + 1) % LOG_EVERY_STEPS == 0:
            rate = (step + 1 - start) * stage.batch_size / (time.monotonic() - started)
            means = "  ".join(f"{key} {value / LOG_EVERY_STEPS:.3f}" for key, value in sums.items())
            print(f"{stage.name} {step + 1}/{len(batches)}  {means}  {rate:.0f} utterances/s", flush=True)
            sums = {}
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            save(training, optimizer, path, step + 1)
            saved = time.monotonic()
    save(training, optimizer, path, len(batches))


def trained_modules(training: Pretraining, stage: Stage) -> list[nn.Module]:
    """The modules whose weights a stage changes."""
    inner = training.model.model
    speaker = [inner.multi_modal_projector, inner.language_model]
    return [training.encoder] * stage.trains_encoder + speaker * stage.trains_language_model


def loss_function(training: Pretraining, stage: Stage) -> Callable[[SpeechBatch, int], tuple[torch.Tensor, dict[str, float]]]:
    """The stage's loss as a function of a batch and the step (which seeds the step's random choices)."""

    def loss(batch: SpeechBatch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(stage.seed * 1_000_003 + step)
        masked = SpeechBatch(mask_spectrogram(batch.mel, generator), batch.frames, batch.phonemes, batch.captions)
        batch = training.to_device(masked)
        with torch.autocast(training.device.type, dtype=torch.bfloat16, enabled=has_bfloat16(training.device.type)):
            return training.loss(batch, stage, np.random.default_rng([stage.seed, step]))

    return loss


def restore(training: Pretraining, optimizer: torch.optim.Optimizer, path: Path, total: int) -> int:
    """Load a checkpoint if there is one; the step to go on from. The optimizer's state is of use before the end only."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=training.device, weights_only=True)
    training.model.load_state_dict(state["model"])
    training.encoder.load_state_dict(state["encoder"])
    if state["step"] < total:
        optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def save(training: Pretraining, optimizer: torch.optim.Optimizer, path: Path, step: int) -> None:
    """Write a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": training.model.state_dict(),
        "encoder": training.encoder.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


@torch.no_grad()
def validation_loss(training: Pretraining, stage: Stage, rendition: Rendition) -> dict[str, float]:
    """Mean numbers of the stage's loss over a rendition of other captions."""
    totals: dict[str, list[float]] = {}
    for numbers in validation_batches(rendition, stage.batch_size):
        batch = training.to_device(speech_batch(rendition, numbers))
        loss, logged = training.loss(batch, stage, np.random.default_rng(0))
        for key, value in {"loss": float(loss), **logged}.items():
            totals.setdefault(key, []).append(value)
    return {key: float(np.mean(values)) for key, values in totals.items()}


def validation_batches(rendition: Rendition, batch_size: int) -> Iterator[np.ndarray]:
    """All clips in order of length."""
    by_length = np.argsort(rendition.frames, kind="stable")
    for start in range(0, len(by_length), batch_size):
        yield by_length[start : start + batch_size]
